"""``vhost-user demo --kvm``, and its guest on both kinds of machine against a back-end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from frontend.background import background
from frontend.commands.demo import demo
from frontend.commands.kvm_guests import DemoGuest, KvmGuest, PlayedGuest
from frontend.commands.kvm_play import GuestScene, connect, guest_memory
from frontend.connection import Frontend
from frontend.guest.kvm import program, system, why_no_kvm
from frontend.guest.mmio import MmioExit
from tests.cli.programs import vhost_user
from vhostuser.backend import serve_one
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.memory.map import GuestAddr
from vhostuser.transport import channel_pair
from vhostuser.transport.notifier import NotifierKind, default_kind

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.guest.memory import GuestRam

SECRET = b"0123456789abcdef" * 2
TITLES = [
    "A guest, and what it finds at its addresses",
    "A back-end, in a process of its own",
    "They talk, and the back-end gets the shared RAM, the kick and the call",
    "The guest runs",
    "The guest wrote to its ROM",
    "The guest drove the disk by itself",
    "The dirty log of the shared RAM",
    "The way down",
]


def shared() -> MemoryBackendShm:
    return MemoryBackendShm(id="ram", size=program.RAM_SIZE)


@pytest.fixture(params=[KvmGuest, PlayedGuest])
def guest_kind(request: pytest.FixtureRequest) -> type[DemoGuest]:
    if request.param is KvmGuest:
        request.getfixturevalue("kvm_and_eventfds_here")
    kind: type[DemoGuest] = request.param
    return kind


def make(kind: type[DemoGuest], ram: GuestRam) -> DemoGuest:
    return (KvmGuest if kind is KvmGuest else PlayedGuest)(ram, default_kind())


# --- the guest ---


async def test_the_guest_writes_a_sector_and_reads_it_back(guest_kind: type[DemoGuest]) -> None:
    storage = MemoryStorage(1 << 16)
    ours, theirs = channel_pair()
    with guest_memory(shared(), program.rom_image(SECRET)) as ram, make(guest_kind, ram) as guest:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_one, BlkDevice(storage), theirs)
            async with Frontend(ours) as frontend, background() as listening:
                listening.start_soon(frontend.run)
                await connect(frontend, ram, guest)
                await guest.run()
                assert await frontend.get_vring_base(0) == 2
        assert (guest.printed, guest.statuses) == (SECRET, b"\0\0")
        sector = memoryview(bytearray(512))
        storage.read(program.SECTOR * 512, [sector], nowait=False)
        assert bytes(sector) == SECRET.ljust(512, b".")
        notes = bytes(ram.memory.view(GuestAddr(program.NOTES), 4))
        assert notes[:2] == program.TEXT[:1] * 2
        assert MmioExit.store(program.ROM_ADDR, b"!") in guest.exits
        assert guest.rom.dropped == 1


async def test_a_guest_whose_backend_refuses_tells_so(guest_kind: type[DemoGuest]) -> None:
    """The disk ends before the sector that the guest wants."""
    ours, theirs = channel_pair()
    with guest_memory(shared(), program.rom_image(SECRET)) as ram, make(guest_kind, ram) as guest:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_one, BlkDevice(MemoryStorage(512)), theirs)
            async with Frontend(ours) as frontend, background() as listening:
                listening.start_soon(frontend.run)
                await connect(frontend, ram, guest)
                await guest.run()
        assert guest.statuses == b"\x01\x01"


async def test_a_guest_whose_backend_never_answers_rings_and_can_be_cancelled(guest_kind: type[DemoGuest]) -> None:
    with guest_memory(shared(), program.rom_image(SECRET)) as ram, make(guest_kind, ram) as guest:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guest.run)
            await guest.kick_consumer.wait()
            nursery.cancel_scope.cancel()
        assert guest.statuses == b""
        assert bytes(ram.memory.view(GuestAddr(program.AVAIL_RING + 2), 2)) == b"\x01\0"


def test_the_rom_cannot_be_written_by_us_either() -> None:
    with guest_memory(shared(), program.rom_image(SECRET)) as ram:
        rom = ram.layout[-1]
        assert rom.rom
        with pytest.raises(TypeError, match="read-only"):
            rom.view[0] = 0


def test_without_eventfds_there_is_no_kvm_for_this() -> None:
    scene = GuestScene.of(shared(), NotifierKind.PIPE)
    assert scene.why_no_kvm is not None


# --- the command ---


def facts(*options: str) -> dict[str, Any]:
    ran = vhost_user("demo", "--kvm", "--json", *options)
    assert (ran.returncode, ran.stderr) == (0, b"")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def check(found: dict[str, Any], engine: str) -> None:
    assert (found["ok"], found["problems"], found["backend_status"]) == (True, [], 0)
    assert found["engine"] == engine
    assert [(slot["id"], slot["flags"], slot["offered"]) for slot in found["slots"]] == [
        ("ram", ["LOG_DIRTY_PAGES"], True),
        ("stack", ["LOG_DIRTY_PAGES"], False),
        ("rom", ["READONLY"], False),
    ]
    assert found["rom"]["exits"] == [{"address": program.ROM_ADDR, "data": "21"}]
    assert found["rom"]["unchanged"] is True
    assert found["requests"]["printed"] == found["requests"]["expected"]
    tables = [each for each in found["messages"] if each["name"] == "SET_MEM_TABLE" and each["kind"] == "request"]
    assert [len(each["fds"]) for each in tables] == [1]


@pytest.mark.usefixtures("kvm_and_eventfds_here")
@pytest.mark.parametrize("memory", ["shm", "memfd"])
def test_on_kvm_the_doorbell_does_not_exit(memory: str) -> None:
    found = facts("--memory", memory, "--notifier", "eventfd")
    check(found, "kvm")
    assert found["why_no_kvm"] is None
    assert found["requests"]["doorbell_exits"] == 0
    assert found["requests"]["interrupts"] >= 1


def test_with_pipes_python_plays_the_guest() -> None:
    found = facts("--notifier", "pipe")
    check(found, "software")
    assert found["requests"]["doorbell_exits"] == 2


def test_without_kvm_the_demo_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(system, "DEVICE", tmp_path / "kvm")
    reason = str(why_no_kvm())
    ran = CliRunner().invoke(demo, ["--kvm"])
    assert ran.exit_code == 0
    told = " ".join(ran.stdout.split())
    assert f"Without KVM: {reason}. The same slots are kept in Python" in told.replace("kvm .", "kvm.")
    assert told.endswith("All is as it should be.")
    assert [title for title in TITLES if title not in told] == []


async def do_nothing(_guest: PlayedGuest) -> None:
    await trio.lowlevel.checkpoint()


def test_a_guest_that_does_nothing_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlayedGuest, "run", do_nothing)
    ran = CliRunner().invoke(demo, ["--kvm", "--notifier", "pipe"])
    assert ran.exit_code == 1
    for problem in (
        "status bytes unknown, expected 00 00",
        "expected one store of 21 at 0xf0000, found no exit",
        "ROM changed: the guest read 0x00, then 0x00",
        "found 0 exits at the doorbell, expected 2",
        "found used.idx 0 and 0 interrupts",
        "it printed b''",
        "the log has pages none, expected 2, 3, 5, 6, 7, 10",
        "the ring stopped at 0, expected 2",
    ):
        assert problem in ran.stderr


@pytest.mark.parametrize("option", [["--size", "8M"], ["--file", __file__]])
def test_the_other_storys_options_are_refused(option: list[str]) -> None:
    ran = CliRunner().invoke(demo, ["--kvm", *option])
    assert ran.exit_code == 2
    assert "--kvm copies no file: leave --size and --file out" in ran.stderr
