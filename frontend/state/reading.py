"""Restoring: from a file into guest memory."""

from __future__ import annotations

import os
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from frontend.bringup import RingPosition
from frontend.guest.layout import Place
from frontend.state.errors import StateError
from frontend.state.layout import (
    CHUNK_SIZE,
    MAGIC,
    MAX_INDEX_SIZE,
    VERSION,
    Block,
    BlockKind,
    Index,
    Preamble,
    SpanFlags,
    chunks,
    table_size,
)
from frontend.state.sparse import Done, data_chunks
from vhostuser.fd import Fd
from vhostuser.memory.backends import MemoryBackendError, MemoryBackendFile, parse_object
from vhostuser.memory.map import GuestAddr
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.schema import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from frontend.bringup import Plan
    from frontend.guest.memory import GuestRam
    from frontend.state.sparse import Progress
    from vhostuser.memory.backends import MemoryBlock

ZEROS: Final = bytes(CHUNK_SIZE)
ZEROS_CRC: Final = zlib.crc32(ZEROS)

P = TypeVar("P", bound="Plan")


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a file of saved state says, all but the memory itself.

    Attributes:
        path: the file.
        index: what is in it.
    """

    path: Path
    index: Index

    @property
    def features(self) -> int:
        """What was acknowledged with SET_FEATURES."""
        return self.index.features

    @property
    def extra(self) -> bytes:
        """The bytes that the caller of `save` gave it."""
        return self.index.extra

    @property
    def rings(self) -> Sequence[RingPosition]:
        """The rings, for `frontend.bringup.bring_up`."""
        return [
            RingPosition(
                queue_size=ring.queue_size,
                base=ring.base,
                descriptor=ring.descriptor,
                driver=ring.driver,
                device=ring.device,
            )
            for ring in self.index.rings
        ]

    def places(self) -> list[Place]:
        """The guest's memory as it was, for `GuestRam`; nothing is allocated, and the memory is still to be restored.

        Raises:
            StateError: a block's description cannot be used any more.
        """
        try:
            return [_place(block) for block in self.index.blocks]
        except MemoryBackendError as error:
            raise StateError(f"{self.path}: {error}") from error

    def plan(self, plan: P) -> P:
        """``plan``, but with exactly the features and the queues that there were."""
        return replace(
            plan,
            wanted=0,
            required=self.features,
            virtio_features=VirtioFeature(0),
            queues=max(len(self.index.rings), 1),
        )


def read_state(path: str | os.PathLike[str]) -> SavedState:
    """What the file ``path`` says; its memory stays where it is, and unchecked.

    Raises:
        StateError: it cannot be read, is no saved state, of another version, cut short or damaged.
    """
    with _opened(Path(path)) as (_, index):
        return SavedState(Path(path), index)


def check(state: SavedState, progress: Progress | None = None) -> None:
    """Read all of the file and compare all checksums.

    Raises:
        StateError: it is damaged; says in which block, and where.
    """
    with _reopened(state) as file:
        done = Done(progress, _copied_size(state))
        for block in _copied(state):
            for number, _ in _chunks_of(state.path, file, block):
                done.reached(min((number + 1) * CHUNK_SIZE, block.size))
            done.finished(block.size)


def restore(state: SavedState, ram: GuestRam, progress: Progress | None = None) -> None:
    """Put saved memory back, before anybody else sees it.  This blocks for as long as the disk takes.

    Memory that lasts is written only after the whole file has been checked.  Other memory is of no use when this fails.

    Args:
        state: as `read_state` found it.
        ram: memory of the same blocks at the same guest addresses, as ``GuestRam(*state.places())`` is.
        progress: called with the bytes of memory done so far, and of all of it.

    Raises:
        StateError: the file is damaged, or the memory is not of the same form; a block that is a file is another file.
    """
    blocks = _matched(state, ram)
    if any(memory.backend.lasting for block, memory in blocks if block.kind == BlockKind.COPIED):
        check(state)
    try:
        with _reopened(state) as file:
            done = Done(progress, _copied_size(state))
            for block, memory in blocks:
                if block.kind == BlockKind.COPIED:
                    _load(state.path, file, block, memory, done)
    except MemoryBackendError as error:
        raise StateError(f"{state.path}: {error}") from error


# --- the file --------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Fd, Index]]:
    try:
        # A pipe without a writer would make us wait for one.
        with Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)) as file:
            yield file, _read_index(path, file)
    except OSError as error:
        raise StateError(f"{path}: cannot read the state: {error.strerror}") from error


@contextmanager
def _reopened(state: SavedState) -> Iterator[Fd]:
    with _opened(state.path) as (file, index):
        if index != state.index:
            raise StateError(f"{state.path}: the file was replaced since it was read")
        yield file


def _read_index(path: Path, file: Fd) -> Index:
    first = os.pread(file.fileno(), Preamble.wire_size(), 0)
    try:
        preamble = Preamble.parse(first)
    except FormatError:
        raise StateError(f"{path}: no saved state: it has {len(first)} bytes") from None
    if preamble.magic != MAGIC:
        raise StateError(f"{path}: no saved state: it begins with {first[:8].hex(' ')}")
    if preamble.version != VERSION:
        raise StateError(f"{path}: saved state of version {preamble.version}, expected version {VERSION}")
    found = os.fstat(file.fileno()).st_size
    if found < preamble.file_size:
        raise StateError(f"{path}: cut short: {found} bytes found, {preamble.file_size} expected")
    data = os.pread(file.fileno(), min(preamble.index_size, MAX_INDEX_SIZE), Preamble.wire_size())
    if zlib.crc32(data) != preamble.index_crc:
        raise StateError(f"{path}: damaged: the index has another checksum than when it was written")
    try:
        index = Index.parse(data)
        _check_index(index, preamble.file_size)
    except ValueError as error:  # a FormatError is one too
        raise StateError(f"{path}: the index makes no sense: {error}") from error
    return index


def _check_index(index: Index, file_size: int) -> None:
    """A right checksum says that these bytes were written, not that they were well chosen."""
    if index.chunk_size != CHUNK_SIZE:
        raise ValueError(f"chunks of {index.chunk_size} bytes, expected {CHUNK_SIZE}")
    for block in index.blocks:
        if not isinstance(block.kind, BlockKind) or not block.size:
            raise ValueError(f"block {_name(block)} is of kind {block.kind} and has {block.size} bytes")
        if block.kind == BlockKind.COPIED and (
            block.position + block.size > file_size or block.table + table_size(block) > file_size
        ):
            raise ValueError(f"block {_name(block)} ends behind the end of the file")


def _chunks_of(path: Path, file: Fd, block: Block) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each chunk, compared with their checksums."""
    table = os.pread(file.fileno(), table_size(block), block.table)
    if zlib.crc32(table) != block.table_crc:
        raise StateError(f"{path}: damaged: the checksums of block {_name(block)} are not those that were written")
    data_numbers = data_chunks(file, block.position, block.size)
    following = next(data_numbers, None)
    for number in range(chunks(block.size)):
        begin = number * CHUNK_SIZE
        data = ZEROS[: block.size - begin]
        if number == following:
            data = os.pread(file.fileno(), len(data), block.position + begin)
            following = next(data_numbers, None)
        crc = ZEROS_CRC if data is ZEROS else zlib.crc32(data)
        if crc != int.from_bytes(table[4 * number : 4 * number + 4], "little"):
            raise StateError(
                f"{path}: damaged: block {_name(block)} at offset {begin:#x}, byte {block.position + begin} of the file"
            )
        yield number, data


