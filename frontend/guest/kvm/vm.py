"""`Vm`: a virtual machine of KVM's: real memory slots, and the two ways in which eventfds reach a guest.

An *ioeventfd* turns a guest's store to an address into a signal on an eventfd, in the kernel: when that is a ring's
kick fd, the guest rings the back-end itself and nobody here wakes up.  An *irqfd* is the way back: a signal on the
ring's call fd becomes an interrupt.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final, Self

from frontend.guest.kvm import abi
from frontend.guest.kvm.system import Kvm, KvmError, ioctl
from frontend.guest.kvm.vcpu import Vcpu
from frontend.guest.slots import SlotError, log_size, no_dirty_log, why_refused
from vhostuser.memory.address import address_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from frontend.guest.slots import MemorySlot
    from vhostuser.fd import Fd

IDENTITY_MAP_ADDR: Final = 0xFFFB_C000
"""A page below 4 GiB, and three more behind it, that older Intel CPUs need in order to run real mode."""
TSS_ADDR: Final = IDENTITY_MAP_ADDR + 0x1000


class Vm:
    """A virtual machine without devices.

    Args:
        irqchip: whether the kernel plays the interrupt controllers of a PC.  With them HLT waits for an interrupt
            inside the kernel; without them it is an exit.

    Raises:
        KvmError: there is no KVM here, or it refuses.
    """

    def __init__(self, *, irqchip: bool = False) -> None:
        kvm = Kvm()
        try:
            self.fd = kvm.create_vm()
            self._run_size = ioctl(kvm.fd, abi.KVM_GET_VCPU_MMAP_SIZE)
        finally:
            kvm.close()
        self._table: dict[
            int, MemorySlot
        ] = {}  # the views in it keep the memory mapped for as long as the guest has it
        self._vcpus: list[Vcpu] = []
        try:
            ioctl(self.fd, abi.KVM_SET_IDENTITY_MAP_ADDR, ctypes.c_uint64(IDENTITY_MAP_ADDR))
            ioctl(self.fd, abi.KVM_SET_TSS_ADDR, TSS_ADDR)
            if irqchip:
                ioctl(self.fd, abi.KVM_CREATE_IRQCHIP)
        except OSError as error:
            self.close()
            raise KvmError(f"this KVM cannot make a PC: {error.strerror}") from error

    # --- memory ---

    @property
    def table(self) -> Mapping[int, MemorySlot]:
        """The slots that are set, by number."""
        return dict(self._table)

    def set(self, slot: MemorySlot) -> None:
        """See `MemorySlots.set`; the kernel decides, and `why_refused` finds the words for it."""
        region = abi.UserspaceMemoryRegion(
            slot.slot, slot.flags, slot.guest_addr, slot.size, address_of(slot.view) if slot.size else 0
        )
        try:
            ioctl(self.fd, abi.KVM_SET_USER_MEMORY_REGION, region)
        except OSError as error:
            explained = why_refused(self._table, slot)
            text = f"{slot}: {error.strerror}" if explained is None else str(explained)
            raise SlotError(error.errno, text) from error
        if slot.size:
            self._table[slot.slot] = slot
        else:
            del self._table[slot.slot]

    def dirty_log(self, number: int) -> bytes:
        """See `MemorySlots.dirty_log`.  KVM may count a page that was only read, never miss one that was written."""
        slot = self._table.get(number)
        if slot is None:
            raise no_dirty_log(self._table, number)
        bitmap = (ctypes.c_uint8 * log_size(slot.size))()
        try:
            ioctl(self.fd, abi.KVM_GET_DIRTY_LOG, abi.DirtyLog(number, 0, ctypes.addressof(bitmap)))
        except OSError as error:
            raise no_dirty_log(self._table, number) from error
        return bytes(bitmap)

    # --- eventfds ---

    def add_ioeventfd(self, addr: int, kick: Fd, *, length: int = 4, match: int | None = None) -> None:
        """Signal ``kick`` when the guest stores to ``addr``; the store then does not exit.

        Args:
            addr: guest address where no memory is.
            kick: an eventfd; still the caller's, and the kernel keeps a reference of its own.
            length: bytes of the store, 1, 2, 4 or 8.
            match: only for this value; None for any.

        Raises:
            KvmError: the kernel refuses.
        """
        flags = abi.IoEventFdFlags.NONE if match is None else abi.IoEventFdFlags.DATAMATCH
        argument = abi.IoEventFd(match or 0, addr, length, kick.fileno(), flags)
        self._attach(abi.KVM_IOEVENTFD, argument, f"an ioeventfd at {addr:#x}")

    def add_irqfd(self, call: Fd, gsi: int) -> None:
        """Interrupt the guest whenever ``call`` is signalled; needs the interrupt controllers.

        The kernel consumes the signals: nobody else who waits for the eventfd can count on seeing them.

        Args:
            call: an eventfd; still the caller's.
            gsi: which interrupt; from 0 to 15 the lines of the two PICs.

        Raises:
            KvmError: the kernel refuses.
        """
        self._attach(abi.KVM_IRQFD, abi.IrqFd(call.fileno(), gsi), f"an irqfd for interrupt {gsi}")

    def _attach(self, request: int, argument: ctypes.Structure, what: str) -> None:
        try:
            ioctl(self.fd, request, argument)
        except OSError as error:
            raise KvmError(f"KVM refuses {what}: {error.strerror}") from error

    # --- the rest ---

    def create_vcpu(self) -> Vcpu:
        """A virtual CPU in the state of a reset; it lives as long as the machine.

        Raises:
            KvmError: the kernel refuses.
        """
        try:
            vcpu = Vcpu.create(self.fd, len(self._vcpus), self._run_size)
        except OSError as error:
            raise KvmError(f"KVM makes no virtual CPU: {error.strerror}") from error
        self._vcpus.append(vcpu)
        return vcpu

    def close(self) -> None:
        """End the machine; no virtual CPU may be running."""
        for vcpu in self._vcpus:
            vcpu.close()
        self.fd.close()
        self._table.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
