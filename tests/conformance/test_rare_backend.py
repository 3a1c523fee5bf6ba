"""Dirty log, IOMMU, notifications in messages: cases run on the only back-end here that has all of them."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from frontend.conformance.profile import Profile
from frontend.conformance.stage import BackendStage
from frontend.conformance.suite import load
from frontend.conformance.targets import SocketTarget
from tests.conformance.backends import faults
from tests.conformance.backends.rare import FEATURES, PROTOCOL_FEATURES, Backend, serve
from tests.conformance.backends.rare_memory import BadEntry
from tests.conformance.runs import runner
from vhostuser.conformance.runner import Options
from vhostuser.conformance.selection import Selection
from vhostuser.conformance.verdict import Verdict
from vhostuser.wire.frontend_messages import XenSetMemTable
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vhostuser.conformance import Result
    from vhostuser.fd import Fds
    from vhostuser.protocol.framing import Frame
    from vhostuser.wire.catalog import Message

pytestmark = pytest.mark.timeout(60)
GOOD = {Verdict.PASS, Verdict.REJECT}
FAULTS = faults.load()
PROFILE = Profile(features=FEATURES, protocol=PROTOCOL_FEATURES, device_type=DeviceType.RNG)


@contextmanager
def listening(path: Path, backend: type[Backend]) -> Iterator[None]:
    """A back-end on a thread of this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener, backend))
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def run(path: Path, backend: type[Backend], *patterns: str, patience: float) -> list[Result]:
    """The results of these cases; ``patience`` is what an answer may take."""
    results: list[Result] = []
    with listening(path, backend):
        subject = SocketTarget(str(path))
        stage = BackendStage(subject, PROFILE, patience=patience)
        await runner(subject, stage, Options(seconds=60.0)).run(Selection(patterns=patterns).turns(load()), results)
    return results


def described(results: list[Result]) -> str:
    """For a test that fails."""
    return "\n".join(f"{each.name} {each.verdict.value}: {each.reason}" for each in results)


@pytest.mark.parametrize("group", ["LOG", "IOM", "INB"])
async def test_the_rare_back_end_passes_all_of_a_group(tmp_path: Path, group: str) -> None:
    results = await run(tmp_path / "s", Backend, f"B-{group}-*", patience=20.0)
    unexpected = [each for each in results if each.verdict not in GOOD]
    assert not unexpected, described(unexpected)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_seen(tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    results = await run(tmp_path / "s", fault.backend, *fault.seen_by, patience=0.5)
    assert len(results) == len(fault.seen_by)
    blind = [each for each in results if each.verdict in {*GOOD, Verdict.SKIP, Verdict.UNSUPPORTED, Verdict.ERROR}]
    assert not blind, f"{fault.sentence}:\n{described(blind)}"


class NoXen(Backend):
    """It knows how to read Xen's regions, and has no Xen to map them with."""

    def act(self, message: Message, fds: Fds) -> Frame | None:
        """Refuse them."""
        if isinstance(message, XenSetMemTable):
            raise BadEntry("no such hypervisor")
        return super().act(message, fds)


async def test_without_xen_nothing_is_said_of_who_cannot_map_its_memory(tmp_path: Path) -> None:
    (result,) = await run(tmp_path / "s", NoXen, "B-XEN-01", patience=20.0)
    assert result.verdict is Verdict.UNSUPPORTED
    assert "this is no Xen host" in result.reason
