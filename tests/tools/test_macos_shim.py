"""The macOS shim: each of its rules bites, and what macOS allows still works.

Each rule is tried twice, with the shim and without: refused with macOS's errno there, fine on plain Linux here.  But
for the second half, a mistake in the trial itself would look like a rule.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.tools.macos_shim import NoCompilerError, build_macos_shim, shim_environment
from tests.tools.missing import missing
from tests.tools.without_linux import command_without_linux

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform != "linux":
    pytest.skip("the shim imitates macOS on Linux only", allow_module_level=True)

PRELUDE = """
import array, ctypes, errno, fcntl, json, mmap, os, socket, sys, tempfile
import posix_ipc

libc = ctypes.CDLL(None, use_errno=True)

def shm(*, length=32, size=mmap.PAGESIZE, flags=posix_ipc.O_CREX):
    name = f"/{os.getpid()}".ljust(length, "x")
    memory = posix_ipc.SharedMemory(name, flags, mode=0o600)
    posix_ipc.unlink_shared_memory(name)
    if size:
        os.ftruncate(memory.fd, size)
    return memory.fd

def rights(fd):
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]

def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
"""

TRIALS = (
    PRELUDE
    + """
class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]

class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(Iovec)),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int)]

def send_empty_control():
    ours, theirs = socket.socketpair()
    message = Message(iov=ctypes.pointer(Iovec(b"x", 1)), iovlen=1, control=ctypes.addressof(ctypes.c_int()))
    check(libc.sendmsg(ours.fileno(), ctypes.byref(message), 0))

def receive(flags):
    ours, theirs = socket.socketpair()
    theirs.send(b"x")
    ours.recvmsg(1, 64, flags)

def bind(path):
    socket.socket(socket.AF_UNIX).bind(path)

def connect(path):  # nobody listens, and Linux says so
    socket.socket(socket.AF_UNIX).connect(path)

def send_fds_alone():
    ours, theirs = socket.socketpair()
    ours.sendmsg([], rights(0))

F = tempfile.mkdtemp()
LONG = F + "/" + "x" * (104 - len(F) - 1)
trials = {
    "shm name of 32 bytes": lambda: shm(length=32),
    "O_TRUNC on shm_open": lambda: check(libc.shm_open(f"/{os.getpid()}t".encode(), os.O_CREAT | os.O_TRUNC, 0o600)),
    "second ftruncate": lambda: os.ftruncate(shm(length=31), 2 * mmap.PAGESIZE),
    "second ftruncate of a duplicate": lambda: os.ftruncate(os.dup(shm(length=31)), 2 * mmap.PAGESIZE),
    "O_NONBLOCK on shm": lambda: os.set_blocking(shm(length=31), False),
    "fcntl O_NONBLOCK on shm": lambda: fcntl.fcntl(shm(length=31), fcntl.F_SETFL, os.O_RDWR | os.O_NONBLOCK),
    "read of shm": lambda: os.read(shm(length=31), 1),
    "write to shm": lambda: os.write(shm(length=31), b"x"),
    "pread of shm": lambda: os.pread(shm(length=31), 1, 0),
    "pwrite to shm": lambda: os.pwrite(shm(length=31), b"x", 0),
    "lseek on shm": lambda: os.lseek(shm(length=31), 0, os.SEEK_END),
    "fchmod of shm": lambda: os.fchmod(shm(length=31), 0o600),
    "seals": lambda: fcntl.fcntl(shm(length=31), 1034),
    "pipe size": lambda: fcntl.fcntl(os.pipe()[0], 1032),
    "memfd_create": lambda: os.memfd_create("x"),
    "eventfd": lambda: os.eventfd(0),
    "control pointer of length 0": send_empty_control,
    "fds without data": send_fds_alone,
    "MSG_CMSG_CLOEXEC": lambda: receive(socket.MSG_CMSG_CLOEXEC),
    "bind to a path of 104 bytes": lambda: bind(LONG),
    "connect to a path of 104 bytes": lambda: connect(LONG[:-1] + "y"),
    "bind to an abstract name": lambda: bind(f"\\0{os.getpid()}b"),
    "connect to an abstract name": lambda: connect(f"\\0{os.getpid()}c"),
    "seqpacket socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "seqpacket pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
}
answers = {}
for name, trial in trials.items():
    try:
        trial()
        answers[name] = "fine"
    except OSError as error:
        answers[name] = errno.errorcode[error.errno]
    except ValueError:  # what posix_ipc makes of ENAMETOOLONG
        answers[name] = "ENAMETOOLONG"
if os.path.exists(LONG):
    os.unlink(LONG)
os.rmdir(F)
try:
    libc.shm_unlink(f"/{os.getpid()}t".encode())
finally:
    print(json.dumps(answers))
