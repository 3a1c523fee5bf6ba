"""The file of a saved state.

::

    0            Preamble: what this is, how long it is, the checksum of the index
    32           Index: features, rings, the blocks of memory and where their bytes are, the caller's own bytes
    ...          for each copied block a table: the CRC-32 of each of its chunks, le32
    n * 65536    the chunks of each copied block; a chunk of zeros is a hole in the file

Every byte is checked: the preamble has the index's checksum, the index has each table's, the table has each chunk's.
That finds damage, not malice.  A file that does not come from here is to be trusted no more than a program would be:
it names files to be opened as guest memory.

Nothing is changed in place.  The file is written under another name, made durable, and then renamed; whoever reads it
finds all of it or none.

A block that is a file by itself is not copied.  What is recorded is which file it is, and it is refused if another one
is found in its place.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from vhostuser.wire.schema import Structure, blob, code, counted, flags, le16, le32, le64, pad, structure, wire

MAGIC: Final = int.from_bytes(b"VhUState", "little")
VERSION: Final = 1
CHUNK_SIZE: Final = 1 << 16
"""Bytes with one checksum; a whole number of pages on every system, so that a chunk can be a hole."""
MAX_INDEX_SIZE: Final = 1 << 24


class BlockKind(IntEnum):
    """Where the bytes of a block are."""

    COPIED = 0
    FILE = 1


class SpanFlags(IntFlag):
    """What is special about a range of guest addresses."""

    ROM = 1


@structure
class Preamble(Structure):
    """The first 32 bytes, the same in all versions."""

    magic: int = wire(le64)
    version: int = wire(le32)
    index_crc: int = wire(le32)
    index_size: int = wire(le64)
    file_size: int = wire(le64)


@structure
class Span(Structure):
    """A range of guest addresses, and the part of its block that is there."""

    guest_addr: int = wire(le64)
    offset: int = wire(le64)
    size: int = wire(le64)
    flags: SpanFlags = wire(flags(le32, SpanFlags))
    _: None = pad(4)


@structure
class Block(Structure):
    """A block of guest memory.

    For a copied one, ``position`` is where its chunks begin in the file and ``table`` where its checksums do.  For a
    file, ``path``, ``device`` and ``inode`` say which, and ``file_size`` how long it was.
    """

    id: bytes = wire(blob(le16))
    option: bytes = wire(blob(le16))
    size: int = wire(le64)
    kind: BlockKind | int = wire(code(le32, BlockKind))
    spans: tuple[Span, ...] = wire(counted(le32, Span))
    table_crc: int = wire(le32, default=0)
    table: int = wire(le64, default=0)
    position: int = wire(le64, default=0)
    path: bytes = wire(blob(le16), default=b"")
    device: int = wire(le64, default=0)
    inode: int = wire(le64, default=0)
    file_size: int = wire(le64, default=0)


@structure
class Ring(Structure):
    """A ring: its size, its position (SET_VRING_BASE), and the guest addresses of its parts."""

    queue_size: int = wire(le32)
    base: int = wire(le32)
    descriptor: int = wire(le64)
    driver: int = wire(le64)
    device: int = wire(le64)


@structure
class Index(Structure):
    """All but the memory itself."""

    chunk_size: int = wire(le32)
    _: None = pad(4)
    features: int = wire(le64)
    rings: tuple[Ring, ...] = wire(counted(le32, Ring))
    blocks: tuple[Block, ...] = wire(counted(le32, Block))
    extra: bytes = wire(blob(le32))


def table_size(block: Block) -> int:
    """Bytes of the checksums of a copied block."""
    return le32.sizeof() * chunks(block.size) if block.kind == BlockKind.COPIED else 0


def chunks(size: int) -> int:
    """How many chunks ``size`` bytes are; the last may be shorter than the others."""
    return -(-size // CHUNK_SIZE)


def round_up(position: int) -> int:
    """The next place where a chunk may begin."""
    return -(-position // CHUNK_SIZE) * CHUNK_SIZE
