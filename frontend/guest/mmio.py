"""What becomes of an access that memory does not answer: it leaves the guest as an `MmioExit` and goes to a device.

A guest's load or store ends here when nothing is at its address, or when it is a store to read-only memory.  A
`MmioBus` finds whose address it is, as the decoders of a chipset would.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from vhostuser.memory.map import GuestAddr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_ACCESS = 4
"""Bytes in one load or store of a 32-bit CPU."""


@dataclass(frozen=True, slots=True)
class MmioExit:
    """One load or store that memory did not answer.

    Attributes:
        address: guest address of its first byte.
        data: what the guest stores; None when it loads.
        length: bytes.
    """

    address: GuestAddr
    data: bytes | None
    length: int

    @classmethod
    def store(cls, address: int, data: bytes) -> MmioExit:
        """The guest stores ``data``."""
        return cls(GuestAddr(address), data, len(data))

    @classmethod
    def load(cls, address: int, length: int) -> MmioExit:
        """The guest wants ``length`` bytes."""
        return cls(GuestAddr(address), None, length)

    def __str__(self) -> str:
        if self.data is None:
            return f"load of {self.length} bytes at {self.address:#x}"
        return f"store of {self.data.hex(' ')} at {self.address:#x}"


MmioHandler: TypeAlias = "Callable[[MmioExit], bytes]"
"""Deals with an exit; returns what a load gets, exactly that many bytes.  For a store the answer is not looked at."""


class MmioDevice(Protocol):
    """Something at guest addresses that is not memory."""

    def load(self, offset: int, length: int) -> bytes:
        """What the guest reads ``offset`` bytes into the device."""

    def store(self, offset: int, data: bytes) -> None:
        """The guest writes there."""


class MmioBus:
    """An `MmioHandler` that asks the device whose address it is.

    Where nobody is, stores are lost and loads are all ones, as on a bus that nothing drives.

    Attributes:
        unclaimed: exits that no device was there for.
    """

    def __init__(self) -> None:
        self.unclaimed = 0
        self._devices: list[tuple[range, MmioDevice]] = []

    def add(self, addr: int, size: int, device: MmioDevice) -> None:
        """Put a device at ``size`` addresses from ``addr`` on.

        Raises:
            ValueError: another one is there.
        """
        wanted = range(addr, addr + size)
        for taken, other in self._devices:
            if wanted.start < taken.stop and taken.start < wanted.stop:
                raise ValueError(f"{addr:#x}+{size:#x} is taken: {other!r} is at {taken.start:#x}+{len(taken):#x}")
        self._devices.append((wanted, device))

    def __call__(self, access: MmioExit) -> bytes:
        """Deal with one exit."""
        for taken, device in self._devices:
            if access.address in taken:
                offset = access.address - taken.start
                if access.data is None:
                    return device.load(offset, access.length)
                device.store(offset, access.data)
                return b""
        self.unclaimed += 1
        return b"\xff" * access.length


@dataclass
class Rom:
    """What is behind read-only memory that nothing can change: stores are dropped, and counted.

    Attributes:
        view: what it holds.  Loads usually do not come here: the slot answers them.
        dropped: how many stores came.
    """

    view: memoryview
    dropped: int = 0

    def load(self, offset: int, length: int) -> bytes:
        """Its bytes: for a machine without read-only slots, where the ROM is no memory at all."""
        return bytes(self.view[offset : offset + length]).ljust(length, b"\xff")

    def store(self, offset: int, data: bytes) -> None:
        """Drop them."""
        self.dropped += 1


@dataclass
class Doorbell:
    """A register that a driver writes a queue's number to, as QueueNotify of virtio-mmio (virtio 1.3, 4.2.2).

    KVM can do without it: an ioeventfd at its address signals the back-end, and the guest does not even exit.

    Attributes:
        ring: called with the number.
    """

    ring: Callable[[int], None] = field(repr=False)

    def load(self, offset: int, length: int) -> bytes:
        """Write-only: zeros."""
        return bytes(length)

    def store(self, offset: int, data: bytes) -> None:
        """Ring."""
        self.ring(int.from_bytes(data, "little"))


def accesses(addr: int, length: int) -> Iterator[tuple[int, int]]:
    """How a CPU's copy loop moves ``length`` bytes at ``addr``: naturally aligned loads or stores, (address, bytes)."""
    end = addr + length
    while addr < end:
        size = MAX_ACCESS
        while addr % size or addr + size > end:
            size //= 2
        yield addr, size
        addr += size
