"""Opening the file behind memory: one that is there, a new one, or a nameless one in a folder.

Whether the file exists is found out by opening it, not by looking first; between two looks somebody else may make it
or remove it, and then we look again.  Nothing here changes a file that holds something.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vhostuser.fd import Fd
from vhostuser.memory.backends.errors import MemoryBackendError

if TYPE_CHECKING:
    from contextlib import ExitStack

TRIES: Final = 8
"""How often a file may come and go while we try to open it; a link to nowhere does so forever."""

CHARACTER_DEVICES: Final = Path("/sys/dev/char")
_TEMPLATES: Final = "set readonly=on,rom=off,share=off to use a file as a template that is only read"


def open_backing(path: str, name: str, *, readonly: bool, create: bool, private: bool, undo: ExitStack) -> Fd:
    """The file at ``path``, made if it is missing; the caller's.

    Args:
        path: of a file, or of a folder to make a file without a name in.
        name: what a temporary file is called for an instant.
        readonly: open it for reading, and make nothing.
        create: whether a missing file is made.
        private: whether what is written stays in this process; only for better advice.
        undo: learns how to close the file, and how to remove it again if it was made here.

    Raises:
        MemoryBackendError: it cannot be opened, or is nothing to map.
    """
    try:
        fd = undo.enter_context(_open(path, name, readonly=readonly, create=create, undo=undo))
        _check_kind(fd)
    except (OSError, ValueError) as error:
        advice = _advice(error, readonly=readonly, create=create, private=private)
        why = error.strerror if isinstance(error, OSError) else error
        raise MemoryBackendError(f"can't open backing store {path} for guest RAM: {why}{advice}") from error
    return fd


def device_limits(fd: Fd) -> tuple[int, int]:
    """Size and alignment of a DAX device, which ``fstat`` does not tell; zeros for everything else.

    Raises:
        MemoryBackendError: it is another character device.
    """
    status = os.fstat(fd.fileno())
    if not stat.S_ISCHR(status.st_mode):
        return 0, 0
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    try:
        if (CHARACTER_DEVICES / number / "subsystem").resolve().name != "dax":
            raise MemoryBackendError(f"character device {number} is no DAX device: property 'mem-path' wants a file")
        size, align = (int((CHARACTER_DEVICES / number / each).read_text(), 0) for each in ("size", "align"))
    except OSError as error:
        raise MemoryBackendError(f"cannot learn the size of DAX device {number}: {error}") from error
    return size, align


def _open(path: str, name: str, *, readonly: bool, create: bool, undo: ExitStack) -> Fd:
    # O_NONBLOCK: a named pipe would wait for a writer, and is refused anyway; files do not care.
    flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDONLY if readonly else os.O_RDWR)
    for _ in range(TRIES):
        try:
            return Fd(os.open(path, flags))
        except IsADirectoryError:
            if not create:
                raise
            return _open_nameless(path, name)
        except FileNotFoundError:
            if readonly or not create:
                raise
        with suppress(FileExistsError):  # somebody was faster: then it is theirs
            fd = Fd(os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644))
            undo.callback(_remove, path)
            return fd
    raise OSError(errno.EEXIST, "it comes and goes, or is a link to nowhere")


def _open_nameless(folder: str, name: str) -> Fd:
    number, path = tempfile.mkstemp(prefix=f"vhost_user_mem.{name.replace('/', '_')}.", dir=folder)
    fd = Fd(number)
    try:
        os.unlink(path)
    except BaseException:
        fd.close()
        raise
    return fd


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _check_kind(fd: Fd) -> None:
    mode = os.fstat(fd.fileno()).st_mode
    if stat.S_ISDIR(mode):  # a folder can be opened for reading
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
        raise ValueError("it is neither a file nor a DAX device")


def _advice(error: Exception, *, readonly: bool, create: bool, private: bool) -> str:
    match error:
        case FileNotFoundError() if readonly:
            return ": readonly=on makes no files: make it first, or set readonly=off"
        case FileNotFoundError() if not create:
            return ": create=off makes no files: make it first, with the exact size"
        case IsADirectoryError():
            made = "readonly=on" if readonly else "create=off"
            return f": {made} makes no files, so property 'mem-path' must name one"
        case OSError(errno=errno.EACCES | errno.EPERM | errno.EROFS) if private and not readonly:
            return f"; {_TEMPLATES}"
    return ""
