"""Runs a back-end program: signals, the socket, and the device behind it."""

from __future__ import annotations

import functools
import logging
import signal
from typing import TYPE_CHECKING

import click
import trio

from vhostuser.backend import serve, serve_one
from vhostuser.errors import VhostUserError
from vhostuser.fd import Fd
from vhostuser.memory import guard
from vhostuser.trace.log import log_messages
from vhostuser.transport.unix import Listener, adopt, listen
from vhostuser.virtqueue.queue import RING_FEATURES
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.requests import Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from enum import IntFlag

    from vhostuser.device import Device
    from vhostuser.transport.channel import Channel, Observer

MESSAGE_LOG = logging.getLogger("vhostuser.messages")


def serve_device(
    device: Device,
    socket_path: str | None,
    fd: int | None,
    *,
    packed: bool = False,
    feature_names: type[IntFlag] | None = None,
    on_hangup: Callable[[], object] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until the front-end of a connected socket hangs up.

    Args:
        device: what to serve.
        socket_path: listen here; None for ``fd``.
        fd: an inherited socket, owned from now on.
        packed: offer packed rings too.
        feature_names: of the device's own feature bits, for the log of messages.
        on_hangup: called on SIGHUP.

    Raises:
        click.ClickException: it could not start.
    """
    # A front-end can cut a memory file short under our feet; without the guard that is SIGBUS and the end.
    guard.install()
    observer = None
    if MESSAGE_LOG.isEnabledFor(logging.DEBUG):
        observer = log_messages(MESSAGE_LOG, role=Role.BACKEND, level=logging.DEBUG, device_features=feature_names)
    try:
        ring_features = RING_FEATURES | VirtioFeature.RING_PACKED if packed else RING_FEATURES
        served = functools.partial(_serve, ring_features=ring_features)
        trio.run(served, device, socket_path, fd, observer, on_hangup)
    except (OSError, VhostUserError) as error:
        raise click.ClickException(f"cannot serve {socket_path or f'file descriptor {fd}'}: {error}") from None


async def _serve(
    device: Device,
    socket_path: str | None,
    fd: int | None,
    observer: Observer | None,
    on_hangup: Callable[[], object],
    *,
    ring_features: VirtioFeature,
) -> None:
    # Signals first: whoever sees the socket may rely on SIGTERM to remove it again.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with _open(socket_path, fd, observer) as where, trio.open_nursery() as nursery:
            nursery.start_soon(_watch, signals, nursery.cancel_scope, on_hangup)
            if isinstance(where, Listener):
                await serve(device, where, ring_features=ring_features)
            await serve_one(device, where, ring_features=ring_features)
            nursery.cancel_scope.cancel()


def _open(socket_path: str | None, fd: int | None, observer: Observer | None) -> Channel | Listener:
    if socket_path is not None:
        return listen(socket_path, observer=observer)
    return adopt(Fd(-1 if fd is None else fd), observer=observer)


async def _watch(signals: AsyncIterator[int], serving: trio.CancelScope, on_hangup: Callable[[], object]) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            on_hangup()
        else:
            serving.cancel()
