"""What is saved is restored: bytes, addresses, rings; and what is zero costs nothing."""

from __future__ import annotations

import mmap
import os
import stat
from typing import TYPE_CHECKING

import pytest

from frontend.guest.layout import Place
from frontend.guest.memory import FIRST_ADDR, GuestRam
from frontend.state import StateError, check, read_state, restore, save, sparse
from frontend.state.layout import CHUNK_SIZE
from tests.frontend.state.states import FILLED, RINGS, SIZE, fill, restored, saved
from tests.memory.files import needs_memfd
from vhostuser.memory.backends import MemoryBackend, MemoryBackendMemfd, MemoryBackendRam, MemoryBackendShm
from vhostuser.memory.map import GuestAddr

if TYPE_CHECKING:
    from pathlib import Path

PAGE = mmap.PAGESIZE


@pytest.fixture(params=[True, False], ids=["holes-are-asked-for", "all-is-read"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Linux's way and the way of all others; the second works everywhere."""
    monkeypatch.setattr(sparse, "CAN_ASK", request.param and sparse.CAN_ASK)
    return bool(request.param)


@pytest.mark.usefixtures("way")
def test_memory_comes_back_byte_by_byte(tmp_path: Path) -> None:
    data = saved(tmp_path / "state")
    check(read_state(tmp_path / "state"))
    assert restored(tmp_path / "state") == data


@pytest.mark.usefixtures("way")
def test_zeros_take_no_room_in_the_file(tmp_path: Path) -> None:
    saved(tmp_path / "state")
    status = (tmp_path / "state").stat()
    assert status.st_size > SIZE
    assert status.st_blocks * 512 <= (len(FILLED) + 1) * CHUNK_SIZE


def tells_where_holes_are() -> bool:
    """Whether SEEK_DATA works on shared memory here; macOS's rules forbid to seek it at all."""
    with MemoryBackendShm(size=PAGE).allocate() as block:
        try:
            os.lseek(block.fd.fileno(), 0, os.SEEK_HOLE)
        except (OSError, AttributeError):
            return False
    return True


@pytest.mark.skipif(not tells_where_holes_are(), reason="only Linux tells where shared memory has holes")
def test_memory_that_nobody_touched_stays_untouched(tmp_path: Path) -> None:
    """Reading a hole of shared memory would give it pages; so neither side of it is read or written."""
    saved(tmp_path / "state")
    state = read_state(tmp_path / "state")
    with GuestRam(*state.places()) as ram:
        restore(state, ram)
        save(tmp_path / "again", ram)
        assert os.fstat(ram.blocks[0].fd.fileno()).st_blocks * 512 <= len(FILLED) * CHUNK_SIZE


def test_rings_features_and_the_callers_bytes_come_back(tmp_path: Path) -> None:
    saved(tmp_path / "state")
    state = read_state(tmp_path / "state")
    assert (state.rings, state.features, state.extra) == (RINGS, 1 << 32, b"the caller's own")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [PAGE, CHUNK_SIZE, CHUNK_SIZE + PAGE, 3 * CHUNK_SIZE - PAGE])
@pytest.mark.parametrize("empty", [True, False])
def test_memory_of_any_size_comes_back(tmp_path: Path, size: int, empty: bool) -> None:
    with GuestRam(MemoryBackendShm(size=size)) as ram:
        data = bytes(size) if empty else os.urandom(size)
        ram.blocks[0].view[:] = data
        save(tmp_path / "state", ram)
    assert restored(tmp_path / "state") == data


@needs_memfd
def test_several_blocks_lie_where_they_lay(tmp_path: Path) -> None:
    backends: list[MemoryBackend | Place] = [
        MemoryBackendShm(id="low", size=SIZE),
        Place(MemoryBackendMemfd(id="rom", size=PAGE), GuestAddr(0xFFFF_0000), rom=True),
        Place(MemoryBackendMemfd(id="high", size=SIZE), GuestAddr(1 << 40)),
    ]
    with GuestRam(*backends) as ram:
        data = [fill(ram.blocks[0]), bytes(PAGE - 1) + b"\xea", fill(ram.blocks[2])]
        ram.blocks[1].view[:] = data[1]
        save(tmp_path / "state", ram)
        expected = [(block.guest_addr, block.size, block.rom) for block in ram.layout]
    state = read_state(tmp_path / "state")
    with GuestRam(*state.places()) as ram:
        restore(state, ram)
        assert [bytes(memory.view) for memory in ram.blocks] == data
        assert [(block.guest_addr, block.size, block.rom) for block in ram.layout] == expected
        assert ram.blocks[0].backend == backends[0]


def test_a_block_that_is_two_because_another_stands_in_the_way_is_saved_once(tmp_path: Path) -> None:
    in_the_way = Place(MemoryBackendShm(id="m1", size=SIZE), GuestAddr(FIRST_ADDR + SIZE))
    with GuestRam(MemoryBackendShm(id="m0", size=2 * SIZE), in_the_way) as ram:
        assert [block.memory.backend.id for block in ram.layout] == ["m0", "m1", "m0"]
        ram.layout[2].view[:4] = b"high"
        save(tmp_path / "state", ram)
    state = read_state(tmp_path / "state")
    with GuestRam(*state.places()) as ram:
        restore(state, ram)
        assert bytes(ram.layout[2].view[:4]) == b"high"


@pytest.mark.parametrize("share", [True, False])
def test_private_memory_is_saved_as_the_guest_sees_it(tmp_path: Path, share: bool) -> None:
    backend = MemoryBackendRam(id="m1", size=SIZE, share=share)
    with GuestRam(MemoryBackendShm(id="m0", size=PAGE), backend) as ram:
        data = fill(ram.blocks[1])
        save(tmp_path / "state", ram)
    assert restored(tmp_path / "state") == bytes(PAGE) + data


@pytest.mark.usefixtures("way")
def test_progress_ends_at_all_of_it(tmp_path: Path) -> None:
    for step in ("save", "check", "restore"):
        seen: list[tuple[int, int]] = []
        report = lambda done, total, seen=seen: seen.append((done, total))  # noqa: E731
        with GuestRam(MemoryBackendShm(id="a", size=SIZE), MemoryBackendShm(id="b", size=CHUNK_SIZE + PAGE)) as ram:
            if step == "save":
                fill(ram.blocks[0])
                save(tmp_path / "state", ram, progress=report)
            elif step == "check":
                check(read_state(tmp_path / "state"), report)
            else:
                restore(read_state(tmp_path / "state"), ram, report)
        assert seen == sorted(seen)
        assert seen[-1] == (SIZE + CHUNK_SIZE + PAGE, SIZE + CHUNK_SIZE + PAGE)


def test_a_saved_state_is_its_owners_alone(tmp_path: Path) -> None:
    """It holds everything that the guest held."""
    saved(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o600


# --- what cannot be saved or restored ---


class Interrupted(Exception):
    """Stands in for Ctrl-C, a full disk, anything."""


def test_saving_that_is_interrupted_leaves_the_old_state_and_nothing_else(tmp_path: Path) -> None:
    data = saved(tmp_path / "state")

    def interrupt(_done: int, _total: int) -> None:
        raise Interrupted

    with GuestRam(MemoryBackendShm(id="m0", size=SIZE)) as ram, pytest.raises(Interrupted):
        save(tmp_path / "state", ram, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert restored(tmp_path / "state") == data


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is always full")
def test_a_disk_that_is_full_is_named_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file is on /dev/full, as it were: a write to it fails as on a full disk."""

    def full(_fd: int, _data: bytes, _position: int) -> int:
        with open("/dev/full", "wb", buffering=0) as file:
            return file.write(b"x")

    monkeypatch.setattr(os, "pwrite", full)
    full_disk = pytest.raises(StateError, match=r"state: cannot save the state: .*No space left")
    with GuestRam(MemoryBackendShm(size=PAGE)) as ram, full_disk:
        save(tmp_path / "state", ram)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["missing/state", "folder"])
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    with GuestRam(MemoryBackendShm(size=PAGE)) as ram, pytest.raises(StateError, match=f"{where}: cannot save"):
        save(tmp_path / where, ram)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("backends", "complaint"),
    [
        ([MemoryBackendShm(id="m1", size=SIZE)], "it has memory for m0, the guest has m1"),
        ([MemoryBackendShm(id="m0", size=SIZE), MemoryBackendShm(id="m1", size=SIZE)], "the guest has m0, m1"),
        ([MemoryBackendShm(id="m0", size=2 * SIZE)], r"m0 lies elsewhere.*0x100000\+0x800000, expected 0x100000\+0x4"),
        ([Place(MemoryBackendShm(id="m0", size=SIZE), GuestAddr(0))], r"m0 lies elsewhere.*: 0x0\+0x400000"),
    ],
)
def test_memory_of_another_form_is_refused(tmp_path: Path, backends: list[MemoryBackend], complaint: str) -> None:
    saved(tmp_path / "state")
    with GuestRam(*backends) as ram, pytest.raises(StateError, match=complaint):
        restore(read_state(tmp_path / "state"), ram)
