"""prealloc and reserve: pages are there at once, or there is an error instead of a SIGBUS later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.memory.files import PAGE, mapping_at, needs_memfd
from vhostuser.memory import (
    MemoryBackend,
    MemoryBackendError,
    MemoryBackendFile,
    MemoryBackendMemfd,
    MemoryBackendRam,
    MemoryBackendShm,
)
from vhostuser.memory.backends import libc, prealloc
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from vhostuser.memory import MemoryBlock

PAGEMAP = Path("/proc/self/pagemap")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
reads_pagemap = pytest.mark.skipif(not PAGEMAP.exists(), reason="reads /proc/self/pagemap")

PAGES = 16
SIZE = PAGES * PAGE
NO_KERNELS_ADVICE = 0x7FFF
REMEDY = "make room, ask for a smaller size, or set prealloc=off"


@pytest.fixture(params=["populate", "touch"])
def _populated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Linux since 5.14, and as anywhere else."""
    if request.param == "touch":
        monkeypatch.setattr(libc, "MADV_POPULATE_WRITE", NO_KERNELS_ADVICE)
        monkeypatch.setattr(libc, "MADV_POPULATE_READ", NO_KERNELS_ADVICE)


def pages_of(backend: MemoryBackend) -> int:
    """How many pages of the memory this process has."""
    with backend.allocate() as block:
        return present(block)


def present(block: MemoryBlock) -> int:
    with PAGEMAP.open("rb") as file:
        file.seek(block.mapping.address // PAGE * 8)
        entries = memoryview(file.read(SIZE // PAGE * 8)).cast("Q")
    return sum(entry >> 63 for entry in entries)


@reads_pagemap
@pytest.mark.usefixtures("_populated")
@pytest.mark.parametrize("threads", [1, 3, 100])
@pytest.mark.parametrize(
    "kind",
    [
        MemoryBackendRam,
        MemoryBackendShm,
        pytest.param(MemoryBackendMemfd, marks=needs_memfd),
    ],
)
def test_all_pages_are_there_at_once(kind: type[MemoryBackend], threads: int) -> None:
    assert pages_of(kind(size=SIZE, prealloc=True, prealloc_threads=threads)) == PAGES


@reads_pagemap
@pytest.mark.parametrize("kind", [MemoryBackendRam, MemoryBackendShm])
def test_without_prealloc_no_page_is_there(kind: type[MemoryBackend]) -> None:
    assert pages_of(kind(size=SIZE)) == 0


@reads_pagemap
@pytest.mark.usefixtures("_populated")
@pytest.mark.parametrize(
    "properties",
    [{"share": True}, {"share": False}, {"readonly": True}, {"readonly": True, "share": True}],
    ids=["shared", "private", "private ROM", "shared ROM"],
)
def test_what_a_file_holds_is_still_there_afterwards(tmp_path: Path, properties: dict[str, bool]) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * (SIZE + 2 * PAGE))
    described = MemoryBackendFile(size=SIZE, offset=PAGE, mem_path=str(path), prealloc=True, **properties)  # type: ignore[arg-type]  # they are all bool
    assert pages_of(described) == PAGES
    assert path.read_bytes() == b"x" * (SIZE + 2 * PAGE)


@reads_pagemap
def test_prealloc_can_be_asked_for_later() -> None:
    with MemoryBackendRam(size=SIZE).allocate() as block:
        block.view[0] = 7
        block.preallocate()
        assert present(block) == PAGES
        assert block.view[0] == 7


def test_a_new_files_blocks_are_reserved(tmp_path: Path) -> None:
    with MemoryBackendFile(size=SIZE, mem_path=str(tmp_path), share=True, prealloc=True).allocate() as block:
        assert os.fstat(block.fd.fileno()).st_blocks * 512 >= SIZE


# --- no room ----------------------------------------------------------------------------------------------------------


def free_in(folder: Path) -> int:
    system = os.statvfs(folder)
    if not system.f_blocks:
        pytest.skip(f"{folder} has no limit")
    return system.f_bfree * system.f_frsize


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no folder shows POSIX shared memory here")
@pytest.mark.parametrize("kind", [MemoryBackendShm])
def test_more_than_dev_shm_has_is_refused_before_it_is_filled(kind: type[MemoryBackend]) -> None:
    free = free_in(Path("/dev/shm"))
    before = sorted(os.listdir("/dev/shm")), os.listdir("/dev/fd")
    with pytest.raises(MemoryBackendError) as caught:
        kind(size=free + (1 << 30), prealloc=True).allocate()
    said = str(caught.value)
    assert said.startswith(f"{kind.type} mem0: cannot preallocate {format_size(free + (1 << 30))}: the file system")
    assert said.endswith(f" free: {REMEDY}")
    assert (sorted(os.listdir("/dev/shm")), os.listdir("/dev/fd")) == before


def test_more_than_the_disk_has_is_refused_and_the_file_is_removed(tmp_path: Path) -> None:
    size = (free_in(tmp_path) + (1 << 40)) // PAGE * PAGE
    described = MemoryBackendFile(size=size, mem_path=str(tmp_path / "ram"), share=True, prealloc=True)
    with pytest.raises(MemoryBackendError, match=r"cannot preallocate .*|failed to resize .*: \[Errno 27\]"):
        described.allocate()
    assert os.listdir(tmp_path) == []


FULL = """
import os, sys
from vhostuser.memory import MemoryBackendError, parse_object
from vhostuser.memory.backends import libc, prealloc
if "late" in sys.argv:  # as if somebody took the room after we had looked
    prealloc._check_room = lambda fd, size: None
if "touch" in sys.argv:
    libc.MADV_POPULATE_WRITE = 0x7FFF
before = os.listdir("/dev/fd")
try:
    parse_object("memory-backend-shm,id=ram,size=2M,prealloc=on").allocate()
except MemoryBackendError as error:
    print(error)
print(os.listdir("/dev/shm"), before == os.listdir("/dev/fd"))
parse_object("memory-backend-shm,id=ram,size=512K,prealloc=on").allocate().close()
"""


@linux_only
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ((), "the file system behind it has 1M free"),
        (("late",), "the file system behind it is full, or the file was cut short"),
        (("late", "touch"), "No space left on device"),
    ],
    ids=["seen before", "seen while populating", "seen while reserving"],
)
def test_a_full_dev_shm_is_an_error_and_nothing_is_left_there(how: tuple[str, ...], why: str) -> None:
    """With a /dev/shm of 1 MiB, in a mount namespace of its own."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody make a mount namespace")
    script = 'mount -t tmpfs -o size=1M tmpfs /dev/shm && exec "$@"'
    command = [unshare, "-rm", "sh", "-c", script, "sh", sys.executable, "-c", FULL, *how]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"memory-backend-shm ram: cannot preallocate 2M: {why}: {REMEDY}\n[] True\n"


def test_a_file_that_is_cut_short_while_it_is_populated_is_an_error(tmp_path: Path) -> None:
    with MemoryBackendFile(size=SIZE, mem_path=str(tmp_path), share=True).allocate() as block:
        os.ftruncate(block.fd.fileno(), PAGE)
        with pytest.raises(MemoryBackendError, match="is full, or the file was cut short: make room"):
            prealloc.preallocate(block.backing, block.mapping, 1, "title")


# --- properties that contradict each other, or the system -------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, -1])
def test_prealloc_by_nobody_is_refused(threads: int) -> None:
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendRam(size=PAGE, prealloc_threads=threads)
    assert str(caught.value) == f"property 'prealloc-threads' of memory-backend-ram doesn't take value '{threads}'"


def test_prealloc_and_no_reservation_are_incompatible() -> None:
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendRam(size=PAGE, prealloc=True, reserve=False)
    assert str(caught.value) == (
        "memory-backend-ram mem0: 'prealloc=on' and 'reserve=off' are incompatible: leave one of them out"
    )


@pytest.fixture
def overcommit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says how the kernel counts; this one can be changed."""
    path = tmp_path / "overcommit_memory"
    path.write_text("0\n")
    monkeypatch.setattr(prealloc, "OVERCOMMIT", path)
    return path


