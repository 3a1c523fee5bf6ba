"""A guest of 69 instructions: it reads and writes ROM, and is a driver of a virtio block device.

It is what a virtual machine needs to be to ring a back-end by itself, and nothing more.  It runs in real mode, where
an address is segment * 16 + offset and an interrupt is a jump through a table at address 0.  Its instructions, its
interrupt handler and its data lie in ROM, as a PC's firmware does, and begin there with a text that it tries to change.

The bytes were assembled by hand; each instruction stands in `PROGRAM` or `HANDLER` with its meaning, and docs/kvm.md
shows the same list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vhostuser.wire.split import DescFlags, VirtqDesc
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkHeader, BlkType

# --- the guest's address space ---

RAM_SIZE: Final = 0x8_0000
"""RAM from 0 to here can be shared: rings and buffers lie in it."""
STACK_ADDR: Final = 0x8_0000
STACK_SIZE: Final = 0x1_0000
"""Private RAM right behind it: the stack is nobody else's business."""
DOORBELL_ADDR: Final = 0xD_0050
"""No memory: QueueNotify of a virtio-mmio device (virtio 1.3, 4.2.2) whose registers begin at 0xd0000."""
ROM_ADDR: Final = 0xF_0000
ROM_SIZE: Final = 0x1_0000

# --- what lies in RAM, by page ---

VECTOR: Final = 0x25
"""Interrupt 5 of the first PIC, which the guest tells to count from 0x20."""
DESC_TABLE: Final = 0x2000
AVAIL_RING: Final = 0x3000
USED_RING: Final = 0x4000
REQUESTS: Final = 0x5000
"""Two request headers."""
STATUS: Final = 0x6000
"""Two status bytes."""
WRITTEN: Final = 0x7000
"""The sector that the guest writes to the disk."""
READ_BACK: Final = 0x9000
"""Where the disk puts it when it is read."""
NOTES: Final = 0xA000
"""What the guest found: ROM's first byte before its write, the same byte after it, and a count of interrupts."""
QUEUE_SIZE: Final = 8
SECTOR: Final = 3

# --- and in ROM ---

HANDLER_OFFSET: Final = 0x80
PROGRAM_OFFSET: Final = 0x100
TEXT_OFFSET: Final = 0x00
DESCRIPTORS_OFFSET: Final = 0x400
REQUESTS_OFFSET: Final = DESCRIPTORS_OFFSET + 6 * 16
DATA_OFFSET: Final = 0x800
TEXT: Final = b"VHOST-USER GUEST"
ATTACK: Final = ord("!")
"""What the guest writes over the first letter."""

