from collections.abc import Callable

from vhostuser.virtqueue.chain import Chain
from vhostuser.virtqueue.queue import DeviceQueue
from vhostuser.wire.schema import Buffer

class Image:
    def __init__(
        self,
        *,
        fd: int = -1,
        buffer: Buffer | None = None,
        null: bool = False,
        sectors: int = 0,
        writable: bool = False,
    ) -> None: ...
    def set_size(self, sectors: int) -> None: ...
    def set_writable(self, writable: bool) -> None: ...
    @property
    def counts(self) -> tuple[int, int, int]: ...

class BlkLoop:
    def __init__(self, image: Image, serve: Callable[[Chain], object]) -> None: ...
    def stop(self) -> None: ...
    def run(self, queue: DeviceQueue, kick: int, call: int, stop: int, poll_seconds: float) -> None: ...
