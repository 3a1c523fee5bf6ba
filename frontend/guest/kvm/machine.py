"""`KvmMachine`: slots, and a real CPU that loads from them and stores to them one access at a time.

It is the `Machine` that `SoftwareSlots` imitates.  Each access is an instruction that a virtual CPU executes, so what
happens to it (memory, an exit, a bit in the dirty log) is KVM's doing and nobody's model of it.

The CPU runs in protected mode without paging, where addresses are guest addresses up to 4 GiB.  Its instructions lie in
a page of their own right below 4 GiB, where a PC has its firmware.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final, NamedTuple

from frontend.guest.kvm.system import KvmError
from frontend.guest.kvm.vm import Vm
from frontend.guest.mmio import MmioBus, accesses
from frontend.guest.slots import MAX_SLOTS, MemorySlot, SlotFlags
from vhostuser.memory.map import GuestAddr

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from frontend.guest.kvm import abi
    from frontend.guest.kvm.vcpu import PortWrite
    from frontend.guest.mmio import MmioHandler

CODE_SLOT: Final = MAX_SLOTS - 1
CODE_ADDR: Final = GuestAddr((1 << 32) - mmap.PAGESIZE)
END_OF_32_BITS: Final = 1 << 32


class _Access(NamedTuple):
    """An instruction, with HLT (F4) behind it."""

    code: str
    meaning: str


LOADS: Final = {
    1: _Access("8A 03 F4", "mov al, [ebx]"),
    2: _Access("66 8B 03 F4", "mov ax, [ebx]"),
    4: _Access("8B 03 F4", "mov eax, [ebx]"),
}
STORES: Final = {
    1: _Access("88 03 F4", "mov [ebx], al"),
    2: _Access("66 89 03 F4", "mov [ebx], ax"),
    4: _Access("89 03 F4", "mov [ebx], eax"),
}
_STRIDE: Final = 16  # bytes from one of them to the next


class KvmMachine:
    """A `Machine` on KVM: Linux, with /dev/kvm.

    Slot number `CODE_SLOT` and the last page below 4 GiB are its own.

    Args:
        handler: gets the accesses that memory does not answer.

    Raises:
        KvmError: there is no KVM here.
    """

    def __init__(self, handler: MmioHandler | None = None) -> None:
        self.handler: MmioHandler = handler if handler is not None else MmioBus()
        self.vm = Vm()
        try:
            self.vm.set(MemorySlot(CODE_SLOT, CODE_ADDR, _code_page(), SlotFlags.READONLY))
            self._vcpu = self.vm.create_vcpu()
            self._vcpu.set_sregs(flat(self._vcpu.sregs))
        except BaseException:
            self.close()
            raise

    @property
    def table(self) -> Mapping[int, MemorySlot]:
        """What is set, by number, without the machine's own."""
        return {number: slot for number, slot in self.vm.table.items() if number != CODE_SLOT}

    def set(self, slot: MemorySlot) -> None:
        """See `MemorySlots.set`."""
        self.vm.set(slot)

    def dirty_log(self, number: int) -> bytes:
        """See `MemorySlots.dirty_log`."""
        return self.vm.dirty_log(number)

    def read(self, addr: GuestAddr, length: int) -> bytes:
        """See `Machine.read`."""
        found = bytearray()
        for each, size in accesses(addr, length):
            self._execute(list(LOADS).index(size), each, 0)
            found += (self._vcpu.regs.rax & (1 << 8 * size) - 1).to_bytes(size, "little")
        return bytes(found)

    def write(self, addr: GuestAddr, data: bytes) -> None:
        """See `Machine.write`."""
        for each, size in accesses(addr, len(data)):
            value = int.from_bytes(data[each - addr :][:size], "little")
            self._execute(len(LOADS) + list(STORES).index(size), each, value)

    def close(self) -> None:
        """End the machine."""
        self.vm.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _execute(self, index: int, addr: int, value: int) -> None:
        if addr >= END_OF_32_BITS:
            raise KvmError(f"this CPU runs in 32-bit mode and cannot address {addr:#x}")
        self._vcpu.set_regs(rip=CODE_ADDR + index * _STRIDE, rbx=addr, rax=value)
        if self._vcpu.run_until_halt(self.handler, _no_port):
            raise KvmError("the CPU was stopped in the middle of an access")


def flat(sregs: abi.Sregs) -> abi.Sregs:
    """Protected mode with segments that begin at 0 and end at 4 GiB: addresses are guest addresses."""
    code, data = 0x0B, 0x03  # segment types: execute and read, read and write; both accessed already
    for name, kind in (("cs", code), *((name, data) for name in ("ds", "es", "fs", "gs", "ss"))):
        segment = getattr(sregs, name)
        segment.base, segment.limit, segment.selector = 0, 0xFFFF_FFFF, 8 if kind == code else 16
        segment.type, segment.present, segment.s, segment.db, segment.g = kind, 1, 1, 1, 1
    sregs.cr0 |= 1  # PE: protected mode
    return sregs


def real_mode(sregs: abi.Sregs, *, code: int, stack: int) -> abi.Sregs:
    """Real mode, as after a reset, with the code and stack segments at these multiples of 16; data at 0."""
    for name, selector in (("cs", code), ("ss", stack), ("ds", 0), ("es", 0)):
        segment = getattr(sregs, name)
        segment.base, segment.selector = selector << 4, selector
    return sregs


def _code_page() -> memoryview:
    """All the instructions, one every `_STRIDE` bytes."""
    page = memoryview(mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    for index, access in enumerate((*LOADS.values(), *STORES.values())):
        code = bytes.fromhex(access.code)
        page[index * _STRIDE :][: len(code)] = code
    return page


def _no_port(write: PortWrite) -> None:
    raise KvmError(f"the guest wrote to port {write.port:#x}, and none of these instructions does")
