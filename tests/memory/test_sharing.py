"""One memory, two processes: what a back-end gets by fd is the front-end's memory itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.memory.files import PAGE, needs_memfd
from vhostuser.memory import MemoryBackend, MemoryBackendMemfd, MemoryBackendShm

CHILD = """
import os, socket, sys
from vhostuser.fd import Fds
from vhostuser.memory import GuestAddr, GuestMemory
from vhostuser.wire.records import MemoryRegion

sock = socket.socket(fileno=int(sys.argv[1]))
size, fds, _, _ = socket.recv_fds(sock, 64, 1)
status = os.fstat(fds[0])
region = MemoryRegion(guest_addr=0x1000, size=int(size), user_addr=0, mmap_offset=0)
memory = GuestMemory.map([region], Fds.adopt(fds))
view = memory.view(GuestAddr(0x1000), 5)
asked = bytes(view)
view[:] = b"reply"
sock.sendall(f"{status.st_dev} {status.st_ino} {asked.decode()}".encode())
"""


BACKENDS = [
    MemoryBackendShm(size=2 * PAGE),
    pytest.param(MemoryBackendMemfd(size=2 * PAGE), marks=needs_memfd),
]


@pytest.mark.parametrize("backend", BACKENDS, ids=["shm", "memfd"])
def test_two_processes_see_one_memory_that_is_shared_by_fd_alone(backend: MemoryBackend) -> None:
    ours, theirs = socket.socketpair()
    with ours, backend.allocate() as memory:
        with theirs:
            command = [sys.executable, "-c", CHILD, str(theirs.fileno())]
            child = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        memory.view[:5] = b"asked"
        socket.send_fds(ours, [str(memory.size).encode()], [memory.fd.fileno()])
        assert child.wait() == 0
        status = os.fstat(memory.fd.fileno())
        assert ours.recv(64).decode() == f"{status.st_dev} {status.st_ino} asked"
        assert bytes(memory.view[:6]) == b"reply\0"