"""
)

RULES = {  # rule: (on macOS, on Linux)
    "shm name of 32 bytes": ("ENAMETOOLONG", "fine"),
    "O_TRUNC on shm_open": ("EINVAL", "fine"),
    "second ftruncate": ("EINVAL", "fine"),
    "second ftruncate of a duplicate": ("EINVAL", "fine"),
    "O_NONBLOCK on shm": ("ENOTTY", "fine"),
    "fcntl O_NONBLOCK on shm": ("ENOTTY", "fine"),
    "read of shm": ("ENXIO", "fine"),
    "write to shm": ("ENXIO", "fine"),
    "pread of shm": ("ESPIPE", "fine"),
    "pwrite to shm": ("ESPIPE", "fine"),
    "lseek on shm": ("ESPIPE", "fine"),
    "fchmod of shm": ("EINVAL", "fine"),
    "seals": ("EINVAL", "fine"),
    "pipe size": ("EINVAL", "fine"),
    "memfd_create": ("ENOSYS", "fine"),
    "eventfd": ("ENOSYS", "fine"),
    "control pointer of length 0": ("EINVAL", "fine"),
    "fds without data": ("EINVAL", "fine"),
    "MSG_CMSG_CLOEXEC": ("EINVAL", "fine"),
    "bind to a path of 104 bytes": ("EINVAL", "fine"),
    "connect to a path of 104 bytes": ("EINVAL", "ENOENT"),
    "bind to an abstract name": ("EINVAL", "fine"),
    "connect to an abstract name": ("EINVAL", "ECONNREFUSED"),
    "seqpacket socket": ("EPROTONOSUPPORT", "fine"),
    "seqpacket pair": ("EPROTONOSUPPORT", "fine"),
}

ALLOWED = (
    PRELUDE
    + """
fd = shm(length=31)
folder = tempfile.mkdtemp()
path = (folder + "/").ljust(103, "x")
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
ours = socket.socket(socket.AF_UNIX)
ours.connect(path)
theirs, _ = listener.accept()
os.unlink(path)
os.rmdir(folder)
with mmap.mmap(fd, mmap.PAGESIZE) as mapping:
    mapping[:5] = b"hello"
ours.sendmsg([b"x"])
ours.sendmsg([b"y"], rights(fd))
assert theirs.recv(1) == b"x"
_, fds, _, _ = socket.recv_fds(theirs, 1, 1)
with mmap.mmap(fds[0], mmap.PAGESIZE) as mapping:
    assert mapping[:5] == b"hello"
try:
    os.ftruncate(fds[0], 2 * mmap.PAGESIZE)
    print("a received fd forgot its rules")
except OSError as error:
    print(errno.errorcode[error.errno])
with tempfile.TemporaryFile() as file:  # regular files know nothing of this
    file.write(b"data")
    file.truncate(2)
    file.truncate(8)
    assert os.pread(file.fileno(), 2, 0) == b"da"
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    os.set_blocking(file.fileno(), False)
"""
)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_macos_shim(tmp_path_factory.mktemp("macos_shim"))
    except NoCompilerError as error:
        missing(str(error))


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_shim() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


@pytest.fixture(scope="module")
def on_macos(shim: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(run([sys.executable, "-c", TRIALS], shim_environment(shim)))
    return found


@pytest.fixture(scope="module")
def on_linux() -> dict[str, str]:
    found: dict[str, str] = json.loads(run([sys.executable, "-c", TRIALS], without_shim()))
    return found


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_of_macos_bites_under_the_shim_and_only_there(
    rule: str, on_macos: dict[str, str], on_linux: dict[str, str]
) -> None:
    assert (on_macos[rule], on_linux[rule]) == RULES[rule]


def test_no_trial_is_left_unexpected(on_macos: dict[str, str]) -> None:
    assert set(on_macos) == set(RULES)


def test_what_macos_allows_works_under_the_shim(shim: Path) -> None:
    """One ftruncate, a name of 31 bytes, a path of 103, fds with data; a received fd is still shared memory."""
    assert run([sys.executable, "-c", ALLOWED], shim_environment(shim)) == "EINVAL\n"


def test_the_shim_and_the_filter_work_together(shim: Path) -> None:
    command = command_without_linux([sys.executable, "-c", ALLOWED])
    assert run(command, shim_environment(shim)) == "EINVAL\n"


def test_the_shim_goes_before_what_is_preloaded_already(tmp_path: Path) -> None:
    library = tmp_path / "shim.so"
    assert shim_environment(library, {"LD_PRELOAD": "other.so"}) == {"LD_PRELOAD": f"{library}:other.so"}
    assert shim_environment(library, {"HOME": "/"}) == {"HOME": "/", "LD_PRELOAD": str(library)}
