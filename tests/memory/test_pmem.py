"""pmem and persist: what we say is durable has reached the medium, and in the order in which we said it.

The programs run on a medium that forgets (``tests/tools/power_loss.c``): it records the ranges that msync, or libpmem,
carried over, with their bytes.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.memory.files import PAGE, mapping_at, reads_proc
from tests.tools.power_loss import Durable, Medium
from vhostuser.memory import (
    MemoryBackend,
    MemoryBackendError,
    MemoryBackendFile,
    MemoryBackendRam,
    MemoryBackendShm,
    MemoryBackendWarning,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="MAP_SYNC and preloading are Linux")

SIZE = 8 * PAGE
NO_MAP_SYNC = (
    "memory-backend-file mem0: property 'pmem=on': its file system has no MAP_SYNC, so durability comes from msync: "
    "slower, and nothing else changes"
)


def pmem(path: Path, *, share: bool = True, **properties: Any) -> MemoryBackendFile:
    return MemoryBackendFile(size=SIZE, mem_path=str(path), pmem=True, share=share, **properties)


@pytest.fixture
def medium(tmp_path: Path) -> Medium:
    folder = tmp_path / "medium"
    folder.mkdir()
    return Medium(folder)


# A record that must be complete before it is marked as valid: what every journal and every label does.
JOURNAL = """
import sys, warnings
from vhostuser.memory import MemoryBackendError, parse_object
warnings.simplefilter("ignore")
with parse_object(sys.argv[1]).allocate() as block:
    view = block.view
    print(block.mapping.synchronous)
    try:
        for number in range(3):
            view[5000 * (number + 1) : 5000 * (number + 1) + 6] = b"record"
            block.persist(5000 * (number + 1), 6)
            view[number] = 1
            block.persist(number, 1)
        view[100:110] = b"never said"
    except MemoryBackendError as error:
        print(error)
