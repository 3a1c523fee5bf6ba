"""Memory backends: memory of the right kind and size comes out, with no name, and nothing is left when it does not."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import TYPE_CHECKING

import posix_ipc  # type: ignore[import-not-found]  # a C module without stubs
import pytest

from tests.memory.files import FDS, PAGE, file_bytes, inode_of, mapped_ranges, needs_memfd, open_fds, reads_proc
from tests.tools.macos_shim import NoCompilerError, build_macos_shim, shim_environment
from tests.tools.missing import missing
from tests.tools.without_linux import command_without_linux
from vhostuser.memory import MemoryBackend, MemoryBackendError, MemoryBackendMemfd, MemoryBackendShm
from vhostuser.memory.backends.shm import open_nameless, random_name

if TYPE_CHECKING:
    from collections.abc import Iterator

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the launcher and the shim are for Linux")

BACKENDS = [
    pytest.param(MemoryBackendShm, id="shm"),
    pytest.param(MemoryBackendMemfd, id="memfd", marks=needs_memfd),
]
HUGE = 1 << 60  # more than any file may have, or any address space


@contextmanager
def at_most_fds(count: int) -> Iterator[None]:
    """No descriptor with a number of ``count`` or more can be opened in here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def at_most_address_space(size: int) -> Iterator[None]:
    """``mmap`` of more than that fails in here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("kind", BACKENDS)
def test_the_view_is_the_file_zeroed_and_writable(kind: type[MemoryBackend]) -> None:
    with kind(size=2 * PAGE).allocate() as memory:
        assert (len(memory.view), memory.size) == (2 * PAGE, 2 * PAGE)
        assert not any(memory.view)
        memory.view[PAGE : PAGE + 5] = b"hello"
        assert file_bytes(memory.fd, 5, PAGE) == b"hello"
        assert memory.shareable


@pytest.mark.parametrize("kind", BACKENDS)
def test_the_file_has_no_name_and_is_not_inherited(kind: type[MemoryBackend]) -> None:
    with kind(size=PAGE).allocate() as memory:
        assert os.fstat(memory.fd.fileno()).st_nlink == 0
        assert not os.get_inheritable(memory.fd.fileno())


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no folder shows POSIX shared memory here")
def test_the_name_of_shared_memory_is_gone() -> None:
    with MemoryBackendShm(size=PAGE).allocate() as memory:
        assert memory.name.removeprefix("/") not in os.listdir("/dev/shm")
        if FDS.is_dir():
            assert os.readlink(FDS / str(memory.fd.fileno())) == f"/dev/shm{memory.name} (deleted)"


@pytest.mark.parametrize("kind", BACKENDS)
@reads_proc
def test_closing_closes_the_fd_and_the_mapping_goes_with_its_last_view(kind: type[MemoryBackend]) -> None:
    before = open_fds()
    memory = kind(size=PAGE).allocate()
    inode = inode_of(memory.fd)
    memory.close()
    memory.close()
    assert memory.fd.closed
    view = memory.view[:8]
    del memory
    assert mapped_ranges(inode) == [PAGE]
    del view
    assert mapped_ranges(inode) == []
    assert open_fds() == before


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE, PAGE + 1])
def test_shared_memory_takes_whole_pages_and_shows_the_bytes_asked_for(size: int) -> None:
    with MemoryBackendShm(size=size).allocate() as memory:
        assert len(memory.view) == size
        assert os.fstat(memory.fd.fileno()).st_size == (PAGE if size <= PAGE else 2 * PAGE)


def test_names_are_random_and_short_enough_for_macos() -> None:
    names = {random_name() for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"/vhost-user-[0-9a-f]{18}", name) and len(name) <= 30 for name in names)


def test_a_name_that_exists_already_is_not_opened() -> None:
    """O_CREAT|O_EXCL: whoever made that object could have kept it open."""
    name = random_name()
    other = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
    try:
        with pytest.raises(MemoryBackendError, match=r"failed to create POSIX shared memory: .*exists"):
            open_nameless(name)
    finally:
        other.close_fd()
        posix_ipc.unlink_shared_memory(name)


def test_when_the_name_cannot_be_removed_the_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody was faster: the name is gone already, and might have been anything in between."""
    before = os.listdir("/dev/fd")
    unlink = posix_ipc.unlink_shared_memory

    def unlink_twice(name: str) -> None:
        unlink(name)
        unlink(name)

    monkeypatch.setattr(posix_ipc, "unlink_shared_memory", unlink_twice)
    with pytest.raises(MemoryBackendError, match="failed to create POSIX shared memory"):
        MemoryBackendShm(size=PAGE).allocate()
    assert os.listdir("/dev/fd") == before


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MemoryBackendShm, MemoryBackendMemfd])
@pytest.mark.parametrize("size", [0, -PAGE])
def test_a_size_that_is_none_is_refused_in_qemus_words(kind: type[MemoryBackend], size: int) -> None:
    with pytest.raises(MemoryBackendError) as caught:
        kind(size=size)
    assert str(caught.value) == f"property 'size' of {kind.type} doesn't take value '{size}'"


def test_private_shm_is_refused_with_the_remedy() -> None:
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendShm(id="ram", size=PAGE, share=False).allocate()
    assert str(caught.value) == (
        "can't create shm backend with `share=off`: memory-backend-shm ram has share=off: set share=on"
    )


@needs_memfd
def test_memfd_memory_of_part_of_a_page_is_refused() -> None:
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendMemfd(size=PAGE + 1).allocate()
    assert str(caught.value) == (
        f"backend 'memory-backend-memfd' memory size must be multiple of {PAGE:#x}, found {PAGE + 1:#x}"
    )


