"""``vhost-user memory``: what it prints, and how it ends.  Real QEMUs are looked at in tests/peers."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from frontend.commands.memory import memory
from tests.memory.files import MAPS, needs_memfd, reads_proc
from vhostuser.memory.backends import MemoryBackendShm

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

SHM = "memory-backend-shm,id=m0,size=64M"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(memory, arguments)


def offered(*objects: str) -> dict[str, Any]:
    """The JSON answer about some objects, with its exit status."""
    result = run("--json", *(word for text in objects for word in ("--object", text)))
    return {**json.loads(result.output), "status": result.exit_code}


def test_a_block_that_can_be_shared_is_shown_with_fd_and_guest_range() -> None:
    result = run("--object", SHM)
    (row,) = [line.split() for line in result.output.splitlines() if line.startswith(" m0 ")]
    assert (row[0], row[1], row[2], *row[4:]) == ("m0", "shm", "64M", "0x100000-0x40fffff", "shared", "yes")
    assert int(row[3]) > 2
    assert result.exit_code == 0


def test_a_block_that_cannot_be_shared_is_shown_with_the_reason(tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    result = run("--object", SHM, "--object", f"memory-backend-file,id=m1,size=64M,mem-path={ram},share=off")
    (row,) = [line.split() for line in result.output.splitlines() if line.startswith(" m1 ")]
    assert (row[1], row[-2:]) == ("file", ["private", "no"])
    assert "not offered: memory-backend-file m1 has share=off: set share=on\n" in result.output
    assert result.exit_code == 1


def test_a_file_that_was_made_to_be_shown_is_gone_again(tmp_path: Path) -> None:
    found = offered(f"memory-backend-file,id=m1,size=1M,mem-path={tmp_path / 'ram'},share=on")
    assert (found["shareable"], found["blocks"][0]["flags"]) == (True, ["shared", "durable"])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays(tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    ram.write_bytes(b"x" * (1 << 20))
    found = offered(f"memory-backend-file,id=m1,size=1M,mem-path={ram},readonly=on")
    assert found["blocks"][0]["flags"] == ["private", "rom"]
    assert (found["status"], ram.read_bytes()) == (1, b"x" * (1 << 20))


def test_a_file_given_as_guest_memory_is_shown_with_its_own_size(tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    ram.touch()
    os.truncate(ram, 32 << 20)
    result = run("--json", "--pcram-file", str(ram))
    (block,) = json.loads(result.output)["blocks"]
    assert (block["id"], block["size"], result.exit_code) == ("pc.ram", 32 << 20, 0)


def test_one_block_cannot_be_given_two_files(tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    ram.touch()
    os.truncate(ram, 32 << 20)
    result = run("--pcram-file", str(ram), "--object", f"memory-backend-file,id=pc.ram,size=32M,mem-path={ram}")
    assert result.exit_code == 2
    assert "pc.ram" in result.output


def test_a_block_that_meets_the_hole_of_a_pc_is_two() -> None:
    found = offered("memory-backend-shm,id=m0,size=4G")
    low, high = found["blocks"]
    assert (low["guest_addr"], low["size"] + high["size"]) == (1 << 20, 4 << 30)
    assert (high["guest_addr"], high["mmap_offset"], high["fd"]) == (4 << 30, low["size"], low["fd"])


@needs_memfd
def test_a_sealed_memfd_says_so() -> None:
    assert offered("memory-backend-memfd,id=m0,size=1M")["blocks"][0]["flags"] == ["shared", "sealed"]


def test_memory_without_a_descriptor_has_none() -> None:
    found = offered("memory-backend-ram,id=m0,size=1M")
    assert (found["blocks"][0]["fd"], found["blocks"][0]["offered"], found["status"]) == (None, False, 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give either --object or --pcram-file, or --pid"),
        (["--object", SHM, "--pid", "1"], "give either --object"),
        (["--object", "memory-backend-shm,id=m0"], "parameter 'size' is missing"),
        (["--object", "memory-backend-x,id=m0"], "memory-backend-x"),
        (["--object", SHM, "--object", SHM], "id 'm0' is given to two"),
        (["--object", "memory-backend-x,help"], "memory-backend-x"),
        (["--pid", "0"], "--pid"),
    ],
)
def test_wrong_options_are_explained(arguments: list[str], complaint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output


def test_memory_that_cannot_be_made_is_a_failure_and_no_usage_error() -> None:
    result = run("--object", "memory-backend-shm,id=m0,size=64M,share=off")
    assert result.exit_code == 1
    assert "can't create shm backend with `share=off`" in result.output


def test_help_lists_types_and_properties() -> None:
    assert "memory-backend-shm" in run("--object", "help").output
    result = run("--object", "memory-backend-file,help")
    assert "mem-path" in result.output
    assert result.exit_code == 0


@reads_proc
def test_a_process_of_ours_is_looked_at_like_any_other() -> None:
    with MemoryBackendShm(size=32 << 20).allocate() as block:
        result = run("--pid", str(os.getpid()), "--json")
        assert block.fd is not None
        sizes = {fd: each["size"] for each in json.loads(result.output)["blocks"] for fd in each["fds"]}
        assert sizes[block.fd.fileno()] == 32 << 20


@reads_proc
def test_a_process_that_is_not_there_has_a_status_of_its_own() -> None:
    result = run("--pid", str(1 << 30))
    assert (result.exit_code, result.output) == (3, f"Error: there is no process {1 << 30}\n")


@pytest.mark.skipif(MAPS.exists(), reason="this system has a /proc")
def test_where_there_is_no_proc_the_other_way_is_named() -> None:
    result = run("--pid", str(os.getpid()))
    assert result.exit_code == 3
    assert "let --object show" in result.output