# --- the memory ------------------------------------------------------------------------------------------------------


def _place(block: Block) -> Place:
    backend = parse_object(os.fsdecode(block.option))
    if block.kind == BlockKind.FILE and isinstance(backend, MemoryBackendFile):
        # A file that is missing is an error: a new one would be empty.
        backend = replace(backend, mem_path=os.fsdecode(block.path), create=False)
    rom = any(span.flags & SpanFlags.ROM for span in block.spans)
    # A block of several pieces was cut where it met the hole; it will be again.
    at = GuestAddr(block.spans[0].guest_addr) if len(block.spans) == 1 else None
    return Place(backend, at, rom=rom)


def _matched(state: SavedState, ram: GuestRam) -> list[tuple[Block, MemoryBlock]]:
    """Each saved block with the memory for it."""
    found = {memory.backend.id: memory for memory in ram.blocks}
    expected = {_name(block): block for block in state.index.blocks}
    if found.keys() != expected.keys():
        raise StateError(
            f"{state.path}: it has memory for {', '.join(expected) or 'nothing'}, the guest has {', '.join(found)}"
        )
    pairs = [(block, found[name]) for name, block in expected.items()]
    for block, memory in pairs:
        _check_form(state.path, block, memory, ram)
        if block.kind == BlockKind.FILE:
            _check_identity(state.path, block, memory)
        elif memory.view.readonly:
            raise StateError(f"{state.path}: {memory.backend.title} cannot be written, so it cannot be restored")
    return pairs


def _check_form(path: Path, block: Block, memory: MemoryBlock, ram: GuestRam) -> None:
    expected = sorted((span.guest_addr, span.offset, span.size) for span in block.spans)
    found = sorted((each.guest_addr, each.offset, each.size) for each in ram.layout if each.memory is memory)
    if expected != found or block.size != memory.size:
        raise StateError(
            f"{path}: {memory.backend.title} lies elsewhere than it did: {_ranges(found)}, expected {_ranges(expected)}"
        )


def _check_identity(path: Path, block: Block, memory: MemoryBlock) -> None:
    status = os.fstat(memory.fd.fileno())
    found = {"device": status.st_dev, "inode": status.st_ino, "size": status.st_size}
    expected = {"device": block.device, "inode": block.inode, "size": block.file_size}
    if found != expected:
        raise StateError(
            f"{path}: the memory of {_name(block)} is the file {os.fsdecode(block.path)}, and this is another one: "
            f"found {found}, expected {expected}"
        )


def _load(path: Path, file: Fd, block: Block, memory: MemoryBlock, done: Done) -> None:
    memory.check()
    view = memory.view
    # Memory that was made a moment ago is zero, and stays untouched where it is to be zero.
    fresh = not isinstance(memory.backend, MemoryBackendFile)
    for number, data in _chunks_of(path, file, block):
        begin = number * CHUNK_SIZE
        if not (fresh and data == ZEROS[: len(data)]):
            view[begin : begin + len(data)] = data
        done.reached(begin + len(data))
    memory.persist()
    done.finished(block.size)


def _copied(state: SavedState) -> list[Block]:
    return [block for block in state.index.blocks if block.kind == BlockKind.COPIED]


def _copied_size(state: SavedState) -> int:
    return sum(block.size for block in _copied(state))


def _name(block: Block) -> str:
    return block.id.decode(errors="replace")


def _ranges(spans: Sequence[tuple[int, int, int]]) -> str:
    return ", ".join(f"{addr:#x}+{size:#x}" for addr, _, size in spans) or "nowhere"
