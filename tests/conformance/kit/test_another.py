"""The program under test with other arguments: what it says, whether it serves, and that it is gone afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from frontend.conformance.another import another, ran, serves, started
from frontend.conformance.cases.program_descriptor import wrong_with
from frontend.conformance.cases.program_options import capabilities
from tests.conformance.kit.test_series import peer_for
from vhostuser.conformance import Failure

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)


async def test_how_it_ended_and_what_it_printed() -> None:
    async with peer_for("dies") as peer:
        result = await ran(peer, "--anything", within=30)
        assert (result.status, result.stdout, result.stderr) == (1, b"", b"no configuration file\n")
        assert str(result) == "it ended with status 1, having printed: no configuration file"
    async with peer_for("never listens") as peer:
        assert str(await ran(peer, "--anything", within=0.05)) == "it did not end, and printed nothing"


async def test_it_serves_or_says_why_not() -> None:
    async with peer_for("good") as peer:
        (await peer.target.dial()).close()
        assert await started(peer, "{socket}") == ""
        assert peer.target.pid is None  # not every program likes to be there twice
    async with peer_for("dies") as peer:
        assert "it ended with status 1 before it listened" in await started(peer, "{socket}")


async def test_a_quiet_one_serves_as_well_and_is_gone_afterwards() -> None:
    async with peer_for("good") as peer:
        async with another(peer, "{socket}", quiet=True) as launch:
            await serves(peer, launch)
            assert launch.program.poll() is None
        assert launch.program.poll() is not None


async def test_without_its_options_what_is_left_are_the_words_before_them() -> None:
    async with peer_for("good") as peer:
        # Nothing but the interpreter, which runs no script then and ends at once.
        assert "before it listened" in await started(peer, "{socket}", bare=True)


@pytest.mark.parametrize(
    ("printed", "said"),
    [("[1]", "expected a JSON object"), ("{", "stdout is no JSON"), ("{}\n{}", "stdout is no JSON")],
)
async def test_capabilities_are_one_json_object(tmp_path: Path, printed: str, said: str) -> None:
    async with peer_for("good") as peer:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\ncat <<.\n{printed}\n.\n")
        program.chmod(0o755)
        peer.target._command = [str(program), "{socket}"]  # type: ignore[attr-defined]
        with pytest.raises(Failure, match=said):
            await capabilities(peer)


def test_what_is_wrong_with_a_descriptor_file() -> None:
    good = {"description": "a disk", "type": "block", "binary": "/usr/bin/disk", "tags": ["x"]}
    assert list(wrong_with(good)) == []
    assert list(wrong_with(json.loads("[]"))) == ["found list, expected an object"]
    changes: list[tuple[dict[str, object], str]] = [
        ({"description": 1}, "'description': found 1, expected a string"),
        ({"type": "disk"}, "'type': found 'disk', expected one of 9p"),
        ({"binary": "disk"}, "'binary': found 'disk', expected an absolute path"),
    ]
    for change, said in changes:
        (wrong,) = wrong_with({**good, **change})
        assert wrong.startswith(said)
