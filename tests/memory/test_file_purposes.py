"""memory-backend-file for special purposes: data to throw away, RAM that is a given file, DAX devices."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.memory.files import PAGE
from vhostuser.memory import MemoryBackendError, MemoryBackendFile, MemoryBackendWarning
from vhostuser.memory.backends import opening

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 4 * PAGE
TITLE = "memory-backend-file m0"


def backend(path: Path | str, *, size: int = SIZE, share: bool = True, **properties: Any) -> MemoryBackendFile:
    return MemoryBackendFile(id="m0", size=size, mem_path=str(path), share=share, **properties)


def refusal(path: Path | str, **properties: Any) -> str:
    """What is said when that is allocated; nothing may be left open or mapped."""
    before = os.listdir("/dev/fd")
    with pytest.raises(MemoryBackendError) as caught:
        backend(path, **properties).allocate()
    assert os.listdir("/dev/fd") == before
    return str(caught.value)


# --- discard-data -----------------------------------------------------------------------------------------------------


def test_discard_data_empties_the_memorys_part_of_the_file_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * (SIZE + 2 * PAGE))
    block = backend(path, offset=PAGE, discard_data=True).allocate()
    assert path.read_bytes() == b"x" * (SIZE + 2 * PAGE)
    block.close()
    block.close()
    assert path.read_bytes() == b"x" * PAGE + bytes(SIZE) + b"x" * PAGE


@pytest.mark.parametrize(("share", "readonly"), [(False, False), (True, True), (False, True)])
def test_discard_data_without_writing_to_the_file_has_no_effect_and_says_so(
    tmp_path: Path, share: bool, readonly: bool
) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * SIZE)
    described = backend(path, share=share, readonly=readonly, discard_data=True)
    with pytest.warns(MemoryBackendWarning, match="'discard-data=on' has no effect: the file is never written"):
        block = described.allocate()
    block.close()
    assert path.read_bytes() == b"x" * SIZE


def test_data_that_cannot_be_discarded_is_a_warning_and_the_fd_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmap, "MADV_REMOVE", 0x7FFF)  # an advice that no kernel knows
    block = backend(tmp_path / "ram", discard_data=True).allocate()
    with pytest.warns(MemoryBackendWarning, match="discard-data=on did not discard its contents: .*Invalid argument"):
        block.close()
    assert block.fd.closed


# --- RAM that is a given file (-pcram-file) ---------------------------------------------------------------------------


def test_pcram_is_a_given_file_of_exactly_the_guests_size_shared_and_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * SIZE)
    described = MemoryBackendFile.pcram(str(path), SIZE)
    assert described.to_option() == (
        f"memory-backend-file,id=pc.ram,size={SIZE >> 10}K,share=on,mem-path={path},create=off,exact-size=on,save=off"
    )
    assert (described.shareable, described.saved) == (True, False)
    with described.allocate() as block:
        block.view[:2] = b"ab"
    assert path.read_bytes() == b"ab" + b"x" * (SIZE - 2)


@pytest.mark.parametrize("there", [0, SIZE - PAGE, SIZE + 1, SIZE + PAGE])
def test_pcram_refuses_a_file_of_another_size_and_does_not_resize_it(tmp_path: Path, there: int) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * there)
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendFile.pcram(str(path), SIZE).allocate()
    assert str(caught.value) == (
        f"memory-backend-file pc.ram: with exact-size=on backing store {path} must have 'size' option {SIZE:#x} plus "
        f"'offset' option 0x0, found {there:#x}: set size to the file's size; the file is not resized"
    )
    assert path.stat().st_size == there


def test_pcram_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendFile.pcram(str(path), SIZE).allocate()
    assert str(caught.value) == (
        f"can't open backing store {path} for guest RAM: No such file or directory: "
        "create=off makes no files: make it first, with the exact size"
    )
    assert not path.exists()


# --- DAX devices: /dev/zero plays one, with what /sys says about it in a folder of ours -------------------------------


@pytest.fixture
def dax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What /sys says about /dev/zero; it can be mapped as a DAX device can."""
    status = os.stat("/dev/zero")
    folder = tmp_path / f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    (tmp_path / "bus" / "dax").mkdir(parents=True)
    folder.mkdir()
    (folder / "subsystem").symlink_to(tmp_path / "bus" / "dax")
    (folder / "size").write_text(f"{1 << 21}\n")
    (folder / "align").write_text("0x200000\n")
    monkeypatch.setattr(opening, "CHARACTER_DEVICES", tmp_path)
    return folder


@pytest.mark.usefixtures("dax")
def test_a_dax_device_is_mapped_with_its_alignment() -> None:
    with backend("/dev/zero", size=1 << 21).allocate() as block:
        assert block.mapping.address % (1 << 21) == 0
        block.view[-1] = 1
        block.check()


@pytest.mark.usefixtures("dax")
def test_more_than_a_dax_device_has_is_refused() -> None:
    assert "backing store size 0x200000 is too small for 'size' option 0x400000" in refusal("/dev/zero", size=1 << 22)


@pytest.mark.usefixtures("dax")
def test_less_alignment_than_a_dax_device_wants_is_refused() -> None:
    assert refusal("/dev/zero", size=1 << 21, align=PAGE) == (
        f"{TITLE}: property 'align' is {PAGE:#x}, the device wants 0x200000: leave it out"
    )


def test_a_dax_device_without_a_size_is_refused(dax: Path) -> None:
    (dax / "size").unlink()
    assert "cannot learn the size of DAX device" in refusal("/dev/zero", size=1 << 21)


def test_another_character_device_is_refused() -> None:
    said = refusal("/dev/zero")
    assert "is no DAX device: property 'mem-path' wants a file" in said
