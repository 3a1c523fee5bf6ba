from array import array
from collections.abc import Sequence

from vhostuser.virtqueue.queue import DriverQueue

BUCKETS: int
SLOT_OVERHEAD: int

def bucket_end(index: int) -> int: ...

class BlkLoad:
    def __init__(
        self,
        queue: DriverQueue[object],
        slots: Sequence[tuple[int, memoryview]],
        *,
        block_size: int,
        blocks: int,
        write_share: float,
        pattern: int,
        seed: int,
        latencies: array[int],
        watch_seconds: float = 0.0,
    ) -> None: ...
    def stop(self) -> None: ...
    def run(self, kick: int, call: int, stop: int, seconds: float) -> None: ...
    @property
    def done(self) -> int: ...
    @property
    def failure(self) -> tuple[int, int] | None: ...
    @property
    def wrong(self) -> int: ...