CONSOLE_PORT: Final = 0xE9
END_PORT: Final = 0xF4
SHOWN: Final = 32
"""Bytes of the sector that the guest prints to its console port."""
IRQ: Final = 5


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: where it lies in ROM, its bytes, how an assembler writes it, what it is for."""

    offset: int
    code: bytes
    text: str
    meaning: str

    def __str__(self) -> str:
        line = f"{self.offset:04x}  {self.code.hex(' '):<29}  {self.text}"
        return f"{line:<63}; {self.meaning}" if self.meaning else line


def _listing(offset: int, text: str) -> tuple[Instruction, ...]:
    """Lines of ``code | text | meaning``, one behind the other from ``offset`` on."""
    found = []
    for line in text.strip().splitlines():
        code, assembler, meaning = (part.strip() for part in line.split("|"))
        found.append(Instruction(offset, bytes.fromhex(code), assembler, meaning))
        offset += len(found[-1].code)
    return tuple(found)


HANDLER: Final = _listing(
    HANDLER_OFFSET,
    """
    50                      | push ax                | an interrupt: the call fd was signalled
    B0 20                   | mov al, 20h            |
    E6 20                   | out 20h, al            | tell the PIC that it is served
    FF 06 02 A0             | inc word [A002h]       | count it
    58                      | pop ax                 |
    CF                      | iret                   | go on behind HLT
    """,
)

PROGRAM: Final = _listing(
    PROGRAM_OFFSET,
    """
    B8 00 F0                | mov ax, F000h          |
    8E C0                   | mov es, ax             | ES: the ROM
    26 A0 00 00             | mov al, es:[0000h]     | read ROM
    A2 00 A0                | mov [A000h], al        | write RAM: note what was there
    26 C6 06 00 00 21       | mov byte es:[0000h], 21h | write ROM: exits as MMIO
    26 A0 00 00             | mov al, es:[0000h]     | read it again
    A2 01 A0                | mov [A001h], al        | note that it has not changed
    C7 06 94 00 80 00       | mov word [0094h], 0080h | interrupt 25h goes to offset 80h
    C7 06 96 00 00 F0       | mov word [0096h], F000h | of the ROM
    B0 11                   | mov al, 11h            |
    E6 20                   | out 20h, al            | PIC: begin its set-up, edge-triggered
    B0 20                   | mov al, 20h            |
    E6 21                   | out 21h, al            | its interrupts are 20h to 27h
    B0 04                   | mov al, 04h            |
    E6 21                   | out 21h, al            | the second PIC is behind line 2
    B0 01                   | mov al, 01h            |
    E6 21                   | out 21h, al            | mode of the 8086
    B0 DF                   | mov al, DFh            |
    E6 21                   | out 21h, al            | let only line 5 through
    8C C0                   | mov ax, es             |
    8E D8                   | mov ds, ax             | DS: the ROM, to copy from
    31 C0                   | xor ax, ax             |
    8E C0                   | mov es, ax             | ES: the RAM, to copy to
    FC                      | cld                    | copy upwards
    BE 00 04                | mov si, 0400h          |
    BF 00 20                | mov di, 2000h          |
    B9 30 00                | mov cx, 48             |
    F3 A5                   | rep movsw              | six descriptors, into the descriptor table
    BF 00 50                | mov di, 5000h          |
    B9 10 00                | mov cx, 16             |
    F3 A5                   | rep movsw              | two request headers: write, read
    BE 00 08                | mov si, 0800h          |
    BF 00 70                | mov di, 7000h          |
    B9 00 01                | mov cx, 256            |
    F3 A5                   | rep movsw              | the sector to write
    8E D8                   | mov ds, ax             | DS: the RAM again
    C7 06 00 60 FF FF       | mov word [6000h], FFFFh | neither status is OK yet
    B8 00 D0                | mov ax, D000h          |
    8E C0                   | mov es, ax             | ES: the device's registers
    C7 06 04 30 00 00       | mov word [3004h], 0    | available ring: the chain at descriptor 0
    C7 06 06 30 03 00       | mov word [3006h], 3    | and then the one at descriptor 3
    BB 01 00                | mov bx, 1              |
    E8 1D 00                | call submit            | first request: write the sector
    BB 02 00                | mov bx, 2              |
    E8 17 00                | call submit            | second request: read it back
    31 C0                   | xor ax, ax             |
    8E C0                   | mov es, ax             |
    BE 00 90                | mov si, 9000h          |
    B9 20 00                | mov cx, 32             |
    BA E9 00                | mov dx, E9h            |
    F3 6E                   | rep outsb              | print what came from the disk
    A1 00 60                | mov ax, [6000h]        | both status bytes
    E7 F4                   | out F4h, ax            | the end: tell them
    F4                      | hlt                    |
    EB FD                   | jmp $-1                | nothing more to do
    89 1E 02 30             | submit: mov [3002h], bx | avail.idx: one more chain is available
    66 26 C7 06 50 00 00 00 00 00 | mov dword es:[50h], 0 | the doorbell, for queue 0: the kick fd
    FB                      | wait: sti              | let interrupts in, after the next instruction
    F4                      | hlt                    | sleep until one comes
    FA                      | cli                    |
    39 1E 02 40             | cmp [4002h], bx        | used.idx: is it done?
    75 F7                   | jne wait               | no: something else woke us
    C3                      | ret                    |
    """,
)


def rom_image(secret: bytes) -> bytes:
    """What the ROM holds.

    Args:
        secret: begins the sector that goes to the disk and comes back; at most a sector.
    """
    image = bytearray(ROM_SIZE)
    parts = {
        TEXT_OFFSET: TEXT,
        HANDLER_OFFSET: b"".join(each.code for each in HANDLER),
        PROGRAM_OFFSET: b"".join(each.code for each in PROGRAM),
        DESCRIPTORS_OFFSET: b"".join(each.build() for each in _descriptors()),
        REQUESTS_OFFSET: b"".join(BlkHeader(kind, 0, SECTOR).build() for kind in (BlkType.OUT, BlkType.IN)),
        DATA_OFFSET: secret.ljust(SECTOR_SIZE, b"."),
    }
    for offset, part in parts.items():
        image[offset : offset + len(part)] = part
    return bytes(image)


def _descriptors() -> list[VirtqDesc]:
    """Two chains of three: header, data, status.  The device reads the first one's data and writes the second one's."""
    header, write, more = BlkHeader.wire_size(), DescFlags.WRITE, DescFlags.NEXT
    return [
        VirtqDesc(REQUESTS, header, more, 1),
        VirtqDesc(WRITTEN, SECTOR_SIZE, more, 2),
        VirtqDesc(STATUS, 1, write, 0),
        VirtqDesc(REQUESTS + header, header, more, 4),
        VirtqDesc(READ_BACK, SECTOR_SIZE, write | more, 5),
        VirtqDesc(STATUS + 1, 1, write, 0),
    ]