PRIVATE = MemoryBackendRam(size=PAGE, reserve=False)
REFUSED = "memory-backend-ram mem0: property 'reserve=off': skipping the reservation of swap space is not supported: "


@linux_only
@pytest.mark.usefixtures("overcommit")
def test_the_kernel_is_asked_not_to_reserve() -> None:
    with PRIVATE.allocate() as block:
        assert "nr" in mapping_at(block.mapping.address)["VmFlags"].split()
    with MemoryBackendRam(size=PAGE).allocate() as block:
        assert "nr" not in mapping_at(block.mapping.address)["VmFlags"].split()


@linux_only
def test_where_the_kernel_counts_all_the_same_that_is_refused(overcommit: Path) -> None:
    overcommit.write_text("2\n")
    with pytest.raises(MemoryBackendError) as caught:
        PRIVATE.allocate()
    assert str(caught.value) == f"{REFUSED}{overcommit} is 2; leave 'reserve' out"


@linux_only
def test_where_nobody_says_how_the_kernel_counts_that_is_refused(overcommit: Path) -> None:
    overcommit.unlink()
    with pytest.raises(MemoryBackendError) as caught:
        PRIVATE.allocate()
    assert str(caught.value) == f"{REFUSED}cannot read {overcommit} (No such file or directory); leave 'reserve' out"


def test_off_linux_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libc, "LINUX", False)
    with pytest.raises(MemoryBackendError) as caught:
        PRIVATE.allocate()
    assert str(caught.value) == f"{REFUSED}this is not Linux; leave 'reserve' out"


@linux_only
@pytest.mark.parametrize("properties", [{"share": True}, {"readonly": True}], ids=["shared with an fd", "read-only"])
def test_what_the_kernel_never_counts_need_not_be_reserved(
    tmp_path: Path, overcommit: Path, properties: dict[str, Any]
) -> None:
    overcommit.write_text("2\n")
    path = tmp_path / "ram"
    path.write_bytes(bytes(PAGE))
    MemoryBackendFile(size=PAGE, mem_path=str(path), reserve=False, **properties).allocate().close()
