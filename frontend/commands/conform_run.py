"""Runs what was planned, shows it, and writes the reports; whatever happens, nothing of the target is left."""

from __future__ import annotations

import datetime
import signal
import socket
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from frontend.commands.conform_reports import write
from frontend.commands.conform_state import remember
from frontend.commands.conform_watch import Screen
from frontend.commands.outcome import NoBackend
from frontend.conformance.asking import ask, in_words
from frontend.conformance.launch import substituted
from frontend.conformance.stage import BackendStage
from frontend.conformance.targets import ConnectedTarget, ProgramTarget, SocketTarget
from vhostuser import __version__
from vhostuser.conformance import Run, orphans
from vhostuser.conformance.report.words import printable
from vhostuser.conformance.runner import Options, Runner
from vhostuser.conformance.target import NotStarted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from frontend.commands.conform_plan import Plan
    from vhostuser.conformance.target import Subject

PREPARING = 60.0
"""Seconds for one command that prepares a target."""


def run(plan: Plan) -> int:
    """Run, show and report; the exit status.

    Raises:
        click.ClickException: it could not begin, or a report could not be written.
    """
    inherited = None if plan.target.fd is None else _inherited(plan.target.fd)
    began = datetime.datetime.now(datetime.UTC)
    result = Run(
        target=plan.target.name,
        started=began.isoformat(timespec="seconds").replace("+00:00", "Z"),
        program=f"python-vhost-user {__version__}",
    )
    orphans.adopt()
    with Screen(aside=any(report.path == "-" for report in plan.reports), verbose=plan.verbose) as screen:
        try:
            trio.run(_run, plan, result, screen, inherited, restrict_keyboard_interrupt_to_checkpoints=True)
        except* NotStarted as group:
            raise NoBackend(printable(f"the target did not start: {_first(group)}")) from None
        finally:
            orphans.end()
        result.seconds = (datetime.datetime.now(datetime.UTC) - began).total_seconds()
        screen.recap(result)
    remember(plan.target.name, result)
    write(plan.reports, [result])
    return result.exit_status


async def _run(plan: Plan, result: Run, screen: Screen, inherited: socket.socket | None) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(_interruptible, scope, result)
            async with _subject(plan, inherited) as subject:
                profile = await ask(subject, device_type=plan.target.device_type)
                result.offered = in_words(profile)
                screen.head(result)
                runner = Runner(
                    subject,
                    BackendStage(subject, profile),
                    Options(seconds=plan.target.timeout, strict=plan.strict, reuse=plan.target.reuse),
                    known=plan.target.known,
                    watcher=screen,
                    replay=plan.replay,
                )
                await runner.run(plan.turns, result.results)
            nursery.cancel_scope.cancel()


async def _interruptible(
    scope: trio.CancelScope, result: Run, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Ctrl-C ends the run where it is; what has been found by then is reported."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # nohup wants it to go on
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *hangup) as signals:
        task_status.started()
        async for _ in signals:
            result.interrupted = True
            scope.cancel()


@asynccontextmanager
async def _subject(plan: Plan, inherited: socket.socket | None) -> AsyncIterator[Subject]:
    """The target of ``plan``, of which nothing is left afterwards."""
    target = plan.target
    if inherited is not None:
        connected = ConnectedTarget(inherited)
        try:
            yield connected
        finally:
            connected.close()
    elif target.socket_path is not None:
        yield SocketTarget(target.socket_path)
    else:
        # Not where TMPDIR may lead: the path of a socket has room for about a hundred letters.
        with tempfile.TemporaryDirectory(prefix="vhu-", dir="/tmp", ignore_cleanup_errors=True) as name:
            async with trio.open_nursery() as nursery:
                program = ProgramTarget(
                    target.command,
                    Path(name),
                    nursery,
                    ahead=not (target.alone or target.reuse),
                    name=target.name,
                )
                try:
                    program.scratch.mkdir()
                    await _prepare(target.prepare, program.scratch)
                    yield program
                finally:
                    await program.close()


async def _prepare(commands: Sequence[Sequence[str]], scratch: Path) -> None:
    for command in commands:
        words = substituted(command, scratch=str(scratch))
        try:
            with trio.fail_after(PREPARING):
                ran = await trio.run_process(
                    words, check=False, capture_stdout=True, stderr=subprocess.STDOUT, process_group=0
                )
        except (OSError, trio.TooSlowError) as error:
            raise NotStarted(f"{' '.join(words)}: {getattr(error, 'strerror', None) or 'it does not end'}") from None
        if ran.returncode:
            raise NotStarted(f"{' '.join(words)} ended with status {ran.returncode}: {ran.stdout.decode()[-500:]}")


def _inherited(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
            raise OSError
        sock.getpeername()
    except OSError:
        raise click.UsageError(f"--fd {fd}: expected a connected unix stream socket") from None
    return sock


def _first(group: BaseExceptionGroup[NotStarted]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
