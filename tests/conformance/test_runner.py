"""The runner against back-ends that do everything wrong: it always ends, and says what was seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from frontend.conformance.asking import ask
from frontend.conformance.stage import BackendStage
from tests.conformance.runs import SUITE, program, run_awful, run_on, runner, verdicts
from vhostuser.conformance import Grade, Result, Verdict
from vhostuser.conformance.runner import Options
from vhostuser.conformance.selection import Selection
from vhostuser.conformance.target import NotStarted

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the oracles look into /proc"),
]


async def test_a_good_back_end_passes_and_ends_as_it_was_told() -> None:
    (result,) = await run_awful("good", "B-TST-01")
    assert (result.verdict, result.reason) == (Verdict.PASS, "")
    assert result.notes == ["it was asked", "at its end the target left behind: its socket"]
    assert [each.direction for each in result.log] == ["sent", "received", "note"]
    assert (result.shutdown, result.exit_status) == (Grade.STATUS, -15)  # it has no handler
    assert result.replay == "B-TST-01"


async def test_what_a_case_raises_becomes_its_verdict() -> None:
    results = await run_awful("good", *(f"B-TST-0{number}" for number in range(3, 9)))
    assert verdicts(results) == {
        "03": "WEDGED",
        "04": "WARN",
        "05": "SKIP",
        "06": "UNSUPPORTED",
        "07": "ERROR",
        "08": "WEDGED",
    }
    by_name = {result.name: result for result in results}
    assert by_name["B-TST-03"].reason == "nothing came of it within 0.2 s"
    assert by_name["B-TST-04"].reason == "found 1, expected 2"
    assert "ZeroDivisionError: a bug of the suite" in by_name["B-TST-07"].reason
    assert by_name["B-TST-08"].reason == "of the second"


async def test_strict_demands_what_is_recommended() -> None:
    (result,) = await run_awful("good", "B-TST-04", options=Options(strict=True))
    assert result.verdict is Verdict.FAIL


async def test_a_variant_that_is_not_offered_is_skipped_with_the_name_of_the_bit() -> None:
    split, packed = await run_awful("good", "B-TST-10")
    assert (split.name, split.verdict) == ("B-TST-10[split]", Verdict.PASS)
    assert (packed.verdict, packed.reason) == (Verdict.SKIP, "not offered: RING_PACKED")


async def test_a_case_may_kill_the_program_and_go_on() -> None:
    (result,) = await run_awful("good", "B-TST-09")
    assert (result.verdict, result.reason) == (Verdict.PASS, "")


@pytest.mark.parametrize("reuse", [False, True])
async def test_a_signal_is_a_crash_and_the_run_goes_on(reuse: bool) -> None:
    results = await run_awful("dies of features", "B-TST-0[12]", options=Options(reuse=reuse))
    assert verdicts(results) == {"01": "PASS", "02": "CRASH"}
    assert results[1].reason.startswith("the target was ended by SIGKILL\n")


async def test_ending_instead_of_serving_the_next_one_is_a_crash() -> None:
    (result,) = await run_awful("ends at features", "B-TST-02")
    assert result.verdict is Verdict.CRASH
    assert "ended with status 1, instead of serving the next connection" in result.reason


async def test_ending_in_order_is_a_way_to_close_after_bad_input() -> None:
    (result,) = await run_awful("ends at features", "B-TST-11")
    assert (result.verdict, result.shutdown) == (Verdict.PASS, Grade.STATUS)
    assert "the target ended with status 1" in result.notes


@pytest.mark.parametrize("number", ["02", "11"])
async def test_an_exception_that_nobody_caught_is_a_crash(number: str) -> None:
    (result,) = await run_awful("raises at features", f"B-TST-{number}")
    assert result.verdict is Verdict.CRASH
    assert "having printed: Traceback (most recent call last)" in result.reason


async def test_a_program_for_one_front_end_is_started_again_for_each() -> None:
    results = await run_awful("serves one", "B-TST-0[12]")
    assert verdicts(results) == {"01": "PASS", "02": "PASS"}
    assert [result.shutdown for result in results] == [Grade.LITTER, Grade.LITTER]  # its socket
    assert results[0].notes == ["it was asked", "at its end the target left behind: its socket"]


async def test_an_exit_status_after_an_orderly_end_is_worth_a_note_and_no_more() -> None:
    (result,) = await run_awful("serves one badly", "B-TST-01")
    assert (result.verdict, result.shutdown) == (Verdict.PASS, Grade.STATUS)
    assert "the target ended with status 7" in result.notes


async def test_what_is_kept_of_every_connection_is_a_leak() -> None:
    (result,) = await run_awful("keeps", "B-TST-01")
    assert result.verdict is Verdict.LEAK
    assert result.reason.startswith("each time it is done, the target keeps: ")
    assert "fd of socket" in result.reason


async def test_a_sanitizer_report_is_a_crash() -> None:
    (result,) = await run_awful("complains", "B-TST-01")
    assert result.verdict is Verdict.CRASH
    assert "AddressSanitizer: heap-use-after-free" in result.reason
    assert "AddressSanitizer" in result.stderr


async def test_one_that_is_deaf_to_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.conformance.targets.GRACE", 0.1)
    (result,) = await run_awful("is deaf", "B-TST-01")
    assert (result.verdict, result.shutdown, result.exit_status) == (Verdict.PASS, Grade.SLOW, None)


async def test_litter_is_noticed_and_removed() -> None:
    (result,) = await run_awful("litters", "B-TST-01")
    assert (result.verdict, result.shutdown) == (Verdict.PASS, Grade.LITTER)
    (note,) = (note for note in result.notes if "left behind" in note)
    assert "/dev/shm/awful-" in note
    assert not [name for name in os.listdir("/dev/shm") if note.count(name)]


async def test_children_go_with_their_parent() -> None:
    """The leak check of every test would find them."""
    (result,) = await run_awful("has children", "B-TST-01")
    assert result.verdict is not Verdict.ERROR


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("dies", "ended with status 1 before it listened; it printed:\nno configuration file"),
        ("says garbage", "it does not answer"),
        ("cuts off", "it does not answer"),
        ("floods", "it does not answer"),
    ],
)
async def test_a_target_that_never_makes_sense_does_not_start(behaviour: str, said: str) -> None:
    async with program(behaviour) as subject:
        with pytest.raises(NotStarted) as raised:
            await run_on(subject)
    assert said in str(raised.value)


async def test_one_that_never_listens_is_given_up() -> None:
    async with program("never listens", start=0.2) as subject:
        with pytest.raises(NotStarted, match=r"does not listen at .* after 0\.2 s"):
            await run_on(subject)


async def test_one_that_hangs_is_given_up() -> None:
    async with program("hangs") as subject:
        with pytest.raises(NotStarted, match=r"no answer to GET_FEATURES for 0\.2 s"):
            await ask(subject, patience=0.2)


async def test_a_program_that_is_not_there() -> None:
    async with program("good") as subject:
        subject._command[0] = "/nowhere/to-be-found"
        with pytest.raises(NotStarted, match="/nowhere/to-be-found: No such file"):
            await run_on(subject)


async def test_when_it_does_not_start_any_more_the_rest_is_not_tried() -> None:
    async with program("good") as subject:
        profile = await ask(subject)
        await subject.stop()
        subject._command[0] = "/nowhere/to-be-found"
        results: list[Result] = []
        turns = Selection(patterns=["B-TST-0[1234]"]).turns(SUITE)
        await runner(subject, BackendStage(subject, profile), Options()).run(turns, results)
    assert verdicts(results) == {"01": "ERROR", "02": "ERROR", "03": "UNSUPPORTED", "04": "UNSUPPORTED"}
    assert results[-1].reason == "not run: the target cannot be started any more"


async def test_the_next_program_is_started_while_one_is_in_use() -> None:
    async with program("good", ahead=True) as subject:
        results = await run_on(subject, "B-TST-0[12]")
        assert subject._next is not None
    assert verdicts(results) == {"01": "PASS", "02": "PASS"}


async def test_a_failure_on_a_used_program_counts_only_on_a_fresh_one() -> None:
    """ "keeps" fails always, so it fails again; the first time is told."""
    results = await run_awful("keeps", "B-TST-0[15]", "B-TST-02", options=Options(reuse=True))
    assert verdicts(results) == {"01": "LEAK", "02": "LEAK", "05": "SKIP"}


async def test_known_issues_are_expected() -> None:
    known = '[[known]]\ncases = "B-TST-03"\nreason = "slow"\n[[known]]\ncases = "B-TST-01"\nreason = "mended"\n'
    results = await run_awful("good", "B-TST-0[13]", known=known)
    assert verdicts(results) == {"01": "XPASS", "03": "XFAIL"}
