"""memory-backend-file: what is opened, what is made, which sizes and places are taken, and what is left behind."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any

import pytest

from tests.memory.files import PAGE, file_bytes, inode_of, mapped_ranges, mapping_at, reads_proc
from tests.memory.limited import at_most, without_privileges
from vhostuser.memory import MemoryBackendError, MemoryBackendFile

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


def test_by_default_memory_is_private_as_in_qemu() -> None:
    assert not MemoryBackendFile(size=PAGE, mem_path="/x").share


# --- what is opened or made -------------------------------------------------------------------------------------------


def test_a_missing_file_is_made_with_the_right_size_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    with backend(path, offset=PAGE).allocate() as block:
        block.view[:5] = b"hello"
        assert not os.get_inheritable(block.fd.fileno())
    assert path.read_bytes() == bytes(PAGE) + b"hello" + bytes(SIZE - 5)
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()


def test_an_empty_file_gets_its_size(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.touch()
    with backend(path).allocate():
        assert path.stat().st_size == SIZE


@pytest.mark.parametrize("more", [0, 1, 3 * PAGE])
def test_a_file_that_holds_something_is_used_as_it_is_and_never_resized(tmp_path: Path, more: int) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * (PAGE + SIZE + more))
    with backend(path, offset=PAGE).allocate() as block:
        assert (block.size, block.mmap_offset, block.view.nbytes) == (SIZE, PAGE, SIZE)
        block.view[:2] = b"ab"
    assert path.read_bytes() == b"x" * PAGE + b"ab" + b"x" * (SIZE - 2 + more)


@pytest.mark.parametrize(("there", "offset"), [(1, 0), (SIZE - 1, 0), (SIZE, PAGE)])
def test_a_file_that_is_too_small_is_refused_and_left_alone(tmp_path: Path, there: int, offset: int) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * there)
    assert refusal(path, offset=offset) == (
        f"{TITLE}: backing store size {there:#x} is too small for 'size' option {SIZE:#x} plus 'offset' option "
        f"{offset:#x}: a file that holds something is not resized, so enlarge it first or ask for less"
    )
    assert path.read_bytes() == b"x" * there


@pytest.mark.parametrize("share", [True, False])
def test_readonly_refuses_an_empty_file(tmp_path: Path, share: bool) -> None:
    """QEMU takes it, cannot resize it, and dies of SIGBUS at the first access."""
    path = tmp_path / "ram"
    path.touch()
    assert refusal(path, readonly=True, share=share) == (
        f"{TITLE}: backing store {path} is empty, and readonly=on cannot give it 'size' option {SIZE:#x} plus "
        "'offset' option 0x0: fill it first, or set readonly=off"
    )


def test_readonly_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    assert refusal(path, readonly=True) == (
        f"can't open backing store {path} for guest RAM: No such file or directory: "
        "readonly=on makes no files: make it first, or set readonly=off"
    )
    assert not path.exists()


@pytest.mark.parametrize("id_", ["m0", "pc.ram"])
def test_in_a_folder_the_file_has_no_name(tmp_path: Path, id_: str) -> None:
    with MemoryBackendFile(id=id_, size=SIZE, mem_path=str(tmp_path), share=True).allocate() as block:
        assert os.listdir(tmp_path) == []
        assert os.fstat(block.fd.fileno()).st_nlink == 0
        assert os.fstat(block.fd.fileno()).st_dev == tmp_path.stat().st_dev
        block.view[:5] = b"hello"
        assert file_bytes(block.fd, 5) == b"hello"


def test_when_the_name_in_the_folder_cannot_be_removed_the_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", refuse)
    assert "Operation not permitted" in refusal(tmp_path)


@pytest.mark.parametrize("properties", [{"readonly": True}, {"create": False}], ids=["readonly", "create=off"])
def test_a_folder_is_refused_by_who_makes_no_files(tmp_path: Path, properties: dict[str, bool]) -> None:
    made = "readonly=on" if properties.get("readonly") else "create=off"
    assert refusal(tmp_path, **properties) == (
        f"can't open backing store {tmp_path} for guest RAM: Is a directory: "
        f"{made} makes no files, so property 'mem-path' must name one"
    )


def test_a_path_in_no_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "ram"
    assert refusal(path) == f"can't open backing store {path} for guest RAM: No such file or directory"


def test_without_a_path_nothing_is_opened() -> None:
    assert refusal("") == f"{TITLE}: mem-path property not set: add mem-path=/some/file"


def test_a_path_that_no_system_takes_is_refused() -> None:
    assert "embedded null" in refusal("a\0b")


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    """It is not there when opened and there when made: in QEMU that goes on forever."""
    path = tmp_path / "ram"
    path.symlink_to(tmp_path / "nowhere" / "ram")
    assert refusal(path) == (
        f"can't open backing store {path} for guest RAM: it comes and goes, or is a link to nowhere"
    )


def test_a_file_that_somebody_makes_meanwhile_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ram"
    real = os.open

    def late(name: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_EXCL and not path.exists():
            path.write_bytes(b"theirs")
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", late)
    assert "backing store size 0x6 is too small" in refusal(path)
    assert path.read_bytes() == b"theirs"


def test_a_named_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    said = f"can't open backing store {path} for guest RAM: it is neither a file nor a DAX device"
    assert refusal(path, readonly=True) == said
    assert refusal(path) == said


def test_a_file_that_may_not_be_written_is_refused_and_templates_are_recommended(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(SIZE))
    path.chmod(0o444)
    with without_privileges():
        assert refusal(path) == f"can't open backing store {path} for guest RAM: Permission denied"
        assert refusal(path, share=False) == (
            f"can't open backing store {path} for guest RAM: Permission denied; "
            "set readonly=on,rom=off,share=off to use a file as a template that is only read"
        )


# --- sizes and places -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        (
            {"size": SIZE + 1},
            f"backend 'memory-backend-file' memory size must be multiple of {PAGE:#x}, found {SIZE + 1:#x}",
        ),
        ({"size": 1}, f"backend 'memory-backend-file' memory size must be multiple of {PAGE:#x}, found 0x1"),
        ({"offset": 1}, f"{TITLE}: property 'offset' must be a multiple of the page size {PAGE:#x}, found 0x1"),
        (
            {"offset": -PAGE},
            f"{TITLE}: property 'offset' must be a multiple of the page size {PAGE:#x}, found {-PAGE:#x}",
        ),
        (
            {"align": PAGE // 2},
            f"{TITLE}: property 'align' must be a multiple of the page size {PAGE:#x}, found {PAGE // 2:#x}",
        ),
        ({"align": 3 * PAGE}, f"{TITLE}: property 'align' must be a power of two, found {3 * PAGE:#x}"),
        ({"align": -PAGE}, f"{TITLE}: property 'align' must be a power of two, found {-PAGE:#x}"),
    ],
)
def test_what_is_not_aligned_is_refused_and_a_file_made_for_it_is_removed(
    tmp_path: Path, properties: dict[str, int], said: str
) -> None:
    path = tmp_path / "ram"
    assert refusal(path, **properties) == said
    assert not path.exists()


@reads_proc
@pytest.mark.parametrize("align", [PAGE, 1 << 21, 1 << 30])
@pytest.mark.parametrize("readonly", [False, True])
def test_the_memory_begins_at_a_multiple_of_align(tmp_path: Path, align: int, readonly: bool) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * (PAGE + SIZE))
    block = backend(path, align=align, offset=PAGE, readonly=readonly, size=SIZE).allocate()
    inode = inode_of(block.fd)
    with block:
        address = block.mapping.address
        assert address % align == 0
        assert (bytes(block.view), block.view.readonly) == (b"x" * SIZE, readonly)
        assert mapping_at(address)["permissions"] == ("r--s" if readonly else "rw-s")
        if align > PAGE:
            assert mapping_at(address + SIZE)["permissions"] == "---p"
        if not readonly:
            block.view[-2:] = b"ab"
            assert path.read_bytes().endswith(b"xab")
    del block
    assert mapped_ranges(inode) == []


def test_a_file_that_cannot_have_its_size_is_removed_again(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    with at_most(resource.RLIMIT_FSIZE, SIZE - 1):
        assert refusal(path) == (
            f"{TITLE}: failed to resize backing store {path} to {SIZE:#x}: [Errno 27] File too large"
        )
    assert not path.exists()


@pytest.mark.parametrize("where", ["new", "empty", "folder"])
def test_nothing_is_left_when_mapping_fails(tmp_path: Path, where: str) -> None:
    path = tmp_path if where == "folder" else tmp_path / "ram"
    if where == "empty":
        path.touch()
    with at_most(resource.RLIMIT_AS, 16 << 30):
        assert f"unable to map {1 << 36:#x} bytes of guest RAM" in refusal(path, size=1 << 36)
    assert os.listdir(tmp_path) == (["ram"] if where == "empty" else [])


def test_a_made_file_that_somebody_removed_meanwhile_is_no_second_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ram"

    def remove_and_fail(fd: int, size: int) -> None:
        path.unlink()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", remove_and_fail)
    assert "failed to resize" in refusal(path)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
