"""Our own programs as processes, the way a user starts them: ``vhost-user backend blk`` and friends.

They log every message (``-vv``), so a test can also say what it was that a front-end did to them.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers.programs import listening_at, run_peer, wait_connectable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.peers.programs import Peer

VHOST_USER = (sys.executable, "-m", "vhostuser")
NOTIFIERS = re.compile(r"(received SET_VRING_(?:KICK|CALL)) .*\((\w+)")


@dataclass(frozen=True, slots=True)
class OurBackend:
    """One of our back-ends, running or ended.

    Attributes:
        peer: its process.
    """

    peer: Peer

    def log(self) -> list[str]:
        """What it has logged so far, in lines."""
        return self.peer.log.read_text(errors="replace").splitlines()

    def complaints(self) -> list[str]:
        """Lines that are neither messages nor ordinary news."""
        return [line for line in self.log() if not line.startswith(("INFO ", "DEBUG "))]

    def messages(self) -> list[str]:
        """The messages that passed: ``received SET_VRING_NUM  ring 0 size 256``."""
        logger = "DEBUG vhostuser.messages: "
        return [line.removeprefix(logger) for line in self.log() if line.startswith(logger)]

    def bases(self, ring: int) -> list[int]:
        """How many requests it had served on ``ring``, modulo 65536, each time the front-end stopped the ring."""
        start = f"sent reply to GET_VRING_BASE  ring {ring} base "
        return [int(line.removeprefix(start)) for line in self.messages() if line.startswith(start)]

    def notifier_kinds(self) -> set[str]:
        """What the front-end has sent as kicks and calls: ``eventfd``, ``pipe``, ``socket``."""
        return {found[2] for line in self.messages() if (found := NOTIFIERS.match(line))}

    def pipe_ends(self) -> Counter[str]:
        """How many ``read`` and how many ``write`` ends of pipes it holds now."""
        process = Path(f"/proc/{self.peer.process.pid}")
        pipes = [link.name for link in (process / "fd").iterdir() if str(link.readlink()).startswith("pipe:")]
        return Counter(_direction((process / "fdinfo" / fd).read_text()) for fd in pipes)


def _direction(fdinfo: str) -> str:
    """From the line ``flags:  02004001``, octal, as open(2) takes them."""
    flags = re.search(r"^flags:\s+(\d+)$", fdinfo, re.MULTILINE)
    assert flags is not None
    return "read" if int(flags[1], 8) & os.O_ACCMODE == os.O_RDONLY else "write"


@asynccontextmanager
async def our_backend(
    kind: str, path: Path, *options: str | Path, no_eventfd: bool = False
) -> AsyncIterator[OurBackend]:
    """``vhost-user backend KIND`` on an inherited socket listening at ``path``, until the block ends; connect at once.

    The log is beside the socket.
    """
    with listening_at(path) as listener:
        command = [*VHOST_USER, "-vv", "backend", kind, "--fd", str(listener.fileno()), *options]
        log = path.with_suffix(".log")
        async with run_peer(command, log=log, pass_fds=[listener.fileno()], no_eventfd=no_eventfd) as peer:
            listener.close()  # now a dead back-end refuses front-ends instead of letting them wait
            yield OurBackend(peer)


@asynccontextmanager
async def our_listening_backend(kind: str, path: Path, *options: str | Path, log: Path) -> AsyncIterator[OurBackend]:
    """``vhost-user backend KIND --socket-path PATH``, already listening, until the block ends."""
    command = [*VHOST_USER, "-vv", "backend", kind, "--socket-path", path, *options]
    async with run_peer(command, log=log) as peer:
        await wait_connectable(path, peer)
        yield OurBackend(peer)
