"""Read and write a disk that some vhost-user-blk back-end serves.

vhost-user backend blk --memory-size 64M --socket-path disk.sock &
python examples/disk.py disk.sock
"""

from __future__ import annotations

import sys

import trio

from frontend import BlkDriver, open_device


async def main(path: str) -> None:
    async with open_device(path, BlkDriver) as disk:
        await disk.write(0, b"hello".ljust(512, b"\0"))
        await disk.flush()
        print(disk.capacity, "sectors, the first begins with", (await disk.read(0, 1))[:5])


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
