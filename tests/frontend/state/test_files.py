"""Guest memory that is a file by itself: which file it was is recorded, and has to be true again."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from frontend.guest.memory import GuestRam
from frontend.state import StateError, read_state, restore, save
from frontend.state.layout import CHUNK_SIZE, BlockKind
from tests.frontend.state.states import SIZE, fill, restored
from vhostuser.memory.backends import MemoryBackend, MemoryBackendError, MemoryBackendFile, MemoryBackendShm

if TYPE_CHECKING:
    from pathlib import Path

PAGE = mmap.PAGESIZE


@pytest.fixture
def ram_file(tmp_path: Path) -> Path:
    path = tmp_path / "ram"
    path.touch()
    os.truncate(path, SIZE)
    return path


def kinds(path: Path) -> list[BlockKind | int]:
    return [block.kind for block in read_state(path).index.blocks]


def saved_with(path: Path, backend: MemoryBackend, *, copy_files: bool = False) -> bytes:
    """Save a guest with a page of shared memory and one more block; what the block held."""
    with GuestRam(MemoryBackendShm(id="m0", size=PAGE), backend) as ram:
        data = bytes(ram.blocks[1].view) if ram.blocks[1].view.readonly else fill(ram.blocks[1])
        save(path, ram, copy_files=copy_files)
    return data


def shared(path: Path) -> MemoryBackendFile:
    return MemoryBackendFile(id="m1", size=SIZE, mem_path=str(path), share=True)


@pytest.mark.parametrize("pcram", [True, False])
def test_memory_that_is_a_file_is_left_where_it_is(tmp_path: Path, ram_file: Path, pcram: bool) -> None:
    backend = MemoryBackendFile.pcram(str(ram_file), SIZE) if pcram else shared(ram_file)
    data = saved_with(tmp_path / "state", backend)
    assert kinds(tmp_path / "state") == [BlockKind.COPIED, BlockKind.FILE]
    assert (tmp_path / "state").stat().st_blocks * 512 <= 2 * CHUNK_SIZE
    assert restored(tmp_path / "state") == bytes(PAGE) + data == bytes(PAGE) + ram_file.read_bytes()


def test_a_shared_file_is_copied_on_demand_and_written_back(tmp_path: Path, ram_file: Path) -> None:
    """Chunks that were zero as well: the file holds something else by now."""
    data = saved_with(tmp_path / "state", shared(ram_file), copy_files=True)
    assert kinds(tmp_path / "state") == [BlockKind.COPIED, BlockKind.COPIED]
    ram_file.write_bytes(b"x" * SIZE)
    assert restored(tmp_path / "state") == bytes(PAGE) + data
    assert ram_file.read_bytes() == data


def test_memory_that_is_not_to_be_saved_never_is(tmp_path: Path, ram_file: Path) -> None:
    saved_with(tmp_path / "state", MemoryBackendFile.pcram(str(ram_file), SIZE), copy_files=True)
    assert kinds(tmp_path / "state") == [BlockKind.COPIED, BlockKind.FILE]


def test_a_file_without_a_name_is_copied(tmp_path: Path) -> None:
    """With a folder as mem-path nobody could find the file again."""
    data = saved_with(tmp_path / "state", shared(tmp_path))
    assert kinds(tmp_path / "state") == [BlockKind.COPIED, BlockKind.COPIED]
    assert restored(tmp_path / "state") == bytes(PAGE) + data


def test_a_private_mapping_of_a_file_is_copied_as_the_guest_sees_it(tmp_path: Path, ram_file: Path) -> None:
    template = MemoryBackendFile(id="m1", size=SIZE, mem_path=str(ram_file), share=False)
    data = saved_with(tmp_path / "state", template)
    assert restored(tmp_path / "state") == bytes(PAGE) + data
    assert ram_file.read_bytes() == bytes(SIZE)


def test_rom_in_a_file_is_left_there(tmp_path: Path, ram_file: Path) -> None:
    ram_file.write_bytes(b"r" * SIZE)
    saved_with(tmp_path / "state", MemoryBackendFile(id="m1", size=SIZE, mem_path=str(ram_file), readonly=True))
    assert kinds(tmp_path / "state") == [BlockKind.COPIED, BlockKind.FILE]
    assert restored(tmp_path / "state") == bytes(PAGE) + b"r" * SIZE


def test_rom_that_was_copied_cannot_be_written_back(tmp_path: Path, ram_file: Path) -> None:
    rom = MemoryBackendFile(id="m1", size=SIZE, mem_path=str(ram_file), readonly=True)
    saved_with(tmp_path / "state", rom, copy_files=True)
    with pytest.raises(StateError, match="m1 cannot be written, so it cannot be restored"):
        restored(tmp_path / "state")


def test_a_file_that_is_named_relatively_is_found_from_another_folder(
    tmp_path: Path, ram_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as inside:
        inside.chdir(tmp_path)
        data = saved_with(tmp_path / "state", MemoryBackendFile(id="m1", size=SIZE, mem_path="ram", share=True))
    assert restored(tmp_path / "state") == bytes(PAGE) + data


# --- another file in its place ---


def test_another_file_of_the_same_name_is_refused(tmp_path: Path, ram_file: Path) -> None:
    saved_with(tmp_path / "state", shared(ram_file))
    ram_file.rename(tmp_path / "the real one")
    ram_file.write_bytes(bytes(SIZE))
    with pytest.raises(StateError, match=rf"the memory of m1 is the file {ram_file}, and this is another one: .*inode"):
        restored(tmp_path / "state")


def test_a_file_of_another_size_is_refused(tmp_path: Path, ram_file: Path) -> None:
    saved_with(tmp_path / "state", shared(ram_file))
    os.truncate(ram_file, 2 * SIZE)
    with pytest.raises(StateError, match=rf"'size': {2 * SIZE}.* expected .*'size': {SIZE}"):
        restored(tmp_path / "state")


def test_a_file_that_is_missing_is_an_error_and_is_not_made(tmp_path: Path, ram_file: Path) -> None:
    saved_with(tmp_path / "state", shared(ram_file))
    ram_file.unlink()
    with pytest.raises(MemoryBackendError, match=str(ram_file)):
        restored(tmp_path / "state")
    assert not ram_file.exists()


def test_memory_that_is_not_to_be_saved_and_has_lost_its_file_cannot_be(tmp_path: Path, ram_file: Path) -> None:
    with GuestRam(MemoryBackendFile.pcram(str(ram_file), SIZE)) as ram:
        ram_file.unlink()
        with pytest.raises(StateError, match=rf"pc.ram has save=off, and its file is not at {ram_file} any more"):
            save(tmp_path / "state", ram)
    assert not (tmp_path / "state").exists()


def test_a_file_is_cut_short_while_it_is_guest_memory(tmp_path: Path, ram_file: Path) -> None:
    with GuestRam(shared(ram_file)) as ram:
        os.truncate(ram_file, PAGE)
        with pytest.raises(StateError, match=r"cannot save the state: .*cut short"):
            save(tmp_path / "state", ram, copy_files=True)
    assert not (tmp_path / "state").exists()


def test_a_damaged_state_does_not_touch_memory_that_lasts(tmp_path: Path, ram_file: Path) -> None:
    saved_with(tmp_path / "state", shared(ram_file), copy_files=True)
    size = (tmp_path / "state").stat().st_size
    with (tmp_path / "state").open("r+b") as file:
        file.seek(size - 1)
        file.write(b"!")
    ram_file.write_bytes(b"x" * SIZE)
    state = read_state(tmp_path / "state")
    with GuestRam(*state.places()) as ram, pytest.raises(StateError, match="damaged: block m1"):
        restore(state, ram)
    assert ram_file.read_bytes() == b"x" * SIZE
