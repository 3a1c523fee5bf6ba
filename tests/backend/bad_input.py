"""Everything a front-end can say that it should not: what it says, in which state, and what the log has to say then.

The table is used twice: in this process, where the log can be read, and against a back-end process, whose
descriptors and mappings are counted.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.backend.scripted import QUEUE_SIZE, RAM_SIZE, address, raw
from tests.kinds import event
from tests.memory.files import shared_file
from vhostuser.fd import Fd
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.records import ConfigFlags, MemoryRegion, VringAddrFlags
from vhostuser.wire.requests import FrontendRequest as R

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.backend.scripted import Script
    from vhostuser.protocol import Frame
    from vhostuser.wire.catalog import Message

PAGE = 4096
NUM_QUEUES = 2
GUEST, USER = 0x10_0000, 0x7F00_0000_0000
TOP = 1 << 64


# --- states ------------------------------------------------------------------------------------------------------


async def connected(script: Script) -> None:
    """Nothing has been said."""


async def negotiated(script: Script) -> None:
    await script.negotiate()


async def with_memory(script: Script) -> None:
    await script.negotiate()
    await script.share_memory()


async def configured(script: Script) -> None:
    await with_memory(script)
    await script.configure(script.make_queue())


async def running(script: Script) -> None:
    await script.ready()


# --- descriptors -----------------------------------------------------------------------------------------------------


def file(size: int = PAGE) -> Fd:
    return shared_file(size)


def null() -> Fd:
    return Fd(os.open(os.devnull, os.O_RDWR))


def read_only() -> Fd:
    with file() as fd:
        return Fd(os.open(f"/proc/self/fd/{fd.fileno()}", os.O_RDONLY))


def pipe_end(which: int) -> Fd:
    ends = [Fd(end) for end in os.pipe()]
    ends.pop(1 - which).close()
    return ends[0]


def loose_socket(kind: socket.SocketKind = socket.SOCK_STREAM) -> Fd:
    return Fd(socket.socket(socket.AF_UNIX, kind).detach())


# --- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """One thing that a front-end should not say.

    Attributes:
        name: of the case.
        state: brings the connection there.
        say: makes the message; it has need_reply if it is told so.
        log: what the log must contain: what was found, what was expected, and where that is written.
        answered: it is refused with an answer, if one is asked for; if not, hanging up is the only answer.
        refusable: it is refused with an answer whether or not one is asked for.
    """

    name: str
    state: Callable[[Script], Awaitable[None]]
    say: Callable[[Script, bool], Frame]
    log: str
    answered: bool = True
    refusable: bool = False

    def __str__(self) -> str:
        return self.name


def bad(
    name: str,
    state: Callable[[Script], Awaitable[None]],
    request: int,
    payload: bytes | Callable[[Script], bytes],
    *fds: Callable[[], Fd],
    log: str,
    answered: bool = True,
    refusable: bool = False,
    flags: int = 1,
    size: int | None = None,
) -> Bad:
    def say(script: Script, ack: bool) -> Frame:
        data = payload(script) if callable(payload) else payload
        return raw(request, data, *(make() for make in fds), ack=ack, flags=flags, size=size)

    return Bad(name, state, say, log, answered, refusable)


def table(*regions: tuple[int, int, int, int], count: int | None = None) -> bytes:
    """A SET_MEM_TABLE payload: guest address, size, user address, offset of each."""
    number = len(regions) if count is None else count
    return struct.pack("=II", number, 0) + b"".join(struct.pack("=4Q", *region) for region in regions)


def built(message: Message) -> bytes:
    return message.build()


def _framing() -> list[Bad]:
    found = r"found request {}, expected one that a front-?end sends \[Header\]"
    version = r"of version {}, expected version 1 \[Header\]"
    return [
        *(
            bad(f"request {number}", negotiated, number, b"", log=found.format(number))
            for number in (0, 99, 0xFFFFFFFF)
        ),
        *(
            bad(f"version {v}", negotiated, R.SET_OWNER, b"", log=version.format(v), answered=False, flags=v)
            for v in (0, 2, 3)
        ),
        bad(
            "a reply instead of a request", negotiated, R.SET_OWNER, b"", flags=5, answered=False,
            log=r"found request 3 marked as a reply, expected a request.*\[Header\]",
        ),
        *(
            bad(
                f"a payload of {size} bytes", negotiated, R.SET_FEATURES, bytes(8), size=size, answered=False,
                log=rf"announces a payload of {size} bytes, limit 4096 \[Header\]",
            )
            for size in (4097, 0xFFFFFFFF)
        ),
        bad("too short a payload", negotiated, R.SET_VRING_ADDR, bytes(8), log="SET_VRING_ADDR: .*8 bytes are too few"),
        bad("no payload", negotiated, R.SET_FEATURES, b"", log=r"SET_FEATURES: .*8.*\["),
        bad("too long a payload", negotiated, R.SET_FEATURES, bytes(16), log=r"SET_FEATURES: .*8.*\["),
        bad("a payload where there is none", negotiated, R.SET_OWNER, bytes(8), log=r"SET_OWNER: .*\["),
    ]  # fmt: skip


def _descriptors() -> list[Bad]:
    def one_region(_: Script) -> bytes:
        return table((GUEST, PAGE, USER, 0))

    two = table((GUEST, PAGE, USER, 0), (GUEST + PAGE, PAGE, USER + PAGE, 0))
    counted = r"{}: found {} file descriptors, expected exactly {} \["
    return [
        bad("a descriptor nobody expects", negotiated, R.SET_OWNER, b"", null, log=counted.format("SET_OWNER", 1, 0)),
        bad(
            "a descriptor with a question", connected, R.GET_FEATURES, b"", null, answered=False,
            log=counted.format("GET_FEATURES", 1, 0),
        ),
        bad("a region without a descriptor", negotiated, R.SET_MEM_TABLE, one_region,
            log=counted.format("SET_MEM_TABLE", 0, 1)),
        bad("fewer descriptors than regions", negotiated, R.SET_MEM_TABLE, two, file,
            log=counted.format("SET_MEM_TABLE", 1, 2)),
        bad("more descriptors than regions", negotiated, R.SET_MEM_TABLE, one_region, file, file, null,
            log=counted.format("SET_MEM_TABLE", 3, 1)),
        bad("more descriptors than any message has", negotiated, R.SET_MEM_TABLE, one_region, *[null] * 33,
            answered=False, log=r"found 33 file descriptors with one message, limit 32 \[|MSG_CTRUNC.*limit 32"),
        bad("a kick without its descriptor", configured, R.SET_VRING_KICK, built(f.SetVringKick.of(0)),
            log=counted.format("SET_VRING_KICK", 0, 1)),
        bad("a polled kick with a descriptor", configured, R.SET_VRING_KICK, built(f.SetVringKick.of(0, no_fd=True)),
            null, log=counted.format("SET_VRING_KICK", 1, 0)),
        bad("two kicks", configured, R.SET_VRING_KICK, built(f.SetVringKick.of(0)), null, null,
            log=counted.format("SET_VRING_KICK", 2, 1)),
        bad("no backend channel", negotiated, R.SET_BACKEND_REQ_FD, b"",
            log=counted.format("SET_BACKEND_REQ_FD", 0, 1)),
        bad("a file for a backend channel", negotiated, R.SET_BACKEND_REQ_FD, b"", null,
            log=r"SET_BACKEND_REQ_FD: .*\["),
        bad("a backend channel to nobody", negotiated, R.SET_BACKEND_REQ_FD, b"", loose_socket,
            log=r"SET_BACKEND_REQ_FD: .*\["),
        *(
            bad(f"{request.name} with {name}", configured, request, built(f.SetVringKick.of(0)), make,
                log=rf"{request.name}: found {found}.*expected an eventfd or a pipe.*\[")
            for request, name, make, found in (
                (R.SET_VRING_KICK, "a file", file, "a file of another type"),
                (R.SET_VRING_KICK, "a device", null, "a file of another type"),
                (R.SET_VRING_KICK, "the wrong end of a pipe", lambda: pipe_end(1), "an end .* other direction"),
                (R.SET_VRING_CALL, "a file", file, "a file of another type"),
                (R.SET_VRING_CALL, "the wrong end of a pipe", lambda: pipe_end(0), "an end .* other direction"),
                (R.SET_VRING_ERR, "a file", file, "a file of another type"),
            )
        ),
    ]  # fmt: skip


def _regions() -> list[Bad]:
    def one(name: str, region: tuple[int, int, int, int], make: Callable[[], Fd], log: str) -> Bad:
        return bad(name, negotiated, R.SET_MEM_TABLE, table(region), make, log=rf"SET_MEM_TABLE: .*{log}.*\[")

    def pair(name: str, other: tuple[int, int, int, int], log: str) -> Bad:
        both = table((GUEST, 2 * PAGE, USER, 0), other)
        return bad(name, negotiated, R.SET_MEM_TABLE, both, two_pages, two_pages, log=rf"SET_MEM_TABLE: .*{log}.*\[")

    def two_pages() -> Fd:
        return file(2 * PAGE)

    add = struct.pack("=Q", 0)
    return [
        one("a region larger than its file", (GUEST, 2 * PAGE, USER, 0), file, "needs a file of 0x2000 bytes.*0x1000"),
        one("a region that ends behind its file", (GUEST, PAGE, USER, PAGE), file, "needs a file of 0x2000 bytes"),
        one("an empty file", (GUEST, PAGE, USER, 0), lambda: file(0), "needs a file of 0x1000 bytes, its fd has 0x0"),
        one("a huge region", (GUEST, 1 << 60, USER, 0), file, "limit|needs a file"),
        one("an empty region", (GUEST, 0, USER, 0), file, "expected at least one byte"),
        one("guest addresses that wrap", (TOP - PAGE, 2 * PAGE, USER, 0), two_pages, "guest addresses.* 64 bits"),
        one("user addresses that wrap", (GUEST, 2 * PAGE, TOP - PAGE, 0), two_pages, "user addresses.* 64 bits"),
        one("an offset that wraps", (GUEST, 2 * PAGE, USER, TOP - PAGE), two_pages, "mmap offset .* 64 bits"),
        one("read-only memory", (GUEST, PAGE, USER, 0), read_only, "cannot map it"),
        one("a pipe as memory", (GUEST, PAGE, USER, 0), lambda: pipe_end(0), "needs a file"),
        one("a socket as memory", (GUEST, PAGE, USER, 0), loose_socket, "needs a file"),
        pair("regions that overlap for the guest", (GUEST + PAGE, PAGE, USER + (1 << 30), 0), "overlap in guest addr"),
        pair("regions that overlap for the front-end", (GUEST + (1 << 30), PAGE, USER + PAGE, 0), "overlap in user"),
        bad("nine regions", negotiated, R.SET_MEM_TABLE,
            table(*((GUEST + PAGE * n, PAGE, USER + PAGE * n, 0) for n in range(9))), *[file] * 9,
            log=r"SET_MEM_TABLE: found 9 (regions|file descriptors), expected .*8"),
        bad("more regions than the payload has", negotiated, R.SET_MEM_TABLE,
            table((GUEST, PAGE, USER, 0), count=0x7FFFFFFF), file, log=r"SET_MEM_TABLE: .*\["),
        bad("one region twice", with_memory, R.ADD_MEM_REG,
            lambda script: add + script.ram.regions[0].build(), lambda: file(RAM_SIZE), log="ADD_MEM_REG: .*overlap"),
        bad("one region more that its file does not hold", with_memory, R.ADD_MEM_REG,
            add + MemoryRegion(1 << 40, 2 * PAGE, 1 << 40, 0).build(), file, log="ADD_MEM_REG: .*needs a file"),
        bad("a region that is not there", with_memory, R.REM_MEM_REG,
            add + MemoryRegion(1 << 40, PAGE, 1 << 40, 0).build(),
            log=r"REM_MEM_REG: found region .*, expected one of the regions added before"),
    ]  # fmt: skip


def _ring_indices() -> list[Bad]:
    cases = []
    state = (R.SET_VRING_NUM, R.SET_VRING_BASE, R.SET_VRING_ENABLE, R.GET_VRING_BASE, R.SET_VRING_ADDR)
    for request in state:
        for index in (NUM_QUEUES, 256, 65536, 65537, 0xFFFFFFFF):
            rest = bytes(36) if request is R.SET_VRING_ADDR else struct.pack("=I", 1)
            log = rf"{request.name}: found ring index {index}, expected less than {NUM_QUEUES}"
            answered = request is not R.GET_VRING_BASE
            payload = struct.pack("=I", index) + rest
            cases.append(bad(f"{request.name} {index}", negotiated, request, payload, log=log, answered=answered))
    for request in (R.SET_VRING_KICK, R.SET_VRING_CALL, R.SET_VRING_ERR):
        for value, log in (
            (NUM_QUEUES, f"found ring index {NUM_QUEUES}, expected less than {NUM_QUEUES}"),
            (255, "found ring index 255, expected less than"),
            (65536, "found 0x10000, expected a ring index in bits 0-7"),
            (0xFFFFFFFFFFFF0000, "found 0xffffffffffff0000, expected a ring index in bits 0-7"),
        ):
            payload = struct.pack("=Q", value)
            cases.append(bad(f"{request.name} {value:#x}", configured, request, payload, null, log=log))
    return cases


def _rings() -> list[Bad]:
    def num(size: int) -> Bad:
        log = rf"SET_VRING_NUM: found ring 0 with {size} entries, expected a power of two from 1 to 32768 \["
        return bad(f"{size} entries", negotiated, R.SET_VRING_NUM, struct.pack("=II", 0, size), log=log)

    def misplaced(name: str, **offsets: int) -> Bad:
        def payload(script: Script) -> bytes:
            addr = address(script.queues[0])
            moved = {part: getattr(addr, part) + offset for part, offset in offsets.items()}
            fields = {"descriptor": addr.descriptor, "used": addr.used, "available": addr.available, **moved}
            return f.SetVringAddr(0, VringAddrFlags(0), log=0, **fields).build()

        log = r"SET_VRING_ADDR: found ring 0: .* at 0x[0-9a-f]+, expected a multiple of \d+ \["
        return bad(f"misaligned {name}", configured, R.SET_VRING_ADDR, payload, log=log)

    return [
        *(num(size) for size in (0, 3, 300, 32769, 65536, 65538, 0xFFFFFFFF)),
        misplaced("descriptor table", descriptor=8),
        misplaced("available ring", available=1),
        misplaced("used ring", used=2),
        bad("a base of 17 bits", negotiated, R.SET_VRING_BASE, struct.pack("=II", 0, 0x10000),
            log=r"SET_VRING_BASE: found ring 0: base 0x10000, expected 16 bits"),
        bad("another size while running", running, R.SET_VRING_NUM, struct.pack("=II", 0, 2 * QUEUE_SIZE),
            log="SET_VRING_NUM: found ring 0 running, expected it to be stopped by GET_VRING_BASE first"),
        bad("another base while running", running, R.SET_VRING_BASE, struct.pack("=II", 0, 5),
            log="SET_VRING_BASE: found ring 0 running, expected it to be stopped by GET_VRING_BASE first"),
        bad("half enabled", configured, R.SET_VRING_ENABLE, struct.pack("=II", 0, 2),
            log="SET_VRING_ENABLE: found ring 0: value 2, expected 0 or 1"),
    ]  # fmt: skip


def _starts() -> list[Bad]:
    def kick(name: str, state: Callable[[Script], Awaitable[None]], log: str) -> Bad:
        return bad(name, state, R.SET_VRING_KICK, built(f.SetVringKick.of(0)), event, log=rf"SET_VRING_KICK: {log}")

    async def without_addresses(script: Script) -> None:
        await with_memory(script)
        await script.ask(f.SetVringNum(0, QUEUE_SIZE))

    async def without_size(script: Script) -> None:
        await with_memory(script)
        await script.ask(address(script.make_queue()))

    async def without_memory(script: Script) -> None:
        await script.negotiate()
        await script.configure(script.make_queue())

    def elsewhere(**parts: Callable[[Script], int]) -> Callable[[Script], Awaitable[None]]:
        async def state(script: Script) -> None:
            await configured(script)
            addr = address(script.queues[0])
            fields = {"descriptor": addr.descriptor, "used": addr.used, "available": addr.available}
            fields |= {name: place(script) for name, place in parts.items()}
            await script.ask(f.SetVringAddr(0, VringAddrFlags(0), log=0, **fields))

        return state

    def end(script: Script) -> int:
        region = script.ram.regions[0]
        return region.user_addr + region.size

    outside = r"found ring 0: {} at user address .*, outside memory, expected it to lie in one memory region \["
    return [
        kick("a kick before the addresses", without_addresses, "found ring 0 without addresses, expected SET_VRING"),
        kick("a kick before the size", without_size, "found ring 0 without a size, expected SET_VRING_NUM"),
        kick("a kick before the memory", without_memory, "found ring 0 without memory, expected a memory table"),
        kick("a descriptor table outside memory", elsewhere(descriptor=end), outside.format("descriptor table")),
        kick("an available ring outside memory", elsewhere(available=end), outside.format("available ring")),
        kick("a used ring outside memory", elsewhere(used=end), outside.format("used ring")),
        kick("a ring that ends outside memory", elsewhere(descriptor=lambda script: end(script) - 16),
             outside.format("descriptor table")),
        kick("a ring that is nowhere", elsewhere(available=lambda _: 0), outside.format("available ring")),
        kick("a guest address for a user address", elsewhere(used=lambda script: script.ram.regions[0].guest_addr),
             outside.format("used ring")),
        kick("a ring at the end of the address space", elsewhere(used=lambda _: TOP - 4), outside.format("used ring")),
    ]  # fmt: skip


def _the_rest() -> list[Bad]:
    return [
        bad("a feature never offered", negotiated, R.SET_FEATURES, struct.pack("=Q", 1 << 34),
            log=r"SET_FEATURES: found RING_PACKED, never offered, expected a subset of 0x"),
        bad("a protocol feature never offered", negotiated, R.SET_PROTOCOL_FEATURES, struct.pack("=Q", 1 << 40),
            answered=False, log=r"SET_PROTOCOL_FEATURES: found .*, never offered, expected a subset of 0x"),
        bad("a message whose feature was not negotiated", negotiated, R.NET_SET_MTU, struct.pack("=Q", 1500),
            log=r"NET_SET_MTU: found MTU not negotiated, expected to be negotiated first \["),
        bad("a message that nobody here carries out", negotiated, R.SET_LOG_BASE, struct.pack("=QQ", PAGE, 0), file,
            log=r"SET_LOG_BASE"),
        bad("a device status of nine bits", negotiated, R.SET_STATUS, struct.pack("=Q", 0x100),
            log="SET_STATUS: found device status 0x100, expected 8 bits"),
        bad("writing configuration space", negotiated, R.SET_CONFIG,
            built(f.SetConfig(32, 1, ConfigFlags(0), b"\1")), log=r"SET_CONFIG: .*read-only.*\["),
        bad("no configuration space", negotiated, R.GET_CONFIG, struct.pack("=III", 0, 0, 0), refusable=True,
            log="GET_CONFIG: found a size of 0 bytes, expected 1 to 256"),
        bad("configuration space behind its end", negotiated, R.GET_CONFIG, struct.pack("=III", 255, 2, 0) + bytes(2),
            refusable=True, log="GET_CONFIG: found bytes 255 to 257, expected an end of at most 256"),
        bad("configuration space that wraps", negotiated, R.GET_CONFIG,
            struct.pack("=III", 0xFFFFFFFF, 2, 0) + bytes(2), refusable=True, log="GET_CONFIG: found bytes 4294967295"),
        bad("a question about configuration with too few bytes", negotiated, R.GET_CONFIG,
            struct.pack("=III", 0, 57, 0), refusable=True, log=r"GET_CONFIG: .*\["),
    ]  # fmt: skip


CASES = [*_framing(), *_descriptors(), *_regions(), *_ring_indices(), *_rings(), *_starts(), *_the_rest()]


def says(case: Bad, log: str) -> bool:
    """Whether ``log`` has what ``case`` demands."""
    return re.search(case.log, log) is not None
