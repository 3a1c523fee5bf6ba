"""Sessions of crypto devices (B-CRY)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import bring_up
from frontend.conformance.crypto import NO_SUCH_CIPHER, OK, PROTOCOL, create, encryption, with_sessions
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Skip, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import CloseCryptoSession

if TYPE_CHECKING:
    from frontend.conformance.peer import Device, Peer

UNKNOWN = 99

crypto_case = partial(case, level=Level.MUST, needs=(ProtocolFeature.CRYPTO_SESSION,), tags=("crypto",))


@crypto_case(
    "B-CRY-01",
    section="msg CREATE_CRYPTO_SESSION",
    title="A crypto session has an id",
    provoke="CREATE_CRYPTO_SESSION for AES-128-CBC, with QEMU's payload",
    passes="an id that is not negative; a refusal is told, since the text does not describe the payload",
)
async def made(peer: Peer) -> Verdict | None:
    """The driver names its session by it in every request."""
    session = await with_sessions(peer)
    try:
        found = await create(session)
        await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    if found >= 0:
        return None
    peer.note(
        f"CREATE_CRYPTO_SESSION: found id {found}, expected 0 or more, if AES-128-CBC and QEMU's payload are known"
    )
    return Verdict.WARN


@crypto_case(
    "B-CRY-02",
    section="msg CREATE_CRYPTO_SESSION",
    title="A crypto session that cannot be has a negative id",
    provoke=f"CREATE_CRYPTO_SESSION for cipher {NO_SUCH_CIPHER:#x}",
    passes="a negative id, or closed",
)
async def refused(peer: Peer) -> Verdict | None:
    """There is no other way to tell the driver that it has no session."""
    session = await with_sessions(peer)
    try:
        found = await create(session, NO_SUCH_CIPHER)
        await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    if found >= 0:
        raise Failure(
            f"CREATE_CRYPTO_SESSION for cipher {NO_SUCH_CIPHER:#x}: found id {found}, expected a negative one"
        )
    return None


@crypto_case(
    "B-CRY-03",
    section="msg CLOSE_CRYPTO_SESSION",
    title="A crypto session that was closed is not used any more",
    provoke="a request to encrypt a block in a session; CLOSE_CRYPTO_SESSION; the same request again",
    passes="the second request comes back with an error",
)
async def closed(peer: Peer) -> None:
    """The key is gone, or should be."""
    session = await with_sessions(peer)
    session_id = await create(session)
    if session_id < 0:
        raise Skip(f"CREATE_CRYPTO_SESSION was answered with id {session_id}, see B-CRY-01")
    device = await bring_up(peer, session, peer.memory())
    if status := await _encrypt(device, session_id):
        raise Skip(f"a request in an open session came back with status {status}: there is nothing to compare with")
    await session.tell(CloseCryptoSession(session_id))
    if await _encrypt(device, session_id) == OK:
        raise Failure(f"a request in session {session_id}, which is closed: found status {OK}, expected an error")


async def _encrypt(device: Device, session_id: int) -> int:
    request, status = encryption(device.memory, session_id)
    await device.ring.do(request, kick=True)
    return status.view[0]


@crypto_case(
    "B-CRY-04",
    level=Level.ROBUSTNESS,
    section="msg CLOSE_CRYPTO_SESSION",
    title="Closing a crypto session that there is not is survived",
    provoke=f"CLOSE_CRYPTO_SESSION {UNKNOWN} and one with all bits set",
    passes="refused, ignored or closed; the program lives",
    tags=("crypto", "hostile"),
)
async def unknown(peer: Peer) -> Verdict | None:
    """The number is an index into somebody's table."""
    numbers = (UNKNOWN, (1 << 64) - 1)
    return await survives_each(peer, *(Raw.of(CloseCryptoSession(each)) for each in numbers), protocol=PROTOCOL)
