"""Processes of ours, looked at from outside while they have memory of all kinds."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.memory.files import needs_memfd, reads_proc
from vhostuser.memory.proc import MemoryReport, ProcessError, inspect_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = reads_proc

MIB = 1 << 20
SIZE = 32 * MIB

HOLDER = """
import mmap, os, sys
from vhostuser.memory.backends import MemoryBackendMemfd, MemoryBackendShm
{code}
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(code: str, *arguments: str | Path) -> Iterator[int]:
    """A process that has run ``code``, and keeps what that made; its number."""
    command = [sys.executable, "-c", HOLDER.format(code=code), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid


def looked_at(code: str, *arguments: str | Path) -> MemoryReport:
    with holding(code, *arguments) as pid:
        return inspect_process(pid)


@needs_memfd
def test_a_memfd_is_seen_with_its_descriptors_and_its_seals() -> None:
    report = looked_at(f"m = MemoryBackendMemfd(id='m7', size={SIZE}).allocate()")
    (block,) = report.blocks
    assert (block.ram.id, block.kind, block.size, block.why_not) == ("m7", "memfd", SIZE, None)
    assert block.files[0].seals == ("seal", "shrink", "grow")
    assert report.shareable
    assert report.diagnosis == "guest RAM is shared: a vhost-user back-end can map it"


def test_posix_shared_memory_is_found_though_its_name_is_gone() -> None:
    report = looked_at(f"m = MemoryBackendShm(size={SIZE}).allocate()")
    (block,) = report.blocks
    assert (block.kind, block.size, block.why_not) == ("shm", SIZE, None)
    assert report.shareable


@needs_memfd
def test_a_private_mapping_of_a_memfd_is_told_from_a_shared_one() -> None:
    report = looked_at(f"m = MemoryBackendMemfd(size={SIZE}, share=False).allocate()")
    (block,) = report.blocks
    assert block.kind == "memfd"
    assert "private mapping of /memfd:mem0" in str(block.why_not)
    assert not report.shareable


def test_a_private_mapping_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(SIZE))
    report = looked_at(f"f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), {SIZE}, flags=mmap.MAP_PRIVATE)", path)
    assert not report.shareable
    assert report.diagnosis == (
        f"guest RAM cannot be shared: ram: a private mapping of {path}: what the guest writes never gets there, and a "
        "back-end that maps the file sees other bytes; have this program put its guest's memory into a memfd or POSIX "
        "shared memory, mapped shared"
    )


def test_anonymous_memory_counts_where_there_is_nothing_else() -> None:
    report = looked_at(f"m = mmap.mmap(-1, {SIZE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)")
    (block,) = report.blocks
    assert (block.kind, block.files) == ("anonymous", ())
    assert block.size >= SIZE
    assert not report.shareable
    assert "guest RAM is anonymous and private: a vhost-user back-end cannot map it" in report.diagnosis


SHARED_FILE = f"fd = os.open(sys.argv[1], os.O_RDWR); m = mmap.mmap(fd, {SIZE})"
# ctypes: mmap.mmap keeps a descriptor of its own, which is the thing to be without here.
WITHOUT_DESCRIPTOR = f"""
import ctypes
libc = ctypes.CDLL(None)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
fd = os.open(sys.argv[1], os.O_RDWR)
libc.mmap(None, {SIZE}, 3, mmap.MAP_SHARED, fd, 0)
os.close(fd)
"""


@pytest.mark.parametrize(
    ("code", "why_not"),
    [
        (SHARED_FILE, None),
        (f"fd = os.open(sys.argv[1], os.O_RDONLY); m = mmap.mmap(fd, {SIZE}, prot=mmap.PROT_READ)", "ROM"),
        (WITHOUT_DESCRIPTOR, "no descriptor of .* is open any more"),
        (WITHOUT_DESCRIPTOR + "fd = os.open(sys.argv[1], os.O_RDONLY)", "is open for reading only"),
    ],
    ids=["shared", "rom", "no-descriptor", "descriptor-for-reading"],
)
def test_a_shared_file_needs_a_descriptor_that_can_be_mapped_for_writing(
    tmp_path: Path, code: str, why_not: str | None
) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(SIZE))
    report = looked_at(code, path)
    (block,) = report.blocks
    assert (block.kind, block.mapping is not None and block.mapping.name) == ("file", str(path))
    assert report.shareable is (why_not is None)
    assert re.search(why_not or "^None$", str(block.why_not))


def test_a_process_without_large_mappings_has_no_guest() -> None:
    report = looked_at("pass")
    assert (report.blocks, report.shareable) == ((), False)
    assert report.diagnosis == "nothing in this process looks like a guest's memory"


def test_looking_changes_nothing_and_needs_a_process() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    with pytest.raises(ProcessError, match=f"there is no process {process.pid}"):
        inspect_process(process.pid)


@needs_memfd
def test_a_report_is_json_as_well() -> None:
    report = looked_at(f"m = MemoryBackendMemfd(id='m7', size={SIZE}).allocate()")
    (block,) = report.to_json()["blocks"]
    assert {name: block[name] for name in ("id", "backend", "kind", "size", "mapped", "seals", "offered")} == {
        "id": "m7",
        "backend": None,
        "kind": "memfd",
        "size": SIZE,
        "mapped": "shared",
        "seals": ["seal", "shrink", "grow"],
        "offered": True,
    }
