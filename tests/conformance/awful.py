"""Back-ends that nobody should ship: ``awful.py BEHAVIOUR PATH [REGISTER]``.

They know just enough of the protocol to get into trouble, and import nothing of ours, so that they start at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import time

HEADER = struct.Struct("=III")
FEATURES = 1 << 32
GET_FEATURES, SET_FEATURES, SET_OWNER = 1, 2, 3
KEPT: list[object] = []


def messages(sock: socket.socket) -> list[tuple[int, bytes]]:
    """The messages that come with one read; they are small, so they come whole."""
    data, found = sock.recv(65536), []
    while data:
        request, _, size = HEADER.unpack_from(data)
        found.append((request, data[12 : 12 + size]))
        data = data[12 + size :]
    return found


def answer(sock: socket.socket, request: int, payload: bytes, flags: int = 5) -> None:
    sock.sendall(HEADER.pack(request, flags, len(payload)) + payload)


def serve(sock: socket.socket, behaviour: str) -> None:
    """One session."""
    if behaviour == "keeps":
        KEPT.append(sock.dup())
    while found := messages(sock):
        for request, _ in found:
            if request == GET_FEATURES:
                answer(sock, request, struct.pack("=Q", FEATURES), flags=6 if behaviour == "is of version 2" else 5)
            elif request == SET_FEATURES and behaviour.removeprefix("later ") in INSTEAD:
                INSTEAD[behaviour.removeprefix("later ")](sock)
                return
            elif request == SET_FEATURES and behaviour == "dies of features":
                os.kill(os.getpid(), signal.SIGKILL)
            elif request == SET_FEATURES and behaviour == "ends at features":
                sys.exit(1)
            elif request == SET_FEATURES and behaviour == "raises at features":
                raise ValueError("these features I do not know")


def flood(sock: socket.socket) -> None:
    while True:
        os.write(2, b"water " * 10000)
        sock.sendall(b"\xff" * 65536)


def garbage(sock: socket.socket) -> None:
    sock.sendall(b"\xa5" * 20)


def cut_off(sock: socket.socket) -> None:
    sock.sendall(HEADER.pack(1, 5, 8) + b"\0\0\0")
    sock.close()


def hang(sock: socket.socket) -> None:
    time.sleep(3600)


def litter() -> None:
    name = f"/dev/shm/awful-{os.getpid()}"
    KEPT.append(open(name, "wb"))  # noqa: SIM115 - keeping it is the point


def register(path: str) -> None:
    """Write down who we are, where somebody wants to know."""
    if len(sys.argv) > 3:
        with open(sys.argv[3], "a") as file:
            file.write(f"{os.getpid()} {path}\n")


INSTEAD = {"floods": flood, "says garbage": garbage, "cuts off": cut_off, "hangs": hang}


def main(behaviour: str, path: str) -> None:
    if behaviour == "dies":
        sys.exit("no configuration file")
    if behaviour == "never listens":
        time.sleep(3600)
    if behaviour == "is deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "litters":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        litter()
    if behaviour == "has children":
        os.fork()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    if behaviour == "daemonises" and os.fork():
        sys.exit(0)
    if behaviour == "daemonises":
        os.setsid()
    register(path)
    while True:
        sock, _ = listener.accept()
        if behaviour == "serves one at a closed door":
            listener.close()
        with contextlib.suppress(OSError):
            if behaviour in INSTEAD:
                sock.recv(12)
                INSTEAD[behaviour](sock)
            else:
                serve(sock, behaviour)
        sock.close()
        if behaviour.startswith("serves one") and not behaviour.endswith("badly"):
            sys.exit(0)
        if behaviour == "serves one badly":
            sys.exit(7)
        if behaviour == "complains":
            print("==1==ERROR: AddressSanitizer: heap-use-after-free", file=sys.stderr, flush=True)
        while behaviour == "spins":
            listener.setblocking(False)
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                continue
            sock.setblocking(True)
            serve(sock, behaviour)
            sock.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
