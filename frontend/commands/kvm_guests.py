"""The guest of ``vhost-user demo --kvm``, on a real CPU or played in Python, behind one interface.

Both do the same to the same slots: what ``frontend/guest/kvm/program.py`` lists.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING

from frontend.guest.kvm import PortWrite, Vm, real_mode
from frontend.guest.kvm import program as at
from frontend.guest.mmio import Doorbell, MmioBus, MmioExit, Rom
from frontend.guest.slots import SoftwareSlots, slots_for
from vhostuser.memory.map import GuestAddr
from vhostuser.transport.notifier import event_pair

if TYPE_CHECKING:
    from typing import Self

    from frontend.guest.memory import GuestRam
    from frontend.guest.slots import MemorySlots
    from vhostuser.fd import Fd
    from vhostuser.transport.notifier import NotifierKind


class DemoGuest(ABC):
    """A guest with one ring, and what became of it.

    Args:
        ram: its memory.
        slots: where its memory goes.
        notifier: what carries kicks and calls.

    Attributes:
        exits: loads and stores that came out of the guest.
        rom: the device that drops stores to ROM.
        printed: what it wrote to its console port.
        statuses: both status bytes, as it reported them at the end; empty until then.
    """

    engine: str

    def __init__(self, ram: GuestRam, slots: MemorySlots, notifier: NotifierKind) -> None:
        self.slots = slots
        self.exits: list[MmioExit] = []
        self.printed = b""
        self.statuses = b""
        self.bus = MmioBus()
        for slot in slots_for(ram.layout, log_dirty=True):
            slots.set(slot)
            if slot.readonly:
                self.rom = Rom(slot.view)
                self.bus.add(slot.guest_addr, slot.size, self.rom)
        with ExitStack() as undo:
            self.kick, self.kick_consumer = event_pair(notifier)
            undo.callback(self._close_notifiers)
            self.call_notifier, self.call = event_pair(notifier)
            undo.pop_all()

    @abstractmethod
    async def run(self) -> None:
        """From the first instruction to the last."""

    def fds_for_backend(self) -> tuple[Fd, Fd]:
        """The ends of kick and call that a back-end needs; the caller owns them."""
        return self.kick_consumer.take_fd(), self.call_notifier.take_fd()

    def close(self) -> None:
        """End it; once is enough."""
        self._close_notifiers()

    def _close_notifiers(self) -> None:
        for end in ("kick", "kick_consumer", "call", "call_notifier"):
            if (found := getattr(self, end, None)) is not None:
                found.close()

    def _exit(self, access: MmioExit) -> bytes:
        self.exits.append(access)
        return self.bus(access)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class KvmGuest(DemoGuest):
    """The listed instructions, on a virtual CPU; kick and call never pass through this process.

    Raises:
        KvmError: there is no KVM here.
    """

    engine = "kvm"

    def __init__(self, ram: GuestRam, notifier: NotifierKind) -> None:
        with ExitStack() as undo:
            self.vm = Vm(irqchip=True)
            undo.callback(self.vm.close)
            super().__init__(ram, self.vm, notifier)
            undo.callback(self._close_notifiers)
            with self.kick.duplicate() as fd:
                self.vm.add_ioeventfd(at.DOORBELL_ADDR, fd, match=0)
            with self.call.duplicate() as fd:
                self.vm.add_irqfd(fd, at.IRQ)
            self.vcpu = self.vm.create_vcpu()
            self.vcpu.set_sregs(real_mode(self.vcpu.sregs, code=at.ROM_ADDR >> 4, stack=at.STACK_ADDR >> 4))
            self.vcpu.set_regs(rip=at.PROGRAM_OFFSET)
            undo.pop_all()

    async def run(self) -> None:
        await self.vcpu.run_in_thread(self._exit, self._port)

    def _port(self, write: PortWrite) -> None:
        if write.port == at.CONSOLE_PORT:
            self.printed += write.data
        elif write.port == at.END_PORT:
            self.statuses = write.data
            self.vcpu.stop()  # from here on it only halts

    def close(self) -> None:
        self.vm.close()
        super().close()


class PlayedGuest(DemoGuest):
    """The same accesses, made by Python through `SoftwareSlots`: for systems without KVM."""

    engine = "software"

    def __init__(self, ram: GuestRam, notifier: NotifierKind) -> None:
        self.cpu = SoftwareSlots(self._exit)
        super().__init__(ram, self.cpu, notifier)
        self.bus.add(at.DOORBELL_ADDR, 4, Doorbell(lambda _queue: self.kick.notify()))

    async def run(self) -> None:
        self._store(at.NOTES, self._load(at.ROM_ADDR, 1))
        self._store(at.ROM_ADDR, bytes([at.ATTACK]))
        self._store(at.NOTES + 1, self._load(at.ROM_ADDR, 1))
        self._copy(at.DESCRIPTORS_OFFSET, at.DESC_TABLE, 6 * 16)
        self._copy(at.REQUESTS_OFFSET, at.REQUESTS, 2 * 16)
        self._copy(at.DATA_OFFSET, at.WRITTEN, 512)
        self._store(at.STATUS, b"\xff\xff")
        self._store(at.AVAIL_RING + 4, _u16(0) + _u16(3))
        for done in (1, 2):
            await self._submit(done)
        self.printed = self._load(at.READ_BACK, at.SHOWN)
        self.statuses = self._load(at.STATUS, 2)

    async def _submit(self, index: int) -> None:
        self._store(at.AVAIL_RING + 2, _u16(index))
        self._store(at.DOORBELL_ADDR, bytes(4))
        while True:
            await self.call.wait()
            interrupts = int.from_bytes(self._load(at.NOTES + 2, 2), "little")
            self._store(at.NOTES + 2, _u16(interrupts + 1))
            if self._load(at.USED_RING + 2, 2) == _u16(index):
                return

    def _load(self, addr: int, length: int) -> bytes:
        return self.cpu.read(GuestAddr(addr), length)

    def _store(self, addr: int, data: bytes) -> None:
        self.cpu.write(GuestAddr(addr), data)

    def _copy(self, rom_offset: int, addr: int, length: int) -> None:
        self._store(addr, self._load(at.ROM_ADDR + rom_offset, length))


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "little")
