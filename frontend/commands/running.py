"""Runs what a command does against a back-end, and turns every way in which it can fail into one line."""

from __future__ import annotations

import errno
import logging
import math
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from frontend.bringup import MissingFeature, bring_up
from frontend.commands.outcome import Failed, Interrupted, NoBackend
from frontend.connection import BackendGone, RequestRefused
from frontend.queue import QueueClosed
from vhostuser.errors import VhostUserError
from vhostuser.trace.log import log_messages
from vhostuser.transport.unix import SocketPathError, connect
from vhostuser.wire.requests import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from enum import IntFlag

    from frontend.bringup import Driver
    from frontend.commands.options import Target
    from vhostuser.transport.channel import Channel, Observer

    D = TypeVar("D", bound=Driver)

T = TypeVar("T")

MESSAGE_LOG = logging.getLogger("frontend.messages")
CONNECT_RETRY = 2.0
"""Seconds to wait for a back-end that was started a moment ago; less when the whole patience is short."""


class Patience:
    """How long a back-end may do nothing.

    Args:
        seconds: without a call of `progress`, after which the command gives up.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.scope = trio.CancelScope()

    def progress(self) -> None:
        """Something came of it: the time begins anew."""
        self.scope.deadline = trio.current_time() + self.seconds

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """It is not the back-end that we wait for in this block."""
        self.scope.deadline = math.inf
        try:
            yield
        finally:
            self.progress()


def run_at(target: Target, action: Callable[[Patience], Awaitable[T]]) -> T:
    """What ``action`` returns; failures are told of the back-end at the socket of ``target``."""
    return run(
        action,
        timeout=target.timeout,
        backend=f"the back-end at {target.socket_path}",
        hint="does it serve another front-end?  --timeout waits longer",
    )


def run(action: Callable[[Patience], Awaitable[T]], *, timeout: float, backend: str, hint: str = "it may hang") -> T:
    """What ``action`` returns.

    Args:
        action: told when to give up on the back-end.
        timeout: see `Patience`.
        backend: what to call the back-end in messages.
        hint: what to think of when it is silent.

    Raises:
        click.ClickException: it failed; with the exit status and the line to print.
    """
    try:
        # Ctrl-C at checkpoints only: between them it was seen to come out inside trio's own loop, and end that.
        return trio.run(_patiently, Patience(timeout), action, restrict_keyboard_interrupt_to_checkpoints=True)
    except KeyboardInterrupt:
        raise Interrupted from None
    except trio.TooSlowError:
        raise NoBackend(f"nothing came from {backend} for {timeout:g} s: {hint}") from None
    except BaseExceptionGroup as group:
        raise _explained(backend, _first(group)) from group
    except (VhostUserError, OSError) as error:
        raise _explained(backend, error) from error


async def _patiently(patience: Patience, action: Callable[[Patience], Awaitable[T]]) -> T:
    with patience.scope as scope:
        patience.progress()
        return await action(patience)
    assert scope.cancelled_caught  # nothing else leaves the block without returning
    raise trio.TooSlowError


@asynccontextmanager
async def open_target(
    target: Target, driver: type[D], *, feature_names: type[IntFlag] | None = None
) -> AsyncIterator[D]:
    """The device that a command was told to use, driven by ``driver``.

    Raises:
        NoBackend: nobody answers at its socket.
    """
    options: dict[str, Any] = target.plan_options()
    channel = await connect_to(target.socket_path, target.timeout, feature_names=feature_names)
    async with bring_up(channel, driver.plan(**options)) as link:
        yield driver(link)


async def connect_to(socket_path: str, patience: float, *, feature_names: type[IntFlag] | None = None) -> Channel:
    """A connection to the back-end at ``socket_path``, each message of it logged if somebody wants to see them.

    Args:
        socket_path: where it listens.
        patience: seconds that it may be silent later on; an attempt to connect gets a part of them.
        feature_names: names of the device's own feature bits, for the log.

    Raises:
        NoBackend: nobody answers there.
    """
    observer: Observer | None = None
    if MESSAGE_LOG.isEnabledFor(logging.DEBUG):
        observer = log_messages(MESSAGE_LOG, role=Role.FRONTEND, level=logging.DEBUG, device_features=feature_names)
    try:
        return await connect(socket_path, retry_for=min(CONNECT_RETRY, patience / 4), observer=observer)
    except (OSError, SocketPathError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise NoBackend(
            f"cannot connect to {socket_path}: {reason}; is the back-end running?  "
            f"`vhost-user backend --help` shows how to start one"
        ) from error


def _explained(backend: str, error: BaseException) -> BaseException:
    """What to raise instead of ``error``, for people."""
    match error:
        case BackendGone() | QueueClosed():
            return NoBackend(f"{backend} is gone: {error}; what it printed may say why")
        case RequestRefused() | MissingFeature():
            return NoBackend(f"{backend} cannot be used: {error}")
        case KeyboardInterrupt():
            return Interrupted()
        case OSError(errno=errno.EPIPE):
            return error  # whoever read our output has seen enough; click ends quietly
        case VhostUserError() | OSError():
            return Failed(str(error))
    return error


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that came first: the others follow from it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
