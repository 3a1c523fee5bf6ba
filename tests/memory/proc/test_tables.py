"""/proc as text: a made-up process in a folder, for what no process of ours can be brought to show."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from tests.memory.files import needs_memfd, reads_proc
from vhostuser.memory.backends import MemoryBackendMemfd
from vhostuser.memory.proc.tables import ProcessError, read_arguments, read_files, read_mappings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = reads_proc

MAPS = """\
555555550000-555555560000 r-xp 00000000 fe:00 77 /usr/bin/qemu-system-x86_64
7f0000000000-7f0000400000 rw-p 00000000 00:00 0 [heap]
7f1000000000-7f1000400000 rw-s 00000000 fe:00 10 /ram\\012with a line
7f1000400000-7f1000800000 rw-s 00400000 fe:00 10 /ram\\012with a line
7f1000800000-7f1000a00000 rw-s 00000000 fe:00 10 /ram\\012with a line
7f2000000000-7f2000400000 rw-p 00000000 00:00 0
7f2000400000-7f2000800000 rw-p 00000000 00:00 0
7f3000000000-7f3000001000 rw-s 00000000 00:0e 12 anon_inode:kvm-vcpu:0
7f3000001000-7f3000002000 rw-s 00000000 00:05 13 /dev/dri/card0
7f3000002000-7f3000003000 r--s 00000000 00:1b 14 /dev/shm/ram (deleted)
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    process = tmp_path / "42"
    (process / "fd").mkdir(parents=True)
    (process / "fdinfo").mkdir()
    (process / "mountinfo").write_text("31 1 0:29 / /dev/hugepages rw - hugetlbfs hugetlbfs rw,pagesize=2M\n")
    (process / "maps").write_text(MAPS)
    (tmp_path / "self").symlink_to("42")
    return tmp_path


def add_fd(proc: Path, number: int, target: Path, info: str) -> None:
    (proc / "42" / "fd" / str(number)).symlink_to(target)
    (proc / "42" / "fdinfo" / str(number)).write_text(info)


def test_a_mapping_that_advice_has_cut_is_one_again(proc: Path) -> None:
    pieces = [one for one in read_mappings(42, proc) if one.inode == 10]
    assert [(one.start, one.size, one.offset) for one in pieces] == [
        (0x7F1000000000, 8 << 20, 0),
        (0x7F1000800000, 2 << 20, 0),
    ]


def test_anonymous_neighbours_stay_two(proc: Path) -> None:
    assert [one.size for one in read_mappings(42, proc) if one.anonymous] == [4 << 20, 4 << 20]


def test_only_files_that_can_hold_memory_count_as_such(proc: Path) -> None:
    named = {one.name for one in read_mappings(42, proc) if one.of_memory_file}
    assert named == {"/usr/bin/qemu-system-x86_64", "/ram\nwith a line", "/dev/shm/ram"}


def test_permissions_are_told_apart(proc: Path) -> None:
    code, heap, *_, rom = read_mappings(42, proc)
    assert (code.readable, code.writable, code.executable, code.shared) == (True, False, True, False)
    assert (heap.anonymous, heap.writable, heap.executable) == (False, True, False)
    assert (rom.shared, rom.writable) == (True, False)


@pytest.mark.parametrize(("flags", "writable"), [("0100002", True), ("0100000", False), ("0100001", False)])
def test_a_descriptor_must_be_open_for_reading_and_writing(
    proc: Path, tmp_path: Path, flags: str, writable: bool
) -> None:
    (tmp_path / "ram").write_bytes(b"12345")
    add_fd(proc, 3, tmp_path / "ram", f"pos:\t0\nflags:\t{flags}\nmnt_id:\t30\nino:\t10\n")
    (found,) = read_files(42, proc)
    assert (found.fd, found.path, found.size) == (3, str(tmp_path / "ram"), 5)
    assert (found.writable, found.page_size, found.seals) == (writable, mmap.PAGESIZE, None)


def test_a_file_on_hugetlbfs_has_the_pages_of_its_file_system(proc: Path, tmp_path: Path) -> None:
    """Stood in for by an ordinary file: what counts is the mount, and then the size of a block."""
    (tmp_path / "ram").touch()
    add_fd(proc, 3, tmp_path / "ram", "flags:\t02\nmnt_id:\t31\n")
    (found,) = read_files(42, proc)
    assert found.page_size == (tmp_path / "ram").stat().st_blksize


def test_what_is_no_regular_file_is_left_out(proc: Path, tmp_path: Path) -> None:
    add_fd(proc, 3, tmp_path, "flags:\t02\n")
    add_fd(proc, 4, tmp_path / "gone by now", "flags:\t02\n")
    assert read_files(42, proc) == []


@needs_memfd
def test_seals_are_read_off_a_descriptor_of_our_own() -> None:
    with MemoryBackendMemfd(size=mmap.PAGESIZE).allocate() as memory:
        found = {file.fd: file for file in read_files(os.getpid())}[memory.fd.fileno()]
    assert found.seals == ("seal", "shrink", "grow")
    assert (found.size, found.writable, found.page_size) == (mmap.PAGESIZE, True, mmap.PAGESIZE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_seals_that_we_may_not_see_are_unknown(proc: Path, tmp_path: Path) -> None:
    (tmp_path / "ram").touch(mode=0)
    add_fd(proc, 3, tmp_path / "ram", "flags:\t02\n")
    (found,) = read_files(42, proc)
    assert found.seals is None


def test_a_process_that_is_not_there_is_named(proc: Path) -> None:
    with pytest.raises(ProcessError, match=r"^there is no process 43$"):
        read_mappings(43, proc)


def test_a_process_that_has_ended_has_no_memory(proc: Path) -> None:
    (proc / "42" / "maps").write_text("")
    with pytest.raises(ProcessError, match=r"^process 42 has no memory: it has ended"):
        read_mappings(42, proc)


def test_a_system_without_proc_is_told_from_a_missing_process(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"this system has no /proc as Linux has it.*--object"):
        read_arguments(42, tmp_path)


def test_a_process_of_somebody_else_is_told_from_a_missing_one(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, who often runs the tests, is refused nothing; so the refusal is made up."""

    def refuse(*_: object) -> list[str]:
        raise PermissionError

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(ProcessError, match=r"process 42 belongs to somebody else.*as root"):
        read_files(42, proc)


def test_the_command_line_is_words(proc: Path) -> None:
    (proc / "42" / "cmdline").write_bytes(b"qemu-system-x86_64\0-m\0001G\0-append\0a b\0\0")
    assert read_arguments(42, proc) == ["qemu-system-x86_64", "-m", "1G", "-append", "a b", ""]
