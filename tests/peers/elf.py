"""Giving a program another dynamic loader.

Most programs run well as ``loader --library-path ... program``.  User-mode Linux does not: its memory begins where its
own bss ends, and when the loader is what the kernel started, that place is behind the loader instead.  Such a program
must be started itself, and then the kernel takes the loader its file names: PT_INTERP, a path of 27 bytes, of which we
can neither lengthen nor spare one.  But that entry is only a place in the file.  We append the longer path at the end
and let the entry point there; nothing else moves.
"""

import struct
from pathlib import Path

PT_INTERP = 3
# ELF-64, little-endian: where e_phoff and e_phentsize, e_phnum stand in the file header.
FILE_HEADER = struct.Struct("<32xQ14xHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")  # type, flags, offset, vaddr, paddr, filesz, memsz, align


def set_interpreter(program: Path, loader: Path) -> None:
    """Make the kernel start ``program``, a dynamically linked 64-bit ELF file, with ``loader``.

    Raises:
        ValueError: the file is not such a program.
    """
    content = bytearray(program.read_bytes())
    if content[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"found {bytes(content[:6])!r} at the start of {program}, expected a 64-bit ELF file")
    table, size, count = FILE_HEADER.unpack_from(content)
    for place in range(table, table + size * count, size):
        kind, flags, _, vaddr, paddr, _, memsz, align = PROGRAM_HEADER.unpack_from(content, place)
        if kind == PT_INTERP:
            path = bytes(loader) + b"\0"
            header = (kind, flags, len(content), vaddr, paddr, len(path), memsz, align)
            PROGRAM_HEADER.pack_into(content, place, *header)
            program.write_bytes(content + path)
            return
    raise ValueError(f"found no PT_INTERP in {program}, expected a dynamically linked program")
