"""Tasks in the background of a block of code."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def background() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks end with the block, and which does not wrap what the block raises.

    A plain nursery turns an error of the block into a group of one.  Whoever reads or writes a disk inside the block
    should be able to write ``except BlkError``; so tasks in here keep their own errors to themselves, and what the
    block raises comes out as it is.
    """
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except trio.Cancelled:
            raise
        except BaseException as error:
            raised = error
        nursery.cancel_scope.cancel()
    try:
        if raised is not None:
            raise raised
    finally:
        del raised  # its traceback holds this frame: keep no cycle, or memory stays mapped until the collector comes
