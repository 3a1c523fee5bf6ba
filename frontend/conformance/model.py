"""What a request is, for a device of a given type: enough to have it done and to see that it was done right.

Most cases need no more than "a chain that this device completes".  `generic` has one that every device may complete
as it likes; a type that we know does better: its answer can be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vhostuser.conformance import Failure
from vhostuser.wire.virtio.blk import BlkHeader, BlkType
from vhostuser.wire.virtio.fs import FuseInHeader
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from frontend.conformance.memory import SharedMemory
    from frontend.guest.memory import Buffer

__all__ = ["Model", "Request", "model_of"]


@dataclass(frozen=True, eq=False)
class Request:
    """A chain to be, and what is right about its completion.

    Attributes:
        readable: what the device reads, in order.
        writable: what it fills.
        check: gets the used length, and raises `Failure` if the answer is wrong.
    """

    readable: Sequence[Buffer]
    writable: Sequence[Buffer]
    check: Callable[[int], None]

    @property
    def room(self) -> int:
        """Bytes that the device may write."""
        return sum(map(len, self.writable))


class Model(Protocol):
    """A device as a case uses it.

    Attributes:
        name: for people.
        queue: index of the queue that requests go to.
        queues: least number of rings that have to be running for that.
        knows: True when `Request.check` can tell a right answer from a wrong one.
    """

    name: str
    queue: int
    queues: int
    knows: bool

    def request(self, memory: SharedMemory, number: int = 0) -> Request:
        """A request that harms nothing; ``number`` makes it different from others where that is possible."""


def no_more_than(request_room: int, used: int) -> None:
    """The used length is one that can be true."""
    if used > request_room:
        raise Failure(f"used length: found {used}, the chain has room for {request_room}")


class GenericModel:
    """A device that we know nothing of: it gets zeros to read and room to write, and may do with them what it likes."""

    name, queue, queues, knows = "generic", 0, 1, False

    def request(self, memory: SharedMemory, number: int = 0) -> Request:
        """Sixty-four zeros, and room for as many bytes."""
        room = 64
        return Request([memory.buffer(64)], [memory.buffer(room)], lambda used: no_more_than(room, used))


class BlkModel:
    """A disk: GET_ID, which reads no sector and changes nothing."""

    name, queue, queues, knows = "blk", 0, 1, True

    def request(self, memory: SharedMemory, number: int = 0) -> Request:
        """GET_ID: 20 bytes and a status."""
        header = memory.buffer(BlkHeader(BlkType.GET_ID, 0, 0).build())
        serial, status = memory.buffer(20), memory.buffer(b"\xff")

        def check(used: int) -> None:
            no_more_than(21, used)
            if status.view[0]:
                raise Failure(f"GET_ID: found status {status.view[0]}, expected 0")
            if used not in (21, 1):  # a device may have written nothing before the status
                raise Failure(f"GET_ID: found used length {used}, expected 21")

        return Request([header], [serial, status], check)


class RngModel:
    """An entropy source: it fills what it is given."""

    name, queue, queues, knows = "rng", 0, 1, True

    def request(self, memory: SharedMemory, number: int = 0) -> Request:
        """Thirty-two bytes."""
        random = memory.buffer(32)

        def check(used: int) -> None:
            no_more_than(32, used)
            if not used:
                raise Failure("an entropy source completed a request with no byte of entropy")
            if not any(random.view[:used]):
                raise Failure(f"{used} bytes of entropy, all of them 0")

        return Request([], [random], check)


class NetModel:
    """A network card: a short frame to the transmit queue, which is read and forgotten."""

    name, queue, queues, knows = "net", 1, 2, True

    def request(self, memory: SharedMemory, number: int = 0) -> Request:
        """A header of zeros and a frame of an EtherType for local experiments, to nobody."""
        frame = bytes.fromhex("020000000001 020000000002 88b5") + bytes(46)
        packet = memory.buffer(bytes(12) + frame)

        def check(used: int) -> None:
            if used:
                raise Failure(f"a transmitted packet came back with used length {used}, expected 0")

        return Request([packet], [], check)


class FsModel:
    """A file system: an operation that there is not, which is answered with an error and the number it was asked by."""

    name, queue, queues, knows = "fs", 1, 2, True

    def request(self, memory: SharedMemory, number: int = 0) -> Request:
        """An unknown opcode."""
        unique = 1000 + number
        header = FuseInHeader(40, 0x7FFF, unique, 1)
        asked, answer = memory.buffer(header.build()), memory.buffer(16)

        def check(used: int) -> None:
            no_more_than(16, used)
            found = int.from_bytes(answer.view[8:16], "little")
            if used != 16 or found != unique:
                raise Failure(f"FUSE answer: found {used} bytes for request {found}, expected 16 for {unique}")

        return Request([asked], [answer], check)


MODELS: dict[int, Model] = {
    DeviceType.NET: NetModel(),
    DeviceType.BLOCK: BlkModel(),
    DeviceType.RNG: RngModel(),
    DeviceType.FS: FsModel(),
}


def model_of(device_type: int | None) -> Model:
    """The model for a device type, the generic one for those that nobody knows."""
    return MODELS.get(device_type or 0, GenericModel())
