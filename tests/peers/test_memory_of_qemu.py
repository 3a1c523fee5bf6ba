"""``vhost-user memory --pid`` on real QEMUs: stopped before their first instruction, for that is when RAM is mapped."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from click.testing import CliRunner

from frontend.commands.memory import memory
from tests.peers.programs import PeerError, run_peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from click.testing import Result

    from tests.peers.programs import Peer

MIB = 64
WITH_OBJECT = ("-M", "q35,memory-backend=mem", "-object")
FILE = f"memory-backend-file,id=mem,size={MIB}M,mem-path={{ram}}"
PRIVATE = "a private mapping of {ram}: what the guest writes never gets there"


@asynccontextmanager
async def stopped_qemu(qemu: Path, folder: Path, *arguments: str) -> AsyncIterator[Peer]:
    """A QEMU without devices that has made its machine, and waits; it says so by greeting its QMP client."""
    command: list[str | Path] = [
        qemu,
        *("-S", "-accel", "tcg", "-m", str(MIB), "-nodefaults", "-no-user-config", "-display", "none"),
        *("-qmp", "stdio", *arguments),
    ]
    async with run_peer(command, log=folder / "qemu.log", console=True) as peer:
        assert peer.process.stdout is not None
        if b"QMP" not in await peer.process.stdout.receive_some():
            raise PeerError(f"found no QMP greeting\n{peer.tail()}")
        yield peer


async def ask(pid: int, *arguments: str) -> Result:
    return await trio.to_thread.run_sync(CliRunner().invoke, memory, ["--pid", str(pid), *arguments])


SHARED = {
    "memfd": [*WITH_OBJECT, f"memory-backend-memfd,id=mem,size={MIB}M"],
    "shm": [*WITH_OBJECT, f"memory-backend-shm,id=mem,size={MIB}M"],
    "ram": [*WITH_OBJECT, f"memory-backend-ram,id=mem,size={MIB}M,share=on"],
    "file": [*WITH_OBJECT, f"{FILE},share=on"],
    "file in a folder": [*WITH_OBJECT, f"memory-backend-file,id=mem,size={MIB}M,mem-path={{folder}},share=on"],
    "JSON": [
        *WITH_OBJECT,
        f'{{"qom-type":"memory-backend-file","id":"mem","size":{MIB << 20},"mem-path":"{{ram}}","share":true}}',
    ],
    "NUMA": ["-M", "q35", "-object", f"memory-backend-memfd,id=mem,size={MIB}M", "-numa", "node,memdev=mem"],
}


@pytest.mark.parametrize("arguments", SHARED.values(), ids=SHARED.keys())
async def test_shared_memory_of_a_qemu_is_found(qemu: Path, peer_folder: Path, arguments: list[str]) -> None:
    given = [place(argument, peer_folder) for argument in arguments]
    async with stopped_qemu(qemu, peer_folder, *given) as peer:
        result = await ask(peer.process.pid, "--json")
        held = [fd.removesuffix(" (deleted)") for fd in peer.fds()]
    found = json.loads(result.output)
    (block,) = found["blocks"]
    assert (block["id"], block["size"], block["mapped"], block["why_not"]) == ("mem", MIB << 20, "shared", None)
    assert held.count(block["path"]) == len(block["fds"]) == 1
    assert found["diagnosis"] == "guest RAM is shared: a vhost-user back-end can map it"
    assert (found["shareable"], result.exit_code) == (True, 0)


NOT_SHARED = {
    "plain": (
        [],
        "guest RAM is anonymous and private: a vhost-user back-end cannot map it; start QEMU with "
        f"-object memory-backend-memfd,id=mem,size={MIB}M,share=on -machine memory-backend=mem",
    ),
    "ram": (
        [*WITH_OBJECT, f"memory-backend-ram,id=mem,size={MIB}M"],
        "guest RAM is anonymous and private: a vhost-user back-end cannot map it; "
        "set share=on in -object memory-backend-ram,id=mem",
    ),
    "file": (
        [*WITH_OBJECT, f"{FILE},share=off"],
        f"guest RAM cannot be shared: mem: {PRIVATE}, and a back-end that maps the file sees other bytes; "
        "set share=on in -object memory-backend-file,id=mem",
    ),
    "memfd": (
        [*WITH_OBJECT, f"memory-backend-memfd,id=mem,size={MIB}M,share=off"],
        "guest RAM cannot be shared: mem: a private mapping of /memfd:memory-backend-memfd: what the guest writes "
        "never gets there, and a back-end that maps the file sees other bytes; "
        "set share=on in -object memory-backend-memfd,id=mem",
    ),
    "object that nothing uses": (
        ["-object", f"memory-backend-memfd,id=m7,size={MIB}M"],
        "guest RAM is anonymous and private: a vhost-user back-end cannot map it; "
        "there is a shared object m7, which nothing uses: -machine memory-backend=m7",
    ),
}


@pytest.mark.parametrize(("arguments", "diagnosis"), NOT_SHARED.values(), ids=NOT_SHARED.keys())
async def test_memory_of_a_qemu_that_cannot_be_shared_is_diagnosed(
    qemu: Path, peer_folder: Path, arguments: list[str], diagnosis: str
) -> None:
    given = [place(argument, peer_folder) for argument in arguments]
    async with stopped_qemu(qemu, peer_folder, *given) as peer:
        result = await ask(peer.process.pid, "--json")
    found = json.loads(result.output)
    assert found["diagnosis"] == place(diagnosis, peer_folder)
    assert (found["shareable"], result.exit_code) == (False, 1)


async def test_mem_path_alone_is_a_private_file(qemu: Path, peer_folder: Path) -> None:
    async with stopped_qemu(qemu, peer_folder, "-mem-path", str(peer_folder)) as peer:
        result = await ask(peer.process.pid)
    said = " ".join(result.output.split())
    assert f"pc.ram: a private mapping of {peer_folder}/qemu_back_mem.pc.ram." in said
    assert f"-object memory-backend-file,id=mem,mem-path={peer_folder},size={MIB}M,share=on" in said
    assert result.exit_code == 1


async def test_rom_beside_shared_memory_does_no_harm(qemu: Path, peer_folder: Path) -> None:
    """QEMU does not offer it, and no back-end needs it; so all that is needed is shared."""
    rom = place("{ram}", peer_folder)
    given = [place(argument, peer_folder) for argument in SHARED["memfd"]]
    nvdimm = f"memory-backend-file,id=rom,size={MIB}M,mem-path={rom},readonly=on,share=on"
    devices = ["-M", "nvdimm=on", "-m", f"{MIB}M,slots=1,maxmem=1G", "-device", "nvdimm,memdev=rom,unarmed=on"]
    async with stopped_qemu(qemu, peer_folder, *given, "-object", nvdimm, *devices) as peer:
        result = await ask(peer.process.pid, "--json")
    found = {block["id"]: block for block in json.loads(result.output)["blocks"]}
    assert found["mem"]["offered"]
    assert (found["rom"]["offered"], found["rom"]["writable"]) == (False, False)
    assert "mapped for reading only (ROM)" in found["rom"]["why_not"]
    assert result.exit_code == 0


async def test_the_table_shows_descriptor_and_flags(qemu: Path, peer_folder: Path) -> None:
    async with stopped_qemu(qemu, peer_folder, *SHARED["memfd"]) as peer:
        result = await ask(peer.process.pid)
    (row,) = [line.split() for line in result.output.splitlines() if line.startswith(" mem ")]
    assert row[:3] == ["mem", "memfd", f"{MIB}M"]
    assert row[5:] == ["shared,", "sealed", "yes"]
    assert f"process {peer.process.pid}, qemu-system-x86_64: guest RAM is shared" in " ".join(result.output.split())


def place(argument: str, folder: Path) -> str:
    """Put the file, or its folder, where an argument wants one; the file is there afterwards."""
    ram = folder / "guest.ram"
    if not ram.exists():
        with ram.open("wb") as file:
            file.truncate(MIB << 20)
    return argument.replace("{ram}", str(ram)).replace("{folder}", str(folder))
