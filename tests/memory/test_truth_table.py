"""memory-backend-file: all twelve rows of readonly x rom x share, and what each makes of the file.

Every row starts with a file that holds something.  What is asked: is it refused, and with which words; how is it
mapped; what does the guest see; what does the file hold after the guest has written; can a back-end use it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from frontend.guest.memory import GuestRam, NotShareable
from tests.memory.files import PAGE, SMAPS, mapping_at, region
from vhostuser.fd import Fds
from vhostuser.memory import GuestAddr, GuestMemory, MappingError, MemoryBackend, MemoryBackendError, parse_object

if TYPE_CHECKING:
    from pathlib import Path

    from vhostuser.memory import MemoryBlock

SIZE = 2 * PAGE
BEFORE = bytes(range(256)) * (SIZE // 256)
WRITTEN = b"written by the guest"

WHY_PRIVATE = "memory-backend-file m0 has share=off: set share=on"
WHY_ROM = (
    "memory-backend-file m0 has readonly=on, so the guest sees it as ROM and its fd cannot be mapped for writing: "
    "set readonly=off"
)
WHY_TEMPLATE = (
    "memory-backend-file m0 has readonly=on, so it is private and its fd cannot be mapped for writing: "
    "set readonly=off and share=on"
)
ROM_NEEDS_READONLY = "memory-backend-file m0: property 'rom' = 'on' is not supported with 'readonly' = 'off': "
SHARED_RAM_NEEDS_WRITABLE = (
    "memory-backend-file m0: property 'rom' = 'off' is incompatible with 'readonly' = 'on' and 'share' = 'on': "
)


@dataclass(frozen=True)
class Row:
    """A row that is allowed."""

    readonly: str
    rom: str
    share: str
    permissions: str
    rom_for_the_guest: bool
    reaches_the_file: bool
    why_not_shareable: str | None

    def __str__(self) -> str:
        return f"readonly={self.readonly},rom={self.rom},share={self.share}"


ALLOWED = [
    Row("off", "off", "on", "rw-s", False, True, None),
    Row("off", "auto", "on", "rw-s", False, True, None),
    Row("off", "off", "off", "rw-p", False, False, WHY_PRIVATE),
    Row("off", "auto", "off", "rw-p", False, False, WHY_PRIVATE),
    Row("on", "on", "on", "r--s", True, False, WHY_ROM),
    Row("on", "auto", "on", "r--s", True, False, WHY_ROM),
    Row("on", "on", "off", "r--p", True, False, WHY_ROM + " and share=on"),
    Row("on", "auto", "off", "r--p", True, False, WHY_ROM + " and share=on"),
    Row("on", "off", "off", "rw-p", False, False, WHY_TEMPLATE),
]
REFUSED = {
    "readonly=off,rom=on,share=on": ROM_NEEDS_READONLY + "set readonly=on",
    "readonly=off,rom=on,share=off": ROM_NEEDS_READONLY + "set readonly=on",
    "readonly=on,rom=off,share=on": SHARED_RAM_NEEDS_WRITABLE
    + "set share=off for private RAM, rom=on for ROM, or readonly=off for shared RAM",
}


def test_the_table_has_all_twelve_rows() -> None:
    rows = {str(row) for row in ALLOWED} | set(REFUSED)
    assert len(rows) == 2 * 3 * 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that holds something; nobody may resize it."""
    path = tmp_path / "ram"
    path.write_bytes(BEFORE)
    return path


def described(file: Path, row: object) -> MemoryBackend:
    return parse_object(f"memory-backend-file,id=m0,size={SIZE},mem-path={file},{row}")


@pytest.mark.parametrize("row", ALLOWED, ids=str)
def test_an_allowed_row(row: Row, file: Path) -> None:
    backend = described(file, row)
    with backend.allocate() as block:
        assert bytes(block.view) == BEFORE
        assert block.view.readonly is row.rom_for_the_guest
        if SMAPS.exists():
            assert mapping_at(block.mapping.address)["permissions"] == row.permissions
        writes_as_the_guest(block, rom=row.rom_for_the_guest)
    assert file.read_bytes() == (WRITTEN + BEFORE[len(WRITTEN) :] if row.reaches_the_file else BEFORE)
    assert backend.why_not_shareable == row.why_not_shareable
    assert backend.lasting is row.reaches_the_file


def writes_as_the_guest(block: MemoryBlock, *, rom: bool) -> None:
    """RAM takes it.  ROM refuses Python's store, and the kernel's own: there is no PROT_WRITE."""
    if not rom:
        block.view[: len(WRITTEN)] = WRITTEN
        return
    with pytest.raises(TypeError, match="read-only"):
        block.view[0] = 1
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, WRITTEN)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.read(read_end, ctypes.c_void_p(block.mapping.address), ctypes.c_size_t(len(WRITTEN))) == -1
        assert ctypes.get_errno() == errno.EFAULT
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize("row", REFUSED)
def test_a_refused_row_names_the_properties_and_the_way_out(row: str, file: Path) -> None:
    with pytest.raises(MemoryBackendError) as caught:
        described(file, row).allocate()
    assert str(caught.value) == REFUSED[row]
    assert file.read_bytes() == BEFORE


@pytest.mark.parametrize("row", ALLOWED, ids=str)
def test_a_guest_offers_a_back_end_exactly_the_usable_rows(row: Row, file: Path) -> None:
    backend = described(file, row)
    if row.why_not_shareable is None:
        with GuestRam(backend) as ram, ram.duplicate_fds() as fds:
            assert [os.fstat(fd.fileno()).st_ino for fd in fds] == [file.stat().st_ino]
            return
    with pytest.raises(NotShareable) as caught:
        GuestRam(backend)
    assert row.why_not_shareable in str(caught.value)


@pytest.mark.parametrize("row", ALLOWED, ids=str)
def test_what_a_back_end_would_see_if_it_were_sent_the_fd_all_the_same(row: Row, file: Path) -> None:
    """The reason for the refusals: it cannot map the fd, or maps it and sees other memory than the guest."""
    with described(file, row).allocate() as block:
        fds = Fds.of(block.fd.duplicate())
        if row.readonly == "on":
            with pytest.raises(MappingError, match="Permission denied"):
                GuestMemory.map([region(0, SIZE)], fds)
            return
        theirs = GuestMemory.map([region(0, SIZE)], fds).view(GuestAddr(0), SIZE)
        block.view[:6] = b"canary"
        assert (bytes(theirs[:6]) == b"canary") is row.reaches_the_file
        theirs[PAGE : PAGE + 6] = b"answer"
        block.view[PAGE + 100] = 1
        theirs[PAGE + 200 : PAGE + 206] = b"answer"
        assert (bytes(block.view[PAGE + 200 : PAGE + 206]) == b"answer") is row.reaches_the_file
