"""What ``vhost-user demo --kvm`` does, a step after the other: slots, a back-end, a guest that rings it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from frontend.background import background
from frontend.commands.demo_backend import backend_process
from frontend.commands.demo_play import observer, show_backend, show_end
from frontend.commands.kvm_guests import KvmGuest, PlayedGuest
from frontend.connection import Frontend
from frontend.guest.kvm import program as at
from frontend.guest.kvm import why_no_kvm
from frontend.guest.layout import Place
from frontend.guest.memory import GuestRam
from frontend.guest.mmio import MmioExit
from frontend.guest.slots import PAGE, SlotFlags, dirty_pages
from vhostuser.memory.backends import MemoryBackendFile, MemoryBackendRam
from vhostuser.memory.map import GuestAddr
from vhostuser.memory.sizes import format_size
from vhostuser.transport.channel import Channel
from vhostuser.transport.notifier import NotifierKind
from vhostuser.wire.features import ProtocolFeature, VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.commands.demo_story import Story
    from frontend.commands.kvm_guests import DemoGuest
    from frontend.commands.running import Patience
    from frontend.guest.memory import GuestBlock
    from frontend.guest.slots import MemorySlot
    from vhostuser.memory.backends import MemoryBackend

DISK_SIZE = 1 << 20
FEATURES = VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES
WRITTEN_PAGES = {at.VECTOR * 4 // PAGE} | {
    addr // PAGE for addr in (at.DESC_TABLE, at.AVAIL_RING, at.REQUESTS, at.STATUS, at.WRITTEN, at.NOTES)
}
"""What the guest writes in shared RAM, when it has interrupts; the vector is the only thing in its page."""


@dataclass(frozen=True, kw_only=True)
class GuestScene:
    """What the demo was told to do.

    Attributes:
        memory: where the guest's shared RAM comes from; its size is given here.
        notifier: what carries kicks and calls; KVM knows eventfds only.
        why_no_kvm: why the guest has to be played in Python; None if it need not.
    """

    memory: MemoryBackend
    notifier: NotifierKind
    why_no_kvm: str | None

    @classmethod
    def of(cls, memory: MemoryBackend, notifier: NotifierKind) -> GuestScene:
        """The scene for this machine."""
        why_not = why_no_kvm()
        if notifier is not NotifierKind.EVENTFD:
            why_not = why_not or "KVM knows eventfds and no pipes"
        return cls(memory=replace(memory, id="ram", size=at.RAM_SIZE), notifier=notifier, why_no_kvm=why_not)


async def play(scene: GuestScene, story: Story, patience: Patience) -> None:
    """All of it.  What is wrong ends up in ``story.problems``; what makes it impossible to go on is raised."""
    secret = os.urandom(at.SHOWN // 2).hex().encode()
    kind = KvmGuest if scene.why_no_kvm is None else PlayedGuest
    with guest_memory(scene.memory, at.rom_image(secret)) as ram, kind(ram, scene.notifier) as guest:
        show_slots(scene, ram, guest, story)
        async with backend_process(DISK_SIZE) as backend:
            show_backend(backend, story)
            story.step("They talk, and the back-end gets the shared RAM, the kick and the call")
            channel = Channel(backend.sock, observer=observer(story))
            async with Frontend(channel) as frontend, background() as nursery:
                nursery.start_soon(frontend.run)  # if the back-end goes away, that ends everything in here
                await connect(frontend, ram, guest)
                story.flush_messages()
                patience.progress()
                await run_guest(scene, guest, story)
                show_rom(ram, guest, story)
                show_requests(ram, guest, secret, story)
                show_dirty_log(guest, story)
                story.step("The way down")
                base = await frontend.get_vring_base(0)
            story.check(base == 2, "The ring stopped at 2: both requests.", f"the ring stopped at {base}, expected 2")
            await show_end(backend, ram.blocks[0], story)


@contextmanager
def guest_memory(shared: MemoryBackend, image: bytes) -> Iterator[GuestRam]:
    """Shared RAM, a private stack, and a ROM in a file that is gone as soon as it is mapped."""
    with TemporaryDirectory(prefix="vhost-user-") as folder:
        path = Path(folder) / "rom.bin"
        path.write_bytes(image)
        rom = MemoryBackendFile(id="rom", size=len(image), mem_path=str(path), readonly=True)
        stack = MemoryBackendRam(id="stack", size=at.STACK_SIZE)
        ram = GuestRam(
            Place(shared, GuestAddr(0)),
            Place(stack, GuestAddr(at.STACK_ADDR)),
            Place(rom, GuestAddr(at.ROM_ADDR), rom=True),
        )
    with ram:
        yield ram


def show_slots(scene: GuestScene, ram: GuestRam, guest: DemoGuest, story: Story) -> None:
    """Step 1: what the guest finds where, and what of it a back-end gets."""
    story.step("A guest, and what it finds at its addresses")
    if scene.why_no_kvm is None:
        story.say("On KVM: these are the kernel's memory slots, and a virtual CPU runs the guest's instructions.")
    else:
        story.say(
            f"Without KVM: {scene.why_no_kvm}.  The same slots are kept in Python, which plays the guest as well."
        )
    story.table(
        ["slot", "guest addresses", "memory backend", "guest writes", "offered"],
        [
            [
                str(slot.slot),
                f"{slot.guest_addr:#07x}-{slot.end - 1:#07x}",
                f"{block.memory.backend.id}, {block.memory.backend.type}, {format_size(slot.size)}",
                "exit as MMIO" if slot.readonly else "are logged",
                "yes" if block.why_not_offered is None else "no",
            ]
            for slot, block in zip(guest.slots.table.values(), ram.layout, strict=True)
        ],
    )
    for block in ram.layout:
        if block.why_not_offered is not None:
            story.say(f"Not offered: {block.why_not_offered}.")
    story.say(f"At {at.DOORBELL_ADDR:#07x} there is no memory: it is the ring's doorbell.")
    story.facts["engine"] = guest.engine
    story.facts["why_no_kvm"] = scene.why_no_kvm
    story.facts["slots"] = [
        slot_facts(slot, block) for slot, block in zip(guest.slots.table.values(), ram.layout, strict=True)
    ]


def slot_facts(slot: MemorySlot, block: GuestBlock) -> dict[str, object]:
    """A slot for machines."""
    return {
        "slot": slot.slot,
        "guest_addr": slot.guest_addr,
        "size": slot.size,
        "backend": block.memory.backend.type,
        "id": block.memory.backend.id,
        "flags": [flag.name for flag in (SlotFlags.LOG_DIRTY_PAGES, SlotFlags.READONLY) if flag & slot.flags],
        "offered": block.why_not_offered is None,
        "why_not_offered": block.why_not_offered,
    }


async def connect(frontend: Frontend, ram: GuestRam, guest: DemoGuest) -> None:
    """What a VMM says to a back-end on its guest's behalf.  The ring is the guest's: nobody here ever touches it."""
    offered = await frontend.get_features()
    await frontend.set_features(offered & FEATURES)
    await frontend.set_protocol_features(await frontend.get_protocol_features() & ProtocolFeature.REPLY_ACK)
    await frontend.set_owner()
    await frontend.set_mem_table(ram.regions, ram.duplicate_fds())
    await frontend.set_vring_num(0, at.QUEUE_SIZE)
    await frontend.set_vring_base(0, 0)
    await frontend.set_vring_addr(
        0,
        descriptor=ram.user_addr(GuestAddr(at.DESC_TABLE)),
        available=ram.user_addr(GuestAddr(at.AVAIL_RING)),
        used=ram.user_addr(GuestAddr(at.USED_RING)),
    )
    kick, call = guest.fds_for_backend()
    await frontend.set_vring_call(0, call)
    await frontend.set_vring_kick(0, kick)
    await frontend.set_vring_enable(0, True)


async def run_guest(scene: GuestScene, guest: DemoGuest, story: Story) -> None:
    """Step 4: the guest, from its first instruction to its last."""
    story.step("The guest runs")
    if scene.why_no_kvm is None:
        story.say(
            f"{len(at.PROGRAM) + len(at.HANDLER)} instructions of x86, in ROM; docs/kvm.md lists them.  The doorbell "
            f"is an ioeventfd, the call an irqfd for interrupt {at.IRQ}: this process takes no part in either."
        )
    await guest.run()
    story.check(
        guest.statuses == bytes(2),
        "It came to its end, and says that the disk served both of its requests.",
        f"the guest came to its end with status bytes {guest.statuses.hex(' ') or 'unknown'}, expected 00 00",
    )


def show_rom(ram: GuestRam, guest: DemoGuest, story: Story) -> None:
    """Step 5: a store to ROM does not arrive."""
    story.step("The guest wrote to its ROM")
    expected = MmioExit.store(at.ROM_ADDR, bytes([at.ATTACK]))
    stores = [access for access in guest.exits if access.address >= at.ROM_ADDR]
    story.check(
        stores == [expected] and guest.rom.dropped == 1,
        f"It stored {at.ATTACK:#04x} at {at.ROM_ADDR:#x}.  Exit MMIO: {expected}; dropped, and counted.",
        f"expected one {expected}, found {', '.join(map(str, stores)) or 'no exit'}",
    )
    before, after = bytes(ram.memory.view(GuestAddr(at.NOTES), 2))
    held = bytes(guest.rom.view[: len(at.TEXT)])
    story.check(
        before == after == at.TEXT[0] and held == at.TEXT,
        f"It read {before:#04x} there before, and {after:#04x} afterwards.  ROM still says {held.decode('ascii')!r}.",
        f"ROM changed: the guest read {before:#04x}, then {after:#04x}; ROM holds {held!r}",
    )
    story.facts["rom"] = {
        "exits": [{"address": access.address, "data": access.data.hex() if access.data else None} for access in stores],
        "dropped": guest.rom.dropped,
        "read_before": before,
        "read_after": after,
        "unchanged": held == at.TEXT,
    }


def show_requests(ram: GuestRam, guest: DemoGuest, secret: bytes, story: Story) -> None:
    """Step 6: a sector went to the disk in the other process and came back."""
    story.step("The guest drove the disk by itself")
    rings = [access for access in guest.exits if access.address == at.DOORBELL_ADDR]
    expected = 0 if guest.engine == "kvm" else 2
    how = "in the kernel, without an exit" if guest.engine == "kvm" else "by an exit, as there is no ioeventfd"
    story.check(
        len(rings) == expected,
        f"It rang the doorbell twice, {how}.",
        f"found {len(rings)} exits at the doorbell, expected {expected}",
    )
    used = int.from_bytes(ram.memory.view(GuestAddr(at.USED_RING + 2), 2), "little")
    interrupts = int.from_bytes(ram.memory.view(GuestAddr(at.NOTES + 2), 2), "little")
    story.check(
        used == 2 and interrupts >= 1,
        f"The back-end put {used} chains into the used ring; the guest was interrupted {interrupts} times.",
        f"found used.idx {used} and {interrupts} interrupts, expected 2 and at least 1",
    )
    story.check(
        guest.printed == secret,
        f"It wrote a sector, read it into other pages, and printed how it begins: {secret.decode()}.",
        f"it printed {guest.printed!r}, expected {secret!r}",
    )
    story.facts["requests"] = {
        "doorbell_exits": len(rings),
        "used_idx": used,
        "interrupts": interrupts,
        "statuses": list(guest.statuses),
        "expected": secret.decode(),
        "printed": guest.printed.decode(errors="replace"),
    }


def show_dirty_log(guest: DemoGuest, story: Story) -> None:
    """Step 7: which pages of the shared RAM the guest wrote."""
    story.step("The dirty log of the shared RAM")
    pages = set(dirty_pages(guest.slots.dirty_log(0)))
    again = dirty_pages(guest.slots.dirty_log(0))
    expected = WRITTEN_PAGES if guest.engine == "kvm" else WRITTEN_PAGES - {at.VECTOR * 4 // PAGE}
    last = at.NOTES // PAGE
    missing = sorted(expected - pages)
    story.check(
        not missing and all(page <= last for page in pages),
        f"The guest wrote pages {_list(pages)}.",
        f"the log has pages {_list(pages)}, expected {_list(expected)}",
    )
    story.check(not again, "Read a second time it is empty.", f"read a second time it has pages {_list(set(again))}")
    where = at.READ_BACK // PAGE
    if where not in pages:  # KVM may count a page because the guest read it
        story.say(f"Page {where} is the back-end's work, which no slot sees: vhost-user has a log of its own for that.")
    story.facts["dirty_pages"] = sorted(pages)


def _list(pages: set[int]) -> str:
    return ", ".join(map(str, sorted(pages))) or "none"
