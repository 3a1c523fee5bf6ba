"""Sessions of crypto devices, made by messages, and requests that use them.

The document does not describe the payload of CREATE_CRYPTO_SESSION.  This is the one that QEMU has on 64-bit systems;
DPDK's is the same as far as symmetric ciphers go, and shorter.  So what a back-end thinks of it says little.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic
from frontend.conformance.model import Request, no_more_than
from frontend.conformance.session import DEFAULT_PROTOCOL
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import CreateCryptoSession
from vhostuser.wire.records import CryptoSession

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session
    from frontend.guest.memory import Buffer

PROTOCOL = DEFAULT_PROTOCOL | ProtocolFeature.CRYPTO_SESSION
CREATE_CIPHER_SESSION, ENCRYPT = 0x02, 0x00
"""Operations of the cipher service (V 5.9.7)."""
AES_CBC, NO_SUCH_CIPHER = 3, 0xFFFF
CIPHER, TO_ENCRYPT = 1, 1
OK = 0
KEY = bytes(range(16))
_SETUP = struct.Struct("=6I4B4x16x")
"""Cipher, key length, hash, hash length, authentication key length, additional length; operation, direction, hash mode,
order; two pointers, which mean nothing to anybody else."""
_OPERATION = struct.Struct("<IIQII")
_CIPHER = struct.Struct("<IIII24xII")
_PARAMETERS = 1056
BLOCK = 16


def session_of(cipher: int = AES_CBC) -> CreateCryptoSession:
    """CREATE_CRYPTO_SESSION for AES-128-CBC, or another cipher with a key of that length."""
    setup = _SETUP.pack(cipher, len(KEY), 0, 0, 0, 0, CIPHER, TO_ENCRYPT, 0, 0)
    parameters = (setup + KEY).ljust(_PARAMETERS, b"\0")
    return CreateCryptoSession(CryptoSession(CREATE_CIPHER_SESSION, parameters, 0).build())


async def with_sessions(peer: Peer) -> Session:
    """A new connection that may make crypto sessions."""
    return await peer.negotiated(basic(peer), PROTOCOL)


async def create(session: Session, cipher: int = AES_CBC) -> int:
    """CREATE_CRYPTO_SESSION; the id, negative when it failed."""
    return (await session.ask(session_of(cipher), CryptoSession)).session_id


def encryption(memory: SharedMemory, session_id: int) -> tuple[Request, Buffer]:
    """A request to encrypt one block in a session, and where its status will be: `OK` or not."""
    operation = _OPERATION.pack(ENCRYPT, AES_CBC, session_id, 0, 0)
    cipher = _CIPHER.pack(BLOCK, BLOCK, BLOCK, 0, CIPHER, 0)
    readable = [memory.buffer(operation + cipher), memory.buffer(bytes(BLOCK)), memory.buffer(bytes(BLOCK))]
    result, status = memory.buffer(BLOCK), memory.buffer(b"\xff")
    return Request(readable, [result, status], lambda used: no_more_than(BLOCK + 1, used)), status
