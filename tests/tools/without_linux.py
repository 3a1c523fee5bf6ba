"""Run a program in a Linux without the Linux-only system calls.

    python tests/tools/without_linux.py [--deny name,...] [--kill] -- command arguments

What is left is roughly what macOS and the BSDs have: sockets, pipes, ``shm_open``, ``mmap``.  A program that uses
memfd, eventfd and friends where they exist has a second way for the other systems; this is how that second way is
run where no other system is at hand.  It works on any program, ours or not, and on all its children.

How: a seccomp filter (Linux, Documentation/userspace-api/seccomp_filter.rst) is a small program in classic BPF which
the kernel runs at every system call; it sees the call's number and answers "allow", "fail with this errno" or "kill".
A process may always install one on itself once it has renounced gaining privileges (PR_SET_NO_NEW_PRIVS), and filters
survive ``execve``: so this program installs the filter and then becomes the command.  The process id stays the same.

A denied call fails with ENOSYS, as in a kernel that never had it.  With ``--kill`` the process dies of SIGSYS instead,
which proves that a path does not even *try*; only ``PROBED`` still get ENOSYS there.
"""

import argparse
import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# (x86_64, aarch64); None where the architecture never had the call.
NUMBERS: Mapping[str, tuple[int, int | None]] = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "eventfd": (284, None),
    "eventfd2": (290, 19),
    "userfaultfd": (323, 282),
    "signalfd": (282, None),
    "signalfd4": (289, 74),
    "timerfd_create": (283, 85),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "close_range": (436, 436),
    "splice": (275, 76),
    "tee": (276, 77),
    "vmsplice": (278, 75),
    "copy_file_range": (326, 285),
    "io_uring_setup": (425, 425),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "sendmmsg": (307, 269),
    "recvmmsg": (299, 243),
    "mremap": (25, 216),
}
# Other systems lack these as well, or some of them, but CPython's own start or its socket module leans on them.
MORE_NUMBERS: Mapping[str, tuple[int, int | None]] = {
    "accept4": (288, 242),
    "dup3": (292, 24),
    "fallocate": (285, 47),
    "membarrier": (324, 283),
    "pipe2": (293, 59),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
}
# Tried by the C library (realloc: mremap) or by CPython and trio (subprocesses) on any Linux, with a fallback.
PROBED = frozenset({"close_range", "mremap", "pidfd_open"})

ARCHITECTURES: Mapping[str, tuple[int, int]] = {  # machine: (AUDIT_ARCH_*, column in NUMBERS)
    "x86_64": (0xC000003E, 0),
    "aarch64": (0xC00000B7, 1),
}

# <linux/seccomp.h>, <linux/prctl.h>
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
RET_KILL_PROCESS = 0x80000000

# <linux/bpf_common.h>: load a 32-bit word of struct seccomp_data, compare it, answer.
LOAD_WORD = 0x20
JUMP_IF_EQUAL = 0x15
RETURN = 0x06
DATA_NUMBER = 0  # offset of seccomp_data.nr
DATA_ARCH = 4  # offset of seccomp_data.arch


def command_without_linux(
    command: Sequence[str | os.PathLike[str]], *, deny: Iterable[str] = (), kill: bool = False
) -> list[str]:
    """The command line that runs ``command`` without the Linux-only calls; ``deny`` replaces the default set."""
    denied = ",".join(deny)
    options = [*(["--deny", denied] if denied else []), *(["--kill"] if kill else [])]
    return [sys.executable, str(Path(__file__).resolve()), *options, "--", *[os.fspath(part) for part in command]]


def filter_program(names: Iterable[str], *, kill: bool, machine: str | None = None) -> bytes:
    """The BPF program that denies ``names``, as an array of struct sock_filter.

    Raises:
        ValueError: a name or the machine is not in our tables.
    """
    architecture, column = _architecture(machine or platform.machine())
    program = [
        # Numbers mean something only together with the architecture; a foreign one has no business here.
        _instruction(LOAD_WORD, DATA_ARCH),
        _instruction(JUMP_IF_EQUAL, architecture, if_true=1),
        _instruction(RETURN, RET_KILL_PROCESS),
        _instruction(LOAD_WORD, DATA_NUMBER),
    ]
    for name in names:
        number = _number(name, column)
        if number is None:
            continue
        answer = RET_KILL_PROCESS if kill and name not in PROBED else RET_ERRNO | errno.ENOSYS
        program.append(_instruction(JUMP_IF_EQUAL, number, if_false=1))
        program.append(_instruction(RETURN, answer))
    program.append(_instruction(RETURN, RET_ALLOW))
    return b"".join(program)


def install_filter(program: bytes) -> None:
    """Put this process, for the rest of its life, under ``program``.

    Raises:
        OSError: the kernel refuses (no seccomp, or a bad program).
    """

    class SockFprog(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    fprog = SockFprog(len(program) // 8, program)
    zero = ctypes.c_ulong(0)  # prctl is variadic and reads longs
    steps = (
        (PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero),
        (PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(fprog), zero, zero),
    )
    for step in steps:
        if libc.prctl(*step) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl({step[0]}): {os.strerror(number)}")


def _architecture(machine: str) -> tuple[int, int]:
    if machine not in ARCHITECTURES:
        raise ValueError(f"found machine {machine}, expected one of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[machine]


def _number(name: str, column: int) -> int | None:
    numbers = {**NUMBERS, **MORE_NUMBERS}
    if name not in numbers:
        raise ValueError(f"found system call {name}, expected one of {', '.join(sorted(numbers))}")
    return numbers[name][column]


def _instruction(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter; the jumps count instructions to skip."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def main(arguments: Sequence[str]) -> int:
    """Become the command; returns only when that fails (126: no filter, 127: no command)."""
    parser = argparse.ArgumentParser(
        prog="without_linux.py", description="Run a command without Linux-only calls.", allow_abbrev=False
    )
    parser.add_argument("--deny", metavar="NAME,...", help="deny these instead of the usual set")
    parser.add_argument("--kill", action="store_true", help="kill with SIGSYS instead of answering ENOSYS")
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args(arguments)
    denied = chosen.deny.split(",") if chosen.deny else NUMBERS
    try:
        install_filter(filter_program(denied, kill=chosen.kill))
    except (OSError, ValueError) as error:
        print(f"without_linux.py: {error}", file=sys.stderr)
        return 126
    try:
        os.execvp(chosen.command[0], chosen.command)
    except OSError as error:
        print(f"without_linux.py: {chosen.command[0]}: {error}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