"""


def described(path: Path, *, offset: int = 0) -> str:
    return f"memory-backend-file,id=m0,size={SIZE},offset={offset},mem-path={path},share=on,pmem=on"


def pages_of(offset: int, length: int) -> tuple[int, int]:
    """The range of whole pages, as (offset, length)."""
    begin = offset // PAGE * PAGE
    return begin, -(-(offset + length) // PAGE) * PAGE - begin


@pytest.mark.parametrize("offset", [0, 2 * PAGE])
def test_nothing_is_durable_before_what_it_speaks_of(tmp_path: Path, medium: Medium, offset: int) -> None:
    """Whenever the power fails: a record that is marked as valid is complete."""
    command = [sys.executable, "-c", JOURNAL, described(tmp_path / "ram", offset=offset)]
    assert medium.run(command) == "False\n"
    ranges = [(record.how, record.offset, len(record.data)) for record in medium.records()]
    said = [pages for number in range(3) for pages in (pages_of(5000 * (number + 1), 6), pages_of(number, 1))]
    assert ranges == [("msync", offset + begin, length) for begin, length in said]
    states = medium.after_power_loss(bytes(offset + SIZE))
    for state in states:
        memory = state[offset:]
        for number in range(3):
            place = 5000 * (number + 1)
            assert memory[number] == 0 or memory[place : place + 6] == b"record"
    assert states[-1][offset : offset + 3] == b"\1\1\1"


def test_what_nobody_said_is_not_durable(tmp_path: Path, medium: Medium) -> None:
    """The recorder does forget: without this the test above would prove nothing."""
    path = tmp_path / "ram"
    medium.run([sys.executable, "-c", JOURNAL, described(path)])
    assert path.read_bytes()[100:110] == b"never said"
    assert medium.after_power_loss(bytes(SIZE))[-1][100:110] == bytes(10)


def test_on_a_dax_file_system_libpmem_flushes_exactly_the_bytes(tmp_path: Path, medium: Medium) -> None:
    command = [sys.executable, "-c", JOURNAL, described(tmp_path / "ram")]
    assert medium.run(command, pmem=True, settings={"POWER_LOSS_DAX": "1"}) == "True\n"
    first, second, *_ = medium.records()
    assert (first, second) == (Durable("pmem_persist", 5000, b"record"), Durable("pmem_persist", 0, b"\1"))


def test_on_a_dax_file_system_without_libpmem_msync_does_it(tmp_path: Path, medium: Medium) -> None:
    (medium.library.parent / "libpmem.so.1").write_bytes(b"this is no library")
    command = [sys.executable, "-c", JOURNAL, described(tmp_path / "ram")]
    settings = {"POWER_LOSS_DAX": "1", "LD_LIBRARY_PATH": str(medium.library.parent)}
    assert medium.run(command, settings=settings) == "True\n"
    assert {record.how for record in medium.records()} == {"msync"}


def test_without_map_sync_libpmem_is_not_trusted(tmp_path: Path, medium: Medium) -> None:
    """The blocks of the file might be unwritten still: only the file system can store them."""
    medium.run([sys.executable, "-c", JOURNAL, described(tmp_path / "ram")], pmem=True)
    assert {record.how for record in medium.records()} == {"msync"}


def test_bytes_that_could_not_be_stored_are_an_error(tmp_path: Path, medium: Medium) -> None:
    command = [sys.executable, "-c", JOURNAL, described(tmp_path / "ram")]
    assert medium.run(command, settings={"POWER_LOSS_ERRNO": "5"}) == (
        "False\nmemory-backend-file m0: cannot make 0x6 bytes at offset 0x1388 durable: [Errno 5] Input/output error\n"
    )


# --- what pmem=on gets ------------------------------------------------------------------------------------------------


def has_map_sync(path: Path) -> bool:
    """Whether this really is a DAX file system; then there is nothing to warn of."""
    try:
        pmem(path).allocate().close()
    except MemoryBackendWarning:
        return False
    return True


def test_a_file_system_without_map_sync_is_a_warning_that_says_what_follows(tmp_path: Path) -> None:
    if has_map_sync(tmp_path / "ram"):
        pytest.skip("this file system has MAP_SYNC")
    with pytest.warns(MemoryBackendWarning) as warned:
        block = pmem(tmp_path / "ram").allocate()
    with block:
        block.view[-1] = 1
        assert block.persist()
    assert [str(each.message) for each in warned] == [NO_MAP_SYNC]
    assert (tmp_path / "ram").read_bytes()[-1] == 1


@reads_proc
def test_aligned_memory_is_mapped_without_map_sync_as_well(tmp_path: Path) -> None:
    if has_map_sync(tmp_path / "ram"):
        pytest.skip("this file system has MAP_SYNC")
    with pytest.warns(MemoryBackendWarning, match="no MAP_SYNC"):
        block = pmem(tmp_path / "ram", align=1 << 21).allocate()
    with block:
        assert mapping_at(block.mapping.address)["permissions"] == "rw-s"
        block.view[PAGE] = 1
        assert block.persist(PAGE, 1)


def test_when_a_warning_is_an_error_nothing_is_left(tmp_path: Path) -> None:
    if has_map_sync(tmp_path):
        pytest.skip("this file system has MAP_SYNC")
    before = os.listdir("/dev/fd")
    with pytest.raises(MemoryBackendWarning):
        pmem(tmp_path / "ram").allocate()
    assert (os.listdir(tmp_path), os.listdir("/dev/fd")) == ([], before)


def test_private_persistent_memory_is_a_contradiction_that_is_pointed_out(tmp_path: Path) -> None:
    with pytest.warns(MemoryBackendWarning, match="what is written never reaches the file: set share=on"):
        block = pmem(tmp_path / "ram", share=False).allocate()
    with block:
        assert not block.persist()


def test_persistent_rom_needs_no_durability(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(SIZE))
    with pmem(path, readonly=True).allocate() as block:
        assert not block.persist()


# --- persist, for any block -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [MemoryBackendRam(size=PAGE), MemoryBackendShm(size=PAGE)])
def test_memory_that_does_not_last_has_nothing_to_make_durable(backend: MemoryBackend) -> None:
    with backend.allocate() as block:
        assert not block.persist()


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (PAGE, None), (SIZE, 0), (0, SIZE), (SIZE - 1, 1)])
def test_any_range_in_the_block_can_be_made_durable(tmp_path: Path, offset: int, length: int | None) -> None:
    with MemoryBackendFile(size=SIZE, mem_path=str(tmp_path), share=True).allocate() as block:
        assert block.persist(offset, length)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, SIZE + 1), (SIZE, 1), (0, -1), (SIZE + 1, None)])
def test_a_range_outside_is_refused(tmp_path: Path, offset: int, length: int | None) -> None:
    with (
        MemoryBackendFile(size=SIZE, mem_path=str(tmp_path), share=True).allocate() as block,
        pytest.raises(MemoryBackendError, match=f"are not in its {SIZE:#x} bytes"),
    ):
        block.persist(offset, length)


def test_nothing_is_durable_in_a_file_that_was_cut_short(tmp_path: Path) -> None:
    with MemoryBackendFile(size=SIZE, mem_path=str(tmp_path), share=True).allocate() as block:
        os.ftruncate(block.fd.fileno(), PAGE)
        with pytest.raises(MemoryBackendError) as caught:
            block.persist(0, 1)
    assert str(caught.value) == (
        f"memory-backend-file mem0: its file was cut short after it was mapped: it has {PAGE:#x} bytes and needs "
        f"{SIZE:#x}; what the guest had there is lost"
    )
