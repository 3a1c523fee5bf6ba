"""A block back-end that reads one byte wrongly: ``python -m tests.cli.lying_disk --fd N``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

from vhostuser.backend import serve
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.fd import Fd
from vhostuser.transport.unix import Listener, adopt

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 2 << 20
WRONG_BYTE = 1_234_567


class Forgetful(MemoryStorage):
    """Turns every bit of one byte around when it is read."""

    def read(self, offset: int, views: Sequence[memoryview], *, nowait: bool) -> None:
        super().read(offset, views, nowait=nowait)
        for view in views:
            if offset <= WRONG_BYTE < offset + len(view):
                view[WRONG_BYTE - offset] ^= 0xFF
            offset += len(view)


async def main() -> None:
    where = adopt(Fd(int(sys.argv[-1])))
    assert isinstance(where, Listener)
    async with where:
        await serve(BlkDevice(Forgetful(SIZE)), where)


if __name__ == "__main__":
    trio.run(main)
