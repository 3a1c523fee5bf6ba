"""``vhost-user rng``: random bytes from any vhost-user-rng back-end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from frontend.commands.options import device_options
from frontend.commands.outcome import EPILOG
from vhostuser.cli.parameters import SizeType

if TYPE_CHECKING:
    from frontend.commands.options import Target
    from frontend.commands.running import Patience

STREAM = "-"
CHUNK = 64 * 1024
HEX_LINE = 16
"""Bytes in a line on a terminal."""


@click.group(epilog=EPILOG)
def rng() -> None:
    """Random bytes from any vhost-user-rng back-end.

    \b
    Example:
      vhost-user backend rng --socket-path rng.sock &
      vhost-user rng read --socket-path rng.sock --size 1M random.bin
    """


@rng.command(epilog=EPILOG)
@device_options
@click.option("--size", type=SizeType(least=1), default="32", show_default=True, help="How many bytes, as 4K.")
@click.argument("file", default=STREAM, type=click.Path(dir_okay=False, allow_dash=True))
def read(target: Target, size: int, file: str) -> None:
    """Read random bytes into FILE, or to stdout: in hexadecimal on a terminal, else as they are."""
    from frontend.commands.running import open_target, run_at
    from frontend.commands.transfer import progress_bar
    from frontend.drivers.rng import RngDriver

    async def action(patience: Patience) -> None:
        async with open_target(target, RngDriver) as device:
            with click.open_file(file, "wb") as out, progress_bar("read", size) as advance:
                for at in range(0, size, CHUNK):
                    data = await device.read(min(CHUNK, size - at))
                    out.write(hex_lines(data) if file == STREAM and sys.stdout.isatty() else data)
                    patience.progress()
                    advance(len(data))

    run_at(target, action)


def hex_lines(data: bytes) -> bytes:
    """``data`` for people, in lines that end with a newline."""
    lines = (data[at : at + HEX_LINE].hex(" ") for at in range(0, len(data), HEX_LINE))
    return "".join(f"{line}\n" for line in lines).encode()
