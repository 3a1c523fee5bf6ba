"""Saving: from guest memory into a file."""

from __future__ import annotations

import os
import tempfile
import zlib
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frontend.state.errors import StateError
from frontend.state.layout import (
    CHUNK_SIZE,
    MAGIC,
    VERSION,
    Block,
    BlockKind,
    Index,
    Preamble,
    Ring,
    Span,
    SpanFlags,
    chunks,
    round_up,
    table_size,
)
from frontend.state.sparse import Done, data_chunks
from vhostuser.fd import Fd
from vhostuser.memory.backends import MemoryBackendError, MemoryBackendFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from frontend.bringup import RingPosition
    from frontend.guest.memory import GuestRam
    from frontend.state.sparse import Progress
    from vhostuser.memory.backends import MemoryBackend, MemoryBlock

ZEROS: Final = bytes(CHUNK_SIZE)


def save(
    path: str | os.PathLike[str],
    ram: GuestRam,
    *,
    rings: Sequence[RingPosition] = (),
    features: int = 0,
    extra: bytes = b"",
    copy_files: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write guest memory and ring positions to the file ``path``, or leave what is there as it was.

    Nobody may write to the memory meanwhile: stop the rings first, with `frontend.bringup.suspend`.  This blocks for as
    long as the disk takes.

    Args:
        path: made new, or replaced at the end; only its owner may read it.
        ram: what is saved.
        rings: where the rings stand and lie.
        features: what was acknowledged with SET_FEATURES.
        extra: the caller's own bytes.
        copy_files: copy also blocks that are files (``share=on`` or ROM), which else are only recorded by identity.
            Blocks with ``save=off`` never are copied.
        progress: called with the bytes of memory done so far, and of all that is to be copied.

    Raises:
        StateError: the memory or the disk cannot be used; nothing new is left behind.
    """
    target = Path(path)
    try:
        index = _placed(_index(ram, rings, features, extra, copy_files=copy_files))
        with _replacement(target) as file:
            _write(file, index, ram, progress)
    except (OSError, MemoryBackendError) as error:
        raise StateError(f"{target}: cannot save the state: {error}") from error


# --- what is to be saved ---------------------------------------------------------------------------------------------


def _index(ram: GuestRam, rings: Sequence[RingPosition], features: int, extra: bytes, *, copy_files: bool) -> Index:
    """Everything but positions in the file and checksums."""
    return Index(
        chunk_size=CHUNK_SIZE,
        features=features,
        rings=tuple(Ring(ring.queue_size, ring.base, ring.descriptor, ring.driver, ring.device) for ring in rings),
        blocks=tuple(_block(ram, memory, copy_files=copy_files) for memory in ram.blocks),
        extra=extra,
    )


def _block(ram: GuestRam, memory: MemoryBlock, *, copy_files: bool) -> Block:
    backend = memory.backend
    found = Block(
        id=backend.id.encode(),
        option=os.fsencode(_absolute(backend).to_option()),
        size=backend.size,
        kind=BlockKind.COPIED,
        spans=tuple(
            Span(each.guest_addr, each.offset, each.size, SpanFlags.ROM if each.rom else SpanFlags(0))
            for each in ram.layout
            if each.memory is memory
        ),
    )
    is_file = not backend.saved or ((backend.lasting or memory.view.readonly) and not copy_files)
    return _as_file(found, memory) if is_file else found


def _absolute(backend: MemoryBackend) -> MemoryBackend:
    """The same for a process that runs in another folder."""
    if isinstance(backend, MemoryBackendFile):
        return replace(backend, mem_path=os.path.abspath(backend.mem_path))
    return backend


def _as_file(block: Block, memory: MemoryBlock) -> Block:
    """The block as a file that can be found again; a copied one if there is none and copying is allowed."""
    status = os.fstat(memory.fd.fileno())
    path = os.path.abspath(memory.backend.mem_path) if isinstance(memory.backend, MemoryBackendFile) else ""
    if not os.path.exists(path) or not os.path.samestat(os.stat(path), status):
        if memory.backend.saved:
            return block
        raise StateError(f"{memory.backend.title} has save=off, and its file is not at {path} any more")
    # The memory has to be on its disk before there is a state that counts on it.
    memory.persist()
    return replace(
        block,
        kind=BlockKind.FILE,
        path=os.fsencode(path),
        device=status.st_dev,
        inode=status.st_ino,
        file_size=status.st_size,
    )


def _placed(index: Index) -> Index:
    """The same, with a place in the file for each table and each block; places do not change the index's size."""
    position = Preamble.wire_size() + len(index.build())
    tables = []
    for block in index.blocks:
        tables.append(position)
        position += table_size(block)
    blocks = []
    for block, table in zip(index.blocks, tables, strict=True):
        position = round_up(position)
        copied = block.kind == BlockKind.COPIED
        blocks.append(replace(block, table=table, position=position) if copied else block)
        position += block.size if copied else 0
    return replace(index, blocks=tuple(blocks))


# --- and how ---------------------------------------------------------------------------------------------------------


@contextmanager
def _replacement(target: Path) -> Iterator[Fd]:
    """A new file that takes the place of ``target`` when the block of code ends well, and is gone when it does not."""
    if target.exists() and not target.is_file():
        raise StateError(f"{target}: cannot save the state: there is something that is no file")
    number, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with Fd(number) as file:
            yield file
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    # The new name is in the folder, and the folder is another file.
    with Fd(os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
        os.fsync(folder.fileno())


def _write(file: Fd, index: Index, ram: GuestRam, progress: Progress | None) -> None:
    size = max((block.position + block.size for block in index.blocks), default=0)
    size = max(size, Preamble.wire_size() + len(index.build()))
    os.ftruncate(file.fileno(), size)
    done = Done(progress, sum(block.size for block in index.blocks if block.kind == BlockKind.COPIED))
    written = []
    for block, memory in zip(index.blocks, ram.blocks, strict=True):
        if block.kind == BlockKind.COPIED:
            table = _copy(file, block, memory, done)
            _put(file, table, block.table)
            written.append(replace(block, table_crc=zlib.crc32(table)))
        else:
            written.append(block)
    data = replace(index, blocks=tuple(written)).build()
    _put(file, data, Preamble.wire_size())
    _put(file, Preamble(MAGIC, VERSION, zlib.crc32(data), len(data), size).build(), 0)


def _copy(file: Fd, block: Block, memory: MemoryBlock, done: Done) -> bytes:
    """Write a block's chunks, without those that are zero; the table of all their checksums."""
    memory.check()
    table = [zlib.crc32(ZEROS)] * chunks(block.size)
    table[-1] = zlib.crc32(ZEROS[: block.size - (len(table) - 1) * CHUNK_SIZE])
    view = memory.view
    # Of a private mapping the file does not know what was written to it.
    fd = memory.backing.fd if memory.backend.share else None
    for number in data_chunks(fd, memory.mmap_offset, block.size):
        begin = number * CHUNK_SIZE
        # One copy that stays as it is: what is compared, counted and written are the same bytes.
        data = bytes(view[begin : begin + CHUNK_SIZE])
        if data != ZEROS[: len(data)]:
            table[number] = zlib.crc32(data)
            _put(file, data, block.position + begin)
        done.reached(begin + len(data))
    memory.check()
    done.finished(block.size)
    return b"".join(crc.to_bytes(4, "little") for crc in table)


def _put(file: Fd, data: bytes, position: int) -> None:
    """Write all of ``data``; a system call may write less, a full disk for one."""
    while data:
        written = os.pwrite(file.fileno(), data, position)
        data, position = data[written:], position + written