def test_properties_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        MemoryBackendShm(size=PAGE).size = 2 * PAGE  # type: ignore[misc]


def test_a_backend_says_why_it_cannot_be_shared() -> None:
    private = MemoryBackendMemfd(id="ram", size=PAGE, share=False)
    assert not private.shareable
    assert private.why_not_shareable == "memory-backend-memfd ram has share=off: set share=on"
    assert MemoryBackendMemfd(size=PAGE).why_not_shareable is None


@needs_memfd
def test_private_memfd_memory_does_not_reach_its_file() -> None:
    with MemoryBackendMemfd(size=PAGE, share=False).allocate() as memory:
        memory.view[:5] = b"hello"
        assert not memory.shareable
        assert file_bytes(memory.fd, 5, 0) == bytes(5)


# --- seals ------------------------------------------------------------------------------------------------------------


@needs_memfd
@pytest.mark.parametrize("size", [0, PAGE, 3 * PAGE])
def test_a_sealed_memfd_refuses_another_size(size: int) -> None:
    with MemoryBackendMemfd(size=2 * PAGE).allocate() as memory:
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd.fileno(), size)
        with pytest.raises(PermissionError):  # F_SEAL_SEAL: the seals are final
            fcntl.fcntl(memory.fd.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


@needs_memfd
def test_without_seal_the_size_can_change() -> None:
    with MemoryBackendMemfd(size=PAGE, seal=False).allocate() as memory:
        os.ftruncate(memory.fd.fileno(), 2 * PAGE)
        assert fcntl.fcntl(memory.fd.fileno(), fcntl.F_GET_SEALS) == fcntl.F_SEAL_SEAL


@needs_memfd
def test_seals_that_the_system_refuses_are_an_error_with_their_number() -> None:
    from vhostuser.memory.backends.memfd import add_seals, create_memfd

    with create_memfd("x", seal=False) as fd, pytest.raises(MemoryBackendError, match="failed to add seals 0x2"):
        add_seals(fd, fcntl.F_SEAL_SHRINK)


# --- nothing is left when the system refuses (and the leak check looks as well) ---------------------------------------


@pytest.mark.parametrize("kind", BACKENDS)
def test_no_fd_to_be_had_is_an_error_with_the_reason(kind: type[MemoryBackend]) -> None:
    with at_most_fds(0), pytest.raises(MemoryBackendError) as caught:
        kind(size=PAGE).allocate()
    assert str(caught.value).startswith("failed to create ")
    assert "files open" in str(caught.value) or os.strerror(errno.EMFILE) in str(caught.value)


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("size", [1 << 63, 1 << 70])
def test_a_size_that_no_file_can_have_is_an_error(kind: type[MemoryBackend], size: int) -> None:
    before = os.listdir("/dev/fd")
    with pytest.raises(MemoryBackendError, match=f"failed to resize .* to {size}: "):
        kind(size=size).allocate()
    assert os.listdir("/dev/fd") == before


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_size_that_cannot_be_mapped_is_an_error(kind: type[MemoryBackend]) -> None:
    before = os.listdir("/dev/fd")
    with at_most_address_space(16 << 30), pytest.raises(MemoryBackendError, match="unable to map 0x1000000000 bytes"):
        kind(size=1 << 36).allocate()
    assert os.listdir("/dev/fd") == before


# --- other systems ----------------------------------------------------------------------------------------------------

ALLOCATE = """
import sys
from vhostuser.memory import *
kind = {"shm": MemoryBackendShm, "memfd": MemoryBackendMemfd}[sys.argv[1]]
try:
    with kind(size=100_000 // 4096 * 4096).allocate() as memory:
        memory.view[:5] = b"hello"
        print(bytes(memory.view[:5]).decode())
except MemoryBackendError as error:
    print(error)
"""


def allocated_in(command: list[str], environment: dict[str, str] | None = None) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@linux_only
def test_without_memfd_the_error_names_the_backend_that_works_everywhere() -> None:
    said = allocated_in(command_without_linux([sys.executable, "-c", ALLOCATE, "memfd"]))
    assert said == (
        "failed to create memfd with flags 0x3: this system has none; "
        "use memory-backend-shm, which any POSIX system has\n"
    )


def test_a_python_without_memfd_gives_the_same_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with pytest.raises(MemoryBackendError, match=r"failed to create memfd: .* use memory-backend-shm"):
        MemoryBackendMemfd(size=PAGE).allocate()


@linux_only
def test_shm_needs_nothing_that_is_linux_only() -> None:
    command = [sys.executable, "-c", ALLOCATE, "shm"]
    assert allocated_in(command_without_linux(command, kill=True)) == "hello\n"


@linux_only
def test_shm_keeps_to_the_rules_of_macos(tmp_path: Path) -> None:
    """A short name, one ftruncate, before mmap: the shim refuses everything else."""
    try:
        library = build_macos_shim(tmp_path)
    except NoCompilerError as error:
        missing(str(error))
    assert allocated_in([sys.executable, "-c", ALLOCATE, "shm"], shim_environment(library)) == "hello\n"


@pytest.mark.parametrize("kind", BACKENDS)
def test_one_line_describes_the_memory(kind: type[MemoryBackend]) -> None:
    memory = kind(id="ram", size=64 << 20).allocate()
    assert memory.describe() == f"{kind.type},id=ram,size=64M,share=on (fd {memory.fd.fileno()}, 0 names)"
    memory.close()
    assert memory.describe() == f"{kind.type},id=ram,size=64M,share=on (closed)"
