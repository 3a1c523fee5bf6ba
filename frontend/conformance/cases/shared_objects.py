"""Objects that back-ends share with each other, by name, through the front-end (B-OBJ)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.expect import equal
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.overheard import ALL, POLITE, overheard
from frontend.conformance.session import REPLY
from frontend.conformance.sharing import messages_of
from frontend.conformance.suite import case
from vhostuser.conformance import Level, Need, Skip, Verdict
from vhostuser.fd import Fds
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.wire.backend_messages import (
    BackendSharedObjectAdd,
    BackendSharedObjectLookup,
    BackendSharedObjectRemove,
)
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetSharedObject, ResetDevice
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from frontend.conformance.channel import BackendChannel
    from frontend.conformance.overheard import Overheard
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Answer, Session

OBJ = ProtocolFeature.SHARED_OBJECT
NOBODYS = bytes.fromhex("0f0e0d0c0b0a49088706050403020100")
"""A name that nobody has given to anything."""
OBJECT_BYTES = 4096
USE = "the device is used while somebody listens on the channel"

sharing = partial(case, needs=(OBJ, Need.CHANNEL), tags=("channel",))


async def fetched(session: Session, uuid: bytes) -> int:
    """GET_SHARED_OBJECT: how many descriptors came with the answer, whose payload the text leaves open."""
    await session.send(GetSharedObject(uuid))
    answer = await session.answer(GetSharedObject.spec.request)
    with answer.fds:
        equal("flags of the answer to GET_SHARED_OBJECT", hex(answer.flags), hex(REPLY))
        return len(answer.fds)


async def exported(heard: Overheard) -> list[bytes]:
    """Names of the objects that the back-end has, and that it has told of, while its device was used.

    Raises:
        Skip: there are none.
    """
    await heard.use()
    names = _there(heard.said)
    if not names:
        raise Skip("the back-end has exported no object, though its device was used")
    return names


def _there(said: list[Answer]) -> list[bytes]:
    names: dict[bytes, None] = {}
    for _, message in messages_of(said, BackendSharedObjectAdd, BackendSharedObjectRemove):
        match message:
            case BackendSharedObjectAdd(uuid):
                names[uuid] = None
            case BackendSharedObjectRemove(uuid):
                names.pop(uuid, None)
    return list(names)


@sharing(
    "B-OBJ-01",
    level=Level.MUST,
    section="msg GET_SHARED_OBJECT",
    title="An object that was exported can be fetched",
    provoke=f"{USE}; GET_SHARED_OBJECT for each object that it told of",
    passes="one descriptor comes with the answer",
)
async def fetch(peer: Peer) -> None:
    """The front-end only knows who has it, and asks on behalf of another back-end."""
    async with overheard(peer) as heard:
        for uuid in await exported(heard):
            equal(f"descriptors of object {uuid.hex()}", await fetched(heard.device.session, uuid), 1)


@sharing(
    "B-OBJ-02",
    level=Level.MUST,
    section="msg GET_SHARED_OBJECT",
    title="An object that nobody knows is answered without a descriptor",
    provoke="GET_SHARED_OBJECT with a name made up",
    passes="an answer, and no descriptor",
    needs=(OBJ,),
    tags=(),
)
async def unknown(peer: Peer) -> None:
    """The other back-end waits for the answer, so there has to be one."""
    session = await peer.negotiated(protocol=ALL)
    equal("descriptors of an object that there is not", await fetched(session, NOBODYS), 0)
    await session.in_sync()


@sharing(
    "B-OBJ-03",
    level=Level.MUST,
    section="msg BACKEND_SHARED_OBJECT_ADD",
    title="SHARED_OBJECT_ADD carries a name of 16 bytes",
    provoke=USE,
    passes="16 bytes",
)
async def add(peer: Peer) -> None:
    """A name is a UUID and nothing else."""
    async with overheard(peer) as heard:
        await exported(heard)
        for request, _ in messages_of(heard.said, BackendSharedObjectAdd):
            equal("bytes in SHARED_OBJECT_ADD", len(request.payload), BackendSharedObjectAdd.wire_size())


@sharing(
    "B-OBJ-04",
    level=Level.MUST,
    section="msg BACKEND_SHARED_OBJECT_LOOKUP",
    title="An object that was looked up and found is used",
    provoke=f"{USE}; SHARED_OBJECT_LOOKUP is answered with 0 and a descriptor for {OBJECT_BYTES} bytes of memory",
    passes="it goes on, in sync, and does not keep the descriptor for ever; what it does with it cannot be seen",
)
async def found(peer: Peer) -> None:
    """The answer says whether there is a descriptor; who does not take it along leaves it open for ever."""
    with MemoryBackendShm(size=OBJECT_BYTES).allocate() as block:

        async def react(channel: BackendChannel, request: Answer) -> None:
            if request.request == BackendSharedObjectLookup.spec.request:
                fds = Fds.of(block.fd.duplicate())
                await channel.send_raw(request.request, U64(0).build(), flags=REPLY, fds=fds)
            else:
                await POLITE(channel, request)

        async with overheard(peer, react=react) as heard:
            await _looked_up(heard)
            await heard.device.session.in_sync()
    await peer.alive()


@sharing(
    "B-OBJ-05",
    level=Level.MUST,
    section="msg BACKEND_SHARED_OBJECT_LOOKUP",
    title="An object that was looked up and not found does no harm",
    provoke=f"{USE}; SHARED_OBJECT_LOOKUP is answered with 1 and no descriptor",
    passes="it lives, and answers on the main channel",
)
async def not_found(peer: Peer) -> None:
    """Back-ends start and end when they like; what one of them wants, another may not have yet."""
    async with overheard(peer) as heard:
        await _looked_up(heard)
        await heard.device.session.in_sync()
    await peer.alive()


async def _looked_up(heard: Overheard) -> None:
    await heard.use()
    if not any(messages_of(heard.said, BackendSharedObjectLookup)):
        raise Skip("the back-end has looked up no object, though its device was used")


@sharing(
    "B-OBJ-06",
    level=Level.ROBUSTNESS,
    section="msg BACKEND_SHARED_OBJECT_REMOVE",
    title="An object that goes away is taken off the list before",
    provoke=f"{USE}; RESET_DEVICE, if it is offered; then each object is fetched that it told of and did not remove",
    passes="it is still there; if not, that is told: whether a reset alone takes objects away the text does not say",
)
async def remove(peer: Peer) -> Verdict | None:
    """Otherwise another back-end is promised something that is not there any more."""
    async with overheard(peer, protocol=ALL | ProtocolFeature.RESET_DEVICE) as heard:
        await exported(heard)
        session = heard.device.session
        if session.protocol & ProtocolFeature.RESET_DEVICE:
            await session.tell(ResetDevice())
            await session.in_sync()
        lost = [uuid.hex() for uuid in _there(heard.said) if not await fetched(session, uuid)]
    if lost:
        peer.note(f"gone without SHARED_OBJECT_REMOVE: {', '.join(lost)}")
        return Verdict.WARN
    return None


@sharing(
    "B-OBJ-07",
    level=Level.ROBUSTNESS,
    section="msg GET_SHARED_OBJECT",
    title="GET_SHARED_OBJECT without a name",
    provoke="GET_SHARED_OBJECT with no payload, as QEMU 10.2 sends it",
    passes="answered without a descriptor, refused, closed or ignored, and the back-end lives",
    needs=(OBJ,),
    tags=("hostile",),
)
async def without_name(peer: Peer) -> Verdict | None:
    """Sixteen bytes that did not come are sixteen bytes of whatever was there before."""
    return await survives_each(peer, Raw(GetSharedObject.spec.request), protocol=ALL)
