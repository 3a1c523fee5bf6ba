"""Which mapping is taken for which memory, when several would do or none does."""

from __future__ import annotations

from vhostuser.memory.proc.blocks import Matcher, RamBlock
from vhostuser.memory.proc.command_line import QemuMemory, RamObject
from vhostuser.memory.proc.report import MemoryReport
from vhostuser.memory.proc.tables import Mapping

MIB = 1 << 20
SIZE = 64 * MIB


def mapping(start: int, *, size: int = SIZE, flags: str = "rw-s", inode: int = 0, path: str = "") -> Mapping:
    return Mapping(start, start + size, flags, 0, 1, inode, path)


def matched(*mappings: Mapping, objects: tuple[RamObject, ...]) -> list[RamBlock]:
    return Matcher(mappings, []).blocks_of(QemuMemory("qemu", objects))


def file_object(path: str, name: str = "mem") -> RamObject:
    return RamObject(name, "memory-backend-file", SIZE, share=True, path=path)


ANONYMOUS = RamObject("pc.ram", "", SIZE, share=False)


def test_memory_that_is_not_there_is_said_to_be_missing() -> None:
    (block,) = matched(mapping(0, inode=1, path="/memfd:small", size=MIB), objects=(file_object("/ram"),))
    assert (block.kind, block.mapping, block.size, block.is_rom) == ("not found", None, SIZE, False)
    report = MemoryReport(1, "qemu", True, (block,), ())
    assert not report.shareable
    assert "mem: no mapping of this size was found in the process" in report.diagnosis
    assert block.to_json()["start"] is None


def test_two_objects_of_one_size_get_the_files_that_they_name() -> None:
    mappings = [mapping(0, inode=1, path="/a"), mapping(2 * SIZE, inode=2, path="/b")]
    blocks = matched(*mappings, objects=(file_object("/b", "m0"), file_object("/a", "m1")))
    assert [block.mapping and block.mapping.path for block in blocks] == ["/b", "/a"]


def test_a_relative_path_is_matched_by_size() -> None:
    (block,) = matched(mapping(0, inode=1, path="/home/a/ram"), objects=(file_object("ram"),))
    assert block.mapping is not None


def test_no_mapping_is_taken_twice() -> None:
    blocks = matched(
        mapping(0, inode=1, path="/memfd:x"),
        objects=(
            RamObject("m0", "memory-backend-memfd", SIZE, share=True),
            RamObject("m1", "memory-backend-memfd", SIZE, share=True),
        ),
    )
    assert [block.kind for block in blocks] == ["memfd", "not found"]


def test_the_closest_anonymous_mapping_is_taken() -> None:
    """Code that is generated at run time, and memory that nobody may touch, are none."""
    (block,) = matched(
        mapping(0, flags="rwxp"),
        mapping(2 * SIZE, flags="---p"),
        mapping(4 * SIZE, flags="rw-p", size=SIZE + 32 * MIB),
        mapping(8 * SIZE, flags="rw-p", size=SIZE + 4 * MIB),
        mapping(16 * SIZE, flags="rw-p", size=SIZE - MIB),
        objects=(ANONYMOUS,),
    )
    assert (block.kind, block.mapping and block.mapping.start) == ("anonymous", 8 * SIZE)


def test_a_file_with_code_in_it_is_a_program() -> None:
    program = [
        mapping(0, flags="r-xp", inode=1, path="/bin/x"),
        mapping(2 * SIZE, flags="rw-p", inode=1, path="/bin/x"),
    ]
    assert Matcher(program, []).likely_blocks() == []


def test_memory_that_was_added_at_run_time_is_shown_too() -> None:
    matcher = Matcher([mapping(0, inode=1, path="/memfd:hotplugged"), mapping(SIZE * 2, flags="rw-p")], [])
    assert len(matcher.blocks_of(QemuMemory("qemu", (ANONYMOUS,)))) == 1
    assert [block.ram.id for block in matcher.large_shared_blocks()] == ["hotplugged"]
