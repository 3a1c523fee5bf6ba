"""What the demo does, a step after the other; `demo_story` tells it, `demo_evidence` looks at both processes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from frontend.bringup import bring_up
from frontend.commands.demo_backend import backend_process
from frontend.commands.demo_evidence import fds_by_kind, mapping_of, name_is_gone, seen, unwanted_kinds
from frontend.commands.transfer import CHUNK, MIB, Rate
from frontend.drivers.blk import DEFAULT_BLOCK_SIZE, DEFAULT_DEPTH, BlkDriver
from frontend.guest import GuestRam
from vhostuser.memory.sizes import format_size
from vhostuser.trace.decode import Decoder
from vhostuser.trace.descriptors import describe
from vhostuser.transport.channel import Channel, Direction
from vhostuser.wire.requests import Role
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkFeature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.bringup import DeviceLink
    from frontend.commands.demo_backend import BackendProcess
    from frontend.commands.demo_story import Story
    from frontend.commands.running import Patience
    from vhostuser.memory.backends import MemoryBackend, MemoryBlock
    from vhostuser.protocol.framing import Frame
    from vhostuser.trace.descriptors import Descriptor
    from vhostuser.transport.channel import Observer
    from vhostuser.transport.notifier import NotifierKind

_MEMORY_LINE = r"received SET_MEM_TABLE .*fd (\d+) \((\w+)(?:, ([0-9a-f:]+ \d+))?\)"
"""What the back-end logs when the memory arrives: the descriptor as it got it."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the demo was told to do.

    Attributes:
        memory: where guest memory comes from.
        memory_kind: ``shm`` or ``memfd``.
        notifier: what carries kicks and calls.
        file: what is copied.
        size: bytes of the disk, and of guest memory.
    """

    memory: MemoryBackend
    memory_kind: str
    notifier: NotifierKind
    file: str
    size: int


async def play(scene: Scene, story: Story, patience: Patience) -> None:
    """All of it.  What is wrong ends up in ``story.problems``; what makes it impossible to go on is raised."""
    with GuestRam(scene.memory) as ram:
        memory = ram.blocks[0]
        ours = show_memory(memory, story)
        async with backend_process(scene.size) as backend:
            show_backend(backend, story)
            plan = BlkDriver.plan(memory=scene.memory, notifier=scene.notifier)
            story.step("They talk, and the memory's descriptor goes over the socket")
            channel = Channel(backend.sock, observer=observer(story))
            try:
                async with bring_up(channel, plan, ram=ram) as link:
                    patience.progress()
                    await show_both_sides(backend, ours, story)
                    show_descriptors(scene, backend, story)
                    await copy(scene, link, story, patience)
                    story.step("The way down")
            finally:
                story.flush_messages()
            await show_end(backend, memory, story)


def show_memory(memory: MemoryBlock, story: Story) -> Descriptor:
    """Step 1; the descriptor, as this process has it."""
    ours = describe(memory.fd.fileno())
    story.step("Memory that two processes can share")
    story.say(
        f"{memory.backend.type}, {format_size(memory.size)}: file descriptor {ours} in this process, {os.getpid()}."
    )
    gone = name_is_gone(memory)
    named = f"It was called {memory.name} for an instant." if memory.name else "It never had a name to open it by."
    if gone is None:
        story.say(f"{named} This system does not show whether the name is gone.")
    else:
        story.check(
            gone,
            f"{named} Now it has {ours.links} names, and /dev/shm has no entry: only the descriptor leads to it.",
            f"the memory still has a name ({ours.links} links)",
        )
    story.facts["memory"] = {
        "backend": memory.backend.type,
        "size": memory.size,
        "name": memory.name,
        "name_is_gone": gone,
        **seen(ours),
    }
    return ours


def show_backend(backend: BackendProcess, story: Story) -> None:
    """Step 2."""
    story.step("A back-end, in a process of its own")
    story.say(f"Process {backend.pid}: {backend.command_line()}")
    story.say(
        f"It serves a disk at its descriptor {backend.its_fd}, one end of a socket pair. "
        f"Ours is {backend.sock.fileno()}. So the socket has no name either."
    )
    story.facts["processes"] = {"frontend": os.getpid(), "backend": backend.pid}
    story.facts["backend_command"] = list(backend.command)


async def show_both_sides(backend: BackendProcess, ours: Descriptor, story: Story) -> None:
    """Step 4: the same object, there and here."""
    story.flush_messages()
    number, kind, identity = (await backend.log.find(_MEMORY_LINE)).groups()
    story.step("The same memory on both sides")
    sent = next(each for each in story.facts["messages"] if each["name"] == "SET_MEM_TABLE")["fds"][0]["fd"]
    story.say(f"What we sent was {sent}, a duplicate of {ours.number}, closed since.  The back-end got it as {number}.")
    story.table(
        ["process", "fd", "kind", "device, inode"],
        [
            [f"front-end {os.getpid()}", str(ours.number), ours.kind, ours.identity if ours.inode else "not told"],
            [f"back-end {backend.pid}", str(number), kind, identity or "not told"],
        ],
    )
    same = None
    if ours.inode and identity:
        same = identity == ours.identity
        story.check(same, "Device and inode are equal: it is one object.", "the back-end has another object than we")
    else:
        story.say("This system does not tell which object a descriptor means.")
    mapping = mapping_of(backend.pid, ours.identity)
    if mapping is None:
        story.say("The back-end's mapping cannot be shown: there is no /proc that tells.")
    else:
        story.say("The back-end has mapped it; the line in its /proc/PID/maps:")
        story.say(mapping)
    story.facts["both_sides"] = {
        "frontend_fd": ours.number,
        "backend_fd": int(number),
        "same_object": same,
        "backend_mapping": mapping,
    }


def show_descriptors(scene: Scene, backend: BackendProcess, story: Story) -> None:
    """Step 5: what both processes hold open."""
    story.step("Descriptors that both processes hold, besides stdin, stdout and stderr")
    here, there = fds_by_kind(os.getpid()), fds_by_kind(backend.pid)
    story.facts["descriptors"] = {"frontend": here, "backend": there}
    if here is None or there is None:
        story.say("They cannot be shown: this system has no /proc/PID/fd.")
        return
    rows = [
        [kind, " ".join(map(str, here.get(kind, ["-"]))), " ".join(map(str, there.get(kind, ["-"])))]
        for kind in sorted({*here, *there})
    ]
    story.table(["kind", "front-end", "back-end"], rows)
    unwanted = unwanted_kinds(scene.memory_kind, scene.notifier.value)
    if unwanted:
        found = [kind for kind in unwanted if kind in here or kind in there]
        asked = f"--memory {scene.memory_kind} --notifier {scene.notifier.value}"
        story.check(
            not found,
            f"With {asked} neither process holds {_any(unwanted)}.",
            f"with {asked} a process holds {_any(found)}",
        )


def _any(kinds: Sequence[str]) -> str:
    return " or ".join(f"an {kind}" if kind.startswith("e") else f"a {kind}" for kind in kinds)


async def copy(scene: Scene, link: DeviceLink, story: Story, patience: Patience) -> None:
    """Step 6: a real file into the disk, and out again."""
    disk, size = BlkDriver(link), (await trio.Path(scene.file).stat()).st_size
    story.step("A file goes through the virtqueue, block by block")
    story.say(
        f"{scene.file}, {size / MIB:.4g} MiB, in blocks of {format_size(DEFAULT_BLOCK_SIZE)}, "
        f"{DEFAULT_DEPTH} requests in flight."
    )
    write, written = await _write_file(disk, scene.file, patience)
    read, found = await _read_back(disk, write.size, patience)
    story.table([], [["written", str(write)], ["read", str(read)]])
    story.say("SHA-256 of the file, and of what came back from the disk:")
    story.table([], [["file", written], ["disk", found]])
    story.check(written == found, "They are equal.", "what came back is not what was written")
    story.facts["copy"] = {
        "file": scene.file,
        "write": write.to_json(),
        "read": read.to_json(),
        "sha256_file": written,
        "sha256_disk": found,
    }


async def _write_file(disk: BlkDriver, path: str, patience: Patience) -> tuple[Rate, str]:
    rate, digest = Rate(), hashlib.sha256()
    async with await trio.open_file(path, "rb") as file:
        while data := await file.read(CHUNK):
            digest.update(data)
            whole = data.ljust(-(-len(data) // SECTOR_SIZE) * SECTOR_SIZE, b"\0")
            position = rate.size // SECTOR_SIZE
            with rate.measured(disk, len(data)):
                await disk.write(position, whole)
            patience.progress()
    with rate.measured(disk, 0):
        await disk.flush()
    return rate, digest.hexdigest()


async def _read_back(disk: BlkDriver, size: int, patience: Patience) -> tuple[Rate, str]:
    rate, digest = Rate(), hashlib.sha256()
    while rate.size < size:
        position, wanted = rate.size // SECTOR_SIZE, min(CHUNK, size - rate.size)
        with rate.measured(disk, wanted):
            data = await disk.read(position, -(-wanted // SECTOR_SIZE))
        digest.update(data[:wanted])
        patience.progress()
    return rate, digest.hexdigest()


async def show_end(backend: BackendProcess, memory: MemoryBlock, story: Story) -> None:
    """Step 8: nothing is left."""
    status = await backend.ended()
    story.check(
        status == 0,
        "The socket is closed, so the back-end ended, with status 0.",
        "the back-end did not end when the socket was closed"
        if status is None
        else f"the back-end ended with status {status}",
    )
    story.facts["backend_status"] = status


def observer(story: Story) -> Observer:
    """Tells the story of each message."""
    decoder = Decoder(device_features=BlkFeature)

    def observe(direction: Direction, frame: Frame) -> None:
        sender = Role.FRONTEND if direction is Direction.SENT else Role.BACKEND
        story.message(decoder.decode(sender, frame))

    return observe
