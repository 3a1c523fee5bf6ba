"""Fill a disk and verify it, in two lives: the first process is killed, the second one goes on where it was.

vhost-user backend blk --memory-size 64M --socket-path disk.sock &
python examples/saved_state.py begin disk.sock disk.state     # fills half of the disk, saves; kill it
python examples/saved_state.py finish disk.sock disk.state    # fills the rest and verifies all of it

What the second process knows of the first it finds in guest memory: a seed, and how far the first one came.
"""

from __future__ import annotations

import hashlib
import signal
import struct
import sys
from typing import TYPE_CHECKING

import trio

from frontend import BlkDriver, GuestRam, bring_up
from frontend.bringup import suspend
from frontend.state import read_state, restore, save
from vhostuser.memory import MemoryBackendShm
from vhostuser.transport.unix import connect

if TYPE_CHECKING:
    from frontend.guest import Buffer

BLOCK = 64 * 1024
SECTOR = 512
JOURNAL = struct.Struct("<QQ")
"""A seed, and the bytes of the disk that are filled."""


def pattern(seed: int, offset: int) -> bytes:
    """What belongs to ``offset`` of the disk."""
    return hashlib.shake_128(f"{seed} {offset}".encode()).digest(BLOCK)


async def fill(disk: BlkDriver, journal: Buffer, end: int) -> None:
    """Fill the disk up to ``end``, from where the journal says."""
    seed, position = JOURNAL.unpack_from(journal.view)
    while position < end:
        await disk.write(position // SECTOR, pattern(seed, position))
        position += BLOCK
        JOURNAL.pack_into(journal.view, 0, seed, position)
    await disk.flush()


async def begin(path: str, state_path: str) -> None:
    """Fill half of the disk, save, and wait for the end."""
    with GuestRam(MemoryBackendShm(size=16 << 20)) as ram:
        journal = ram.buffer(JOURNAL.size)
        JOURNAL.pack_into(journal.view, 0, 2026, 0)
        async with bring_up(await connect(path), BlkDriver.plan(), ram=ram) as link:
            disk = BlkDriver(link)
            await fill(disk, journal, disk.size // 2)
            save(state_path, ram, rings=await suspend(link), features=link.features)
            print("saved at", JOURNAL.unpack_from(journal.view)[1], flush=True)
            signal.pause()


async def finish(path: str, state_path: str) -> None:
    """Fill the rest of the disk and verify all of it."""
    state = read_state(state_path)
    with GuestRam(*state.places()) as ram:
        restore(state, ram)
        # Memory is given out in the order in which it is asked for, so this is the journal of the first life.
        journal = ram.buffer(JOURNAL.size)
        seed, position = JOURNAL.unpack_from(journal.view)
        plan = state.plan(BlkDriver.plan())
        async with bring_up(await connect(path), plan, ram=ram, positions=state.rings) as link:
            disk = BlkDriver(link)
            print("going on at", position, "with the ring at", state.rings[0].base)
            await fill(disk, journal, disk.size)
            wrong = 0
            for offset in range(0, disk.size, BLOCK):
                wrong += await disk.read(offset // SECTOR, BLOCK // SECTOR) != pattern(seed, offset)
            print(wrong, "of", disk.size // BLOCK, "blocks differ")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    trio.run(begin if sys.argv[1] == "begin" else finish, sys.argv[2], sys.argv[3])
