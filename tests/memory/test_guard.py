"""A file cut short under its mapping.  Each test that provokes SIGBUS does so in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.memory.files import PAGE, needs_memfd, reads_proc, region, shared_file
from vhostuser.fd import Fd, Fds
from vhostuser.memory import GuestMemory, MemoryBackendMemfd, guard
from vhostuser.memory.guard import Watch, seals_forbid_shrink

only_where_supported = pytest.mark.skipif(not guard.SUPPORTED, reason="no SIGBUS guard for this system")

CUT_SHORT = """
import mmap, os, sys, tempfile, threading
from vhostuser.fd import Fd, Fds
from vhostuser.memory import GuestAddr, GuestMemory, guard
from vhostuser.wire.records import MemoryRegion

PAGES = 64
PAGE = mmap.PAGESIZE
SIZE = PAGES * PAGE
file = tempfile.TemporaryFile()
file.truncate(SIZE)
ours = mmap.mmap(file.fileno(), SIZE)
region = MemoryRegion(guest_addr=0, size=SIZE, user_addr=0, mmap_offset=0)
memory = GuestMemory.map([region], Fds.of(Fd(os.dup(file.fileno()))))
view = memory.view(GuestAddr(0), SIZE)
view[:] = b"x" * SIZE
if "guarded" in sys.argv:
    assert guard.install() and guard.install() and guard.installed()
file.truncate(PAGE)
assert not memory.damaged

if "others" in sys.argv:
    ours[PAGE]  # nobody asked for a repair of that mapping

def touch(first):
    for page in range(first, PAGES, 3):
        found = bytes(view[page * PAGE : page * PAGE + 8])
        assert found == (b"x" * 8 if page == 0 else bytes(8)), (page, found)
        view[page * PAGE] = 1

threads = [threading.Thread(target=touch, args=(first,)) for first in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert memory.damaged
assert view.tobytes()[PAGE :: PAGE] == bytes([1]) * (PAGES - 1)
del view, memory
assert not guard._watched
file.close()
print("survived")
"""


def cut_short(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", "-c", CUT_SHORT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@only_where_supported
def test_a_guarded_process_survives_and_knows_that_its_memory_is_damaged() -> None:
    done = cut_short("guarded")
    assert (done.returncode, done.stdout, done.stderr) == (0, "survived\n", "")


@only_where_supported
def test_without_the_guard_the_process_dies_and_faulthandler_says_where() -> None:
    """The control: if this one survived, the test above would show nothing."""
    done = cut_short()
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in done.stderr


@only_where_supported
def test_a_hole_in_a_mapping_that_is_not_watched_still_ends_the_process() -> None:
    done = cut_short("guarded", "others")
    assert done.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in done.stderr


def test_nobody_installed_the_guard_in_this_process() -> None:
    assert not guard.installed()


def test_where_it_is_not_possible_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SUPPORTED", False)
    assert not guard.install()


def test_a_mapping_is_watched_exactly_as_long_as_it_exists() -> None:
    before = set(guard._watched)
    memory = GuestMemory.map([region(0, 2 * PAGE)], Fds.of(shared_file(2 * PAGE)))
    (watched,) = guard._watched - before
    assert watched.end - watched.start == 2 * PAGE
    assert memory.mapped[0].watch is watched
    del memory
    assert guard._watched == before


@only_where_supported
@reads_proc
def test_a_repaired_page_is_zeros_of_our_own_and_the_rest_stays() -> None:
    with shared_file(3 * PAGE) as fd:
        memory = GuestMemory.map([region(0, 3 * PAGE)], Fds.of(fd.duplicate()))
        one = memory.mapped[0]
        one.view[:] = b"x" * 3 * PAGE
        assert isinstance(one.watch, Watch)
        assert guard.repair(one.watch.start + PAGE + 17)
        assert one.view.tobytes() == b"x" * PAGE + bytes(PAGE) + b"x" * PAGE
        assert memory.damaged


def test_an_address_outside_all_mappings_is_not_repaired() -> None:
    memory = GuestMemory.map([region(0, PAGE)], Fds.of(shared_file(PAGE)))
    watched = memory.mapped[0].watch
    assert isinstance(watched, Watch)
    assert not guard.repair(watched.end)
    assert not memory.damaged


@needs_memfd
@pytest.mark.parametrize("seal", [True, False])
def test_a_sealed_memfd_cannot_be_cut_short_and_one_can_see_that(seal: bool) -> None:
    with MemoryBackendMemfd(size=PAGE, seal=seal).allocate() as memory:
        assert seals_forbid_shrink(memory.fd) is seal


def test_posix_shared_memory_has_no_seal_against_it() -> None:
    with shared_file(PAGE) as fd:
        assert not seals_forbid_shrink(fd)


def test_a_file_of_a_kind_without_seals_has_none() -> None:
    read_end, write_end = os.pipe()
    with Fd(read_end) as fd, Fd(write_end):
        assert not seals_forbid_shrink(fd)
