"""A device in few lines: a console (virtio 1.3, section 5.3) that prints what the guest writes to it.

    python examples/console.py console.sock

Any front-end that can show a virtio console will do; with QEMU 11:

    -chardev socket,id=c0,path=console.sock
    -device vhost-user-test-device-pci,chardev=c0,virtio-id=3,num_vqs=2,config_size=12
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import trio

from vhostuser.backend import serve
from vhostuser.device import ChainSource, Device
from vhostuser.transport import listen
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from vhostuser.virtqueue.chain import Chain

RECEIVEQ = 0


class Console(Device):
    """One port: what comes on the transmit queue is printed; there is no input."""

    type = DeviceType.CONSOLE

    def __init__(self) -> None:
        super().__init__(num_queues=2)

    async def process(self, queue: int, chain: Chain) -> None:
        sys.stdout.buffer.write(chain.readable.read())
        sys.stdout.buffer.flush()

    async def run_queue(self, queue: int, chains: ChainSource) -> None:
        if queue != RECEIVEQ:
            return await super().run_queue(queue, chains)
        posted = [chain async for batch in chains for chain in batch]  # until the ring stops: nobody types here
        chains.done(*posted)


async def main() -> None:
    async with listen(sys.argv[1]) as listener:
        await serve(Console(), listener)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    trio.run(main)
