"""The front-end's part of a run: what a back-end has to offer for a case, and what the case is given."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frontend.conformance.log import Recorder
from frontend.conformance.peer import Peer
from frontend.conformance.session import Closed, Session
from vhostuser.conformance import Failure, Need, Wedged
from vhostuser.wire.features import ProtocolFeature, VirtioFeature, names
from vhostuser.wire.frontend_messages import GetFeatures

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from frontend.conformance.profile import Profile
    from vhostuser.conformance import Case, Exchange
    from vhostuser.conformance.case import Requirement
    from vhostuser.conformance.target import Subject

__all__ = ["BackendStage"]


@dataclass
class _Scene:
    peer: Peer
    recorder: Recorder

    def notes(self) -> list[str]:
        return list(self.peer.notes)

    def log(self) -> list[Exchange]:
        return self.recorder.finish()


class BackendStage:
    """Plays the front-end against ``subject``.

    Args:
        subject: the back-end.
        profile: what it offers; None when it could not be asked beforehand.
        patience: seconds to wait for an answer.
    """

    def __init__(self, subject: Subject, profile: Profile, *, patience: float = 2.0) -> None:
        self._subject, self._profile, self._patience = subject, profile, patience

    def missing(self, case: Case, variant: str) -> list[str]:
        """Names of the bits that the case needs and the back-end does not offer."""
        needs: list[Requirement] = [*case.needs, *([VirtioFeature.RING_PACKED] if variant == "packed" else [])]
        return [word for need in needs for word in self._missing(need)]

    def _missing(self, need: Requirement) -> list[str]:
        match need:
            case VirtioFeature():
                return names(need & ~self._profile.features, VirtioFeature)
            case ProtocolFeature():
                return names(need & ~self._profile.protocol, ProtocolFeature)
        return [] if self._has(need) else [need.value]

    def _has(self, need: Need) -> bool:
        match need:
            case Need.CHANNEL:
                return self._profile.offers(ProtocolFeature.BACKEND_REQ)
            case Need.PROGRAM:
                return self._subject.ours
            case Need.CONVENTIONS:
                return any(word.partition("=")[0] in ("--socket-path", "--fd") for word in self._subject.command)
            case Need.OUR_PROCESS:
                return self._subject.pid is None or self._subject.vitals() is not None
            case Need.TWO_QUEUES:
                return self._profile.queues > 1
        return True

    @asynccontextmanager
    async def scene(self, case: Case, variant: str) -> AsyncIterator[_Scene]:
        """A `Peer` for one case."""
        recorder = Recorder()
        peer = Peer(self._subject, self._profile, recorder, variant=variant, patience=self._patience)
        try:
            yield _Scene(peer, recorder)
        except* Closed as group:
            raise Failure(str(group.exceptions[0])) from group
        finally:
            peer.close()

    async def answers(self, sock: socket.socket) -> None:
        """Something comes back for GET_FEATURES on ``sock``: whether it is right is for cases to say."""
        with Session(sock, Recorder(), patience=self._patience) as session:
            try:
                await session.send(GetFeatures())
                (await session.receive()).fds.close()
            except Closed as error:
                raise Failure(str(error)) from None
            except Wedged:
                raise
            except Failure:
                pass  # no message; but it is there
