"""Programs as processes: what they say, how they end, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio

from vhostuser.conformance import vitals
from vhostuser.conformance.oracle import spins
from vhostuser.conformance.process import KEPT, Ending, Output, Program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vhostuser.conformance.target import Target

pytestmark = pytest.mark.timeout(60)
needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="this system has no /proc")


@asynccontextmanager
async def python(source: str, **options: object) -> AsyncIterator[Program]:
    async with trio.open_nursery() as nursery:
        program = Program.start([sys.executable, "-S", "-E", "-c", source], nursery, **options)  # type: ignore[arg-type]
        try:
            yield program
        finally:
            await program.end()


async def said(program: Program, text: str) -> None:
    while text not in program.output.news():  # noqa: ASYNC110 - what another process prints wakes nobody here
        await trio.sleep(0.01)


async def test_status_and_output() -> None:
    async with python("import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)") as program:
        assert await program.ended(30) == Ending(3)
        assert await program.end() == Ending(3)
        assert program.output.news().split() == ["out", "err"]
        assert program.vitals() is None


async def test_streams_may_be_kept_apart() -> None:
    async with python("import sys; print('out'); print('err', file=sys.stderr)", apart=True) as program:
        await program.ended(30)
        await program.end()
        assert (program.stdout.kept(), program.output.kept()) == (b"out\n", b"err\n")


async def test_a_quiet_one_has_nobody_to_talk_to() -> None:
    source = "import os, sys; sys.exit(len({os.fstat(each).st_rdev for each in range(3)}))"
    async with python(source, quiet=True) as program:
        assert await program.ended(30) == Ending(1)
        assert (await program.end(), program.output.kept()) == (Ending(1), b"")


async def test_a_signal_is_a_negative_status() -> None:
    async with python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)") as program:
        ending = await program.ended(30)
        assert ending == Ending(-9)
        assert str(ending) == "was ended by SIGKILL"


def test_endings_in_words() -> None:
    assert str(Ending(0)) == "ended with status 0"
    assert str(Ending(-11, core=True)) == "was ended by SIGSEGV, core dumped"
    assert str(Ending(-100)) == "was ended by signal 100"


async def test_one_that_does_not_end_is_killed_with_its_children() -> None:
    source = "import os, time; pid = os.fork(); print('child', flush=True) if not pid else None; time.sleep(3600)"
    async with python(source) as program:
        assert await program.ended(0) is None
        await said(program, "child")
        program.signal(signal.SIGCONT)
        assert (await program.end()).status == -9


async def test_it_has_its_own_process_group() -> None:
    async with python("import os; print('in', os.getpgid(0), flush=True); import time; time.sleep(3600)") as program:
        await said(program, "in ")
        assert program.output.news().split()[1] == str(program.pid)


async def test_a_program_that_does_not_exist() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(FileNotFoundError):
            Program.start(["/nowhere/at-all"], nursery)


@needs_proc
async def test_vitals_of_a_process_and_its_children() -> None:
    source = """
import os, time
if os.fork():
    print('ready', flush=True)
else:
    kept = [os.pipe() for _ in range(50)]
    print('child', flush=True)
time.sleep(3600)
"""
    async with python(source) as program:
        await said(program, "ready")
        await said(program, "child")
        sample = program.vitals()
        assert sample is not None
        assert sample.fds is not None
        assert sample.fds > 100
        assert (sample.mappings or 0) > 10
        assert (sample.resident or 0) > 1 << 20
        assert sample.cpu_seconds is not None
        assert sum("pipe" in what for what in vitals.held(program.pid)) > 100


def test_nothing_is_seen_of_a_process_that_is_not_there() -> None:
    gone = 1 << 22  # the kernel numbers no process so
    assert vitals.look_at(gone) is None
    assert vitals.held(gone) == []
    assert vitals.own_memory_files(gone) == set()
    assert vitals.cpu_seconds(gone) is None


def test_only_the_end_of_a_long_output_is_kept() -> None:
    output = Output()
    output.add(b"early")
    output.mark()
    assert output.news() == ""
    output.add(b"x" * KEPT)
    output.add(b"late")
    assert output.news().startswith("[4 bytes before this]\nxxx")
    assert output.news().endswith("late")
    assert len(output.kept()) == KEPT


@needs_proc
@pytest.mark.parametrize("busy", [True, False])
async def test_who_is_busy_without_a_pause_is_told_however_little_it_gets(busy: bool) -> None:
    source = "import time\nprint('ready', flush=True)\nwhile True:\n    " + ("pass" if busy else "time.sleep(3600)")
    async with python(source) as program:
        await said(program, "ready")
        assert await spins(cast("Target", program)) is busy


@needs_proc
async def test_who_tidies_up_for_a_while_is_not_told() -> None:
    source = """
import time
print('ready', flush=True)
while time.process_time() < 0.2:
    pass
time.sleep(3600)
"""
    async with python(source) as program:
        await said(program, "ready")
        assert not await spins(cast("Target", program))


def test_nobody_wants_to_run_who_is_not_there() -> None:
    assert not vitals.wants_to_run(1 << 22)
