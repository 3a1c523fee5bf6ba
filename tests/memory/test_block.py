"""What memory-backend-ram makes, and what a block can be asked as long as it lives."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.memory.files import PAGE, file_bytes, inode_of, mapped_ranges, needs_memfd, open_fds, reads_proc
from tests.tools.without_linux import command_without_linux
from vhostuser.fd import ClosedFd
from vhostuser.memory import MemoryBackendError, MemoryBackendFile, MemoryBackendMemfd, MemoryBackendRam, guard
from vhostuser.memory.address import address_of
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from pathlib import Path

WHY_PRIVATE = "memory-backend-ram ram has share=off, so it has no fd to share: set share=on"


# --- memory-backend-ram -----------------------------------------------------------------------------------------------


@reads_proc
@pytest.mark.parametrize("size", [1, PAGE, PAGE + 1])
def test_private_ram_is_anonymous(size: int) -> None:
    before = open_fds()
    with MemoryBackendRam(id="ram", size=size).allocate() as block:
        assert open_fds() == before
        block.view[-1] = 1
        assert bytes(block.view) == bytes(size - 1) + b"\1"
        assert block.describe() == f"memory-backend-ram,id=ram,size={format_size(size)},share=off (no fd)"
        block.check()


def test_private_ram_has_no_fd_and_says_what_to_change() -> None:
    with MemoryBackendRam(id="ram", size=PAGE).allocate() as block:
        assert (block.shareable, block.backend.why_not_shareable) == (False, WHY_PRIVATE)
        with pytest.raises(MemoryBackendError) as caught:
            _ = block.fd
    assert str(caught.value) == WHY_PRIVATE


@pytest.mark.parametrize("size", [1, PAGE, PAGE + 1])
def test_shared_ram_is_a_file_without_a_name(size: int) -> None:
    with MemoryBackendRam(size=size, share=True).allocate() as block:
        block.view[-1] = 1
        assert file_bytes(block.fd, 1, size - 1) == b"\1"
        assert (block.shareable, len(block.view), os.fstat(block.fd.fileno()).st_nlink) == (True, size, 0)


@reads_proc
@needs_memfd
def test_shared_ram_is_a_memfd_where_there_is_one() -> None:
    with MemoryBackendRam(id="ram", size=PAGE, share=True).allocate() as block:
        assert os.readlink(f"/proc/self/fd/{block.fd.fileno()}") == "/memfd:ram (deleted)"


SHARED_RAM = """
from vhostuser.memory import parse_object
with parse_object("memory-backend-ram,id=ram,size=4K,share=on").allocate() as block:
    block.view[:5] = b"hello"
    print(block.name[:12], bytes(block.view[:5]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the launcher is for Linux")
def test_shared_ram_is_posix_shared_memory_where_there_is_no_memfd() -> None:
    command = command_without_linux([sys.executable, "-c", SHARED_RAM])
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "/vhost-user- b'hello'\n"


def test_ram_is_saved_with_the_guest_and_gone_with_its_processes() -> None:
    described = MemoryBackendRam(size=PAGE, share=True)
    assert (described.saved, described.lasting) == (True, False)


def test_shared_ram_that_cannot_be_had_leaves_nothing() -> None:
    before = os.listdir("/dev/fd")
    with pytest.raises(MemoryBackendError, match="failed to resize"):
        MemoryBackendRam(size=1 << 63, share=True).allocate()
    assert os.listdir("/dev/fd") == before


@pytest.mark.parametrize("name", ["", "9", "a b", "-x", "ü", "a\0", "m0\n"])
def test_an_id_that_qemu_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(MemoryBackendError, match="parameter 'id' of memory-backend-ram expects a letter, then"):
        MemoryBackendRam(id=name, size=PAGE)


# --- addresses --------------------------------------------------------------------------------------------------------


def test_the_address_of_a_view_is_where_its_bytes_lie(tmp_path: Path) -> None:
    path = tmp_path / "rom"
    path.write_bytes(bytes(2 * PAGE))
    with MemoryBackendFile(size=2 * PAGE, mem_path=str(path), readonly=True).allocate() as block:
        address = block.mapping.address
        assert address % PAGE == 0
        assert address_of(block.view[100:]) == address + 100
    with pytest.raises(BufferError):
        address_of(memoryview(bytes(8))[::2])


# --- a file that is cut short under it --------------------------------------------------------------------------------


def test_a_file_that_is_cut_short_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    with MemoryBackendFile(size=4 * PAGE, offset=PAGE, mem_path=str(path), share=True).allocate() as block:
        block.check()
        os.truncate(path, 5 * PAGE - 1)
        with pytest.raises(MemoryBackendError) as caught:
            block.check()
        with pytest.raises(MemoryBackendError, match="its file was cut short"):
            block.preallocate()
        assert not block.damaged
    assert str(caught.value) == (
        f"memory-backend-file mem0: its file was cut short after it was mapped: it has {5 * PAGE - 1:#x} bytes and "
        f"needs {5 * PAGE:#x}; what the guest had there is lost"
    )


CUT_SHORT = """
import os, sys
from vhostuser.memory import MemoryBackendError, guard, parse_object
assert guard.install()
path = sys.argv[1]
block = parse_object(f"memory-backend-file,id=ram,size=64K,mem-path={path},{sys.argv[2]}").allocate()
os.truncate(path, 4096)
print(block.damaged, bytes(block.view[60000:60004]), block.damaged)
os.truncate(path, 65536)
try:
    block.check()
except MemoryBackendError as error:
    print(error)
"""


@pytest.mark.skipif(not guard.SUPPORTED, reason="no SIGBUS guard for this system")
@pytest.mark.parametrize("properties", ["share=on", "share=off", "readonly=on", "share=on,align=2M"])
def test_with_the_guard_a_hole_is_survived_and_stays_known(tmp_path: Path, properties: str) -> None:
    """Even when somebody makes the file as long again as it was: what was in it is gone."""
    path = tmp_path / "ram"
    path.write_bytes(b"x" * 65536)
    command = [sys.executable, "-c", CUT_SHORT, str(path), properties]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first, second = said.splitlines()
    assert first == f"False {bytes(4)!r} True"
    assert second.startswith("memory-backend-file ram: its file was cut short after it was mapped")


@needs_memfd
def test_a_sealed_memfd_cannot_be_cut_short() -> None:
    with MemoryBackendMemfd(size=PAGE).allocate() as block:
        assert guard.seals_forbid_shrink(block.fd)


# --- the end ----------------------------------------------------------------------------------------------------------


@reads_proc
def test_the_mapping_of_a_file_goes_with_its_last_view(tmp_path: Path) -> None:
    before = open_fds()
    block = MemoryBackendFile(size=PAGE, mem_path=str(tmp_path), share=True).allocate()
    inode = inode_of(block.fd)
    view = block.view[:8]
    block.close()
    del block
    assert mapped_ranges(inode) == [PAGE]
    del view
    assert (mapped_ranges(inode), open_fds()) == ([], before)


def test_a_closed_block_has_no_fd_any_more() -> None:
    block = MemoryBackendRam(size=PAGE, share=True).allocate()
    block.close()
    with pytest.raises(ClosedFd):
        block.check()
