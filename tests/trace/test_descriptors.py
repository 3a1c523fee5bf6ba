"""Which file a descriptor means."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from dataclasses import replace

import pytest

from vhostuser.memory.backends import MemoryBackendMemfd, MemoryBackendShm
from vhostuser.trace import descriptors
from vhostuser.trace.descriptors import describe, of_process

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells in /proc")


def test_pipes_sockets_and_files_are_told_apart_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "PROC", "/no such folder")
    ours, theirs = socket.socketpair()
    read_end, write_end = os.pipe()
    with ours, theirs, tempfile.TemporaryFile() as file:
        kinds = [describe(fd).kind for fd in (ours.fileno(), read_end, file.fileno())]
    os.close(read_end)
    os.close(write_end)
    assert kinds == ["socket", "pipe", "file"]
    assert of_process(os.getpid()) is None


@LINUX
def test_linux_tells_shared_memory_by_how_it_was_made() -> None:
    with MemoryBackendShm(size=1 << 20).allocate() as shm, MemoryBackendMemfd(size=1 << 20).allocate() as memfd:
        assert (describe(shm.fd.fileno()).kind, describe(shm.fd.fileno()).links) == ("shm", 0)
        assert describe(memfd.fd.fileno()).kind == "memfd"


@LINUX
def test_linux_tells_an_eventfd_and_all_eventfds_are_one_inode_so_none_is_compared() -> None:
    one, other = os.eventfd(0), os.eventfd(0)
    found = [describe(fd) for fd in (one, other)]
    os.close(one)
    os.close(other)
    assert [str(each) for each in found] == [f"{one} (eventfd)", f"{other} (eventfd)"]
    assert not found[0].same_file(found[1])


def test_a_duplicate_is_the_same_file_and_another_pipe_is_not() -> None:
    ends = [*os.pipe(), *os.pipe()]
    ends.append(os.dup(ends[0]))
    first, _, second, _, duplicate = map(describe, ends)
    for fd in ends:
        os.close(fd)
    assert first.same_file(duplicate)
    assert first.identity == duplicate.identity
    assert not first.same_file(second)


def test_without_an_inode_nothing_is_the_same_file() -> None:
    with tempfile.TemporaryFile() as file:
        unknown = replace(describe(file.fileno()), inode=0)
    assert not unknown.same_file(unknown)


@LINUX
def test_all_descriptors_of_a_process_are_found_by_number() -> None:
    with tempfile.TemporaryFile() as file:
        found = of_process(os.getpid())
        assert found is not None
        numbers = [each.number for each in found]
        assert file.fileno() in numbers
        assert numbers == sorted(numbers)


def test_a_descriptor_that_is_not_open_is_an_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    with pytest.raises(OSError, match="Bad file descriptor"):
        describe(read_end)
