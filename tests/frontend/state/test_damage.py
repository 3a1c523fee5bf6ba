"""Files that are no saved state, or no good one: every byte counts."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from frontend.state import StateError, check, read_state
from frontend.state.layout import CHUNK_SIZE, MAGIC, VERSION, BlockKind, Index, Preamble
from tests.frontend.state.states import restored, saved

if TYPE_CHECKING:
    from pathlib import Path

PREAMBLE = Preamble.wire_size()
NEVER = (1 << 64) - 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    saved(tmp_path / "state")
    return tmp_path / "state"


def parts(path: Path) -> tuple[Preamble, Index, bytes]:
    data = path.read_bytes()
    preamble = Preamble.parse(data[:PREAMBLE])
    end = PREAMBLE + preamble.index_size
    return preamble, Index.parse(data[PREAMBLE:end]), data


def test_the_file_begins_with_its_name(path: Path) -> None:
    assert path.read_bytes()[:8] == b"VhUState"


def test_the_first_bytes_are_those_that_are_documented(path: Path) -> None:
    preamble, index, data = parts(path)
    assert (preamble.magic, preamble.version, preamble.file_size) == (MAGIC, VERSION, len(data))
    assert preamble.index_crc == zlib.crc32(index.build())
    (block,) = index.blocks
    assert (block.position % CHUNK_SIZE, block.table) == (0, PREAMBLE + preamble.index_size)
    assert data[block.table : block.table + 4] == zlib.crc32(data[block.position :][:CHUNK_SIZE]).to_bytes(4, "little")


@pytest.mark.parametrize("left", [0, 1, PREAMBLE - 1])
def test_a_file_too_short_for_its_first_bytes_is_no_saved_state(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(StateError, match=rf"{path}: no saved state: it has {left} bytes$"):
        read_state(path)


@pytest.mark.parametrize("left", [PREAMBLE, PREAMBLE + 50, CHUNK_SIZE, -1])
def test_a_file_that_was_cut_short_is_told_by_its_size(path: Path, left: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:left])
    with pytest.raises(StateError, match=rf"cut short: {len(data[:left])} bytes found, {len(data)} expected"):
        read_state(path)


def test_any_other_file_is_no_saved_state(path: Path) -> None:
    path.write_bytes(b"\x7fELF" + bytes(1000))
    with pytest.raises(StateError, match="no saved state: it begins with 7f 45 4c 46 00"):
        read_state(path)


def test_another_version_is_named(path: Path) -> None:
    preamble, _, data = parts(path)
    path.write_bytes(replace(preamble, version=2).build() + data[PREAMBLE:])
    with pytest.raises(StateError, match="saved state of version 2, expected version 1"):
        read_state(path)


def test_every_byte_that_is_changed_is_found(path: Path) -> None:
    """All of what comes before the memory, and some bytes of that, in data and in holes."""
    _, index, data = parts(path)
    (block,) = index.blocks
    memory = [block.position, block.position + 5 * CHUNK_SIZE + 105, block.position + 9 * CHUNK_SIZE, len(data) - 1]
    end_of_tables = block.table + 4 * 64
    for position in [*range(end_of_tables), *memory]:
        with path.open("r+b") as file:
            file.seek(position)
            file.write(bytes([data[position] ^ 1]))
            file.flush()
            with pytest.raises(StateError):
                check(read_state(path))
            file.seek(position)
            file.write(data[position : position + 1])
    check(read_state(path))


def test_damage_is_told_by_block_and_offset(path: Path) -> None:
    _, index, data = parts(path)
    position = index.blocks[0].position + 9 * CHUNK_SIZE
    path.write_bytes(data[:position] + b"x" + data[position + 1 :])
    with pytest.raises(StateError, match=rf"damaged: block m0 at offset {9 * CHUNK_SIZE:#x}, byte {position} of"):
        restored(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"chunk_size": 4096}, "chunks of 4096 bytes"),
        ({"kind": 7}, "block m0 is of kind 7"),
        ({"size": 0}, "block m0 .*has 0 bytes"),
        ({"position": NEVER}, "block m0 ends behind the end of the file"),
        ({"table": NEVER}, "block m0 ends behind the end of the file"),
        ({"size": 1 << 62}, "block m0 ends behind the end of the file"),
    ],
)
def test_an_index_that_makes_no_sense_is_refused_though_its_checksum_is_right(
    path: Path, change: dict[str, Any], complaint: str
) -> None:
    preamble, index, data = parts(path)
    if "chunk_size" in change:
        wrong = replace(index, **change)
    else:
        wrong = replace(index, blocks=(replace(index.blocks[0], **change),))
    rewrite(path, preamble, wrong.build(), data)
    with pytest.raises(StateError, match=f"the index makes no sense: {complaint}"):
        read_state(path)


def test_an_index_that_promises_more_than_there_is_is_refused(path: Path) -> None:
    preamble, index, data = parts(path)
    rewrite(path, preamble, index.build()[:-1], data)
    with pytest.raises(StateError, match="the index makes no sense: Index"):
        read_state(path)


def test_memory_that_cannot_be_made_any_more_is_told_with_the_file(path: Path) -> None:
    preamble, index, data = parts(path)
    wrong = replace(index, blocks=(replace(index.blocks[0], option=b"memory-backend-lost,id=m0"),))
    rewrite(path, preamble, wrong.build(), data)
    with pytest.raises(StateError, match=rf"{path}: .*memory-backend-lost"):
        read_state(path).places()


def test_a_file_that_is_replaced_between_two_looks_is_noticed(path: Path) -> None:
    state = read_state(path)
    preamble, index, data = parts(path)
    rewrite(path, preamble, replace(index, features=3).build(), data)
    with pytest.raises(StateError, match="the file was replaced since it was read"):
        check(state)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=rf"{tmp_path}/none: cannot read the state: No such file"):
        read_state(tmp_path / "none")


def test_a_folder_is_no_state(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot read the state: Is a directory"):
        read_state(tmp_path)


def test_kinds_of_block_have_their_numbers_for_good() -> None:
    assert {kind.name: kind.value for kind in BlockKind} == {"COPIED": 0, "FILE": 1}


def rewrite(path: Path, preamble: Preamble, index: bytes, data: bytes) -> None:
    """The same file with another index, and a checksum that says it is right."""
    preamble = replace(preamble, index_crc=zlib.crc32(index), index_size=len(index))
    head = preamble.build() + index
    path.write_bytes(head + data[len(head) :])
