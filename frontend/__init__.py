"""The front-end: brings a vhost-user device up and drives it, from ten lines of script or from the command line.

The names below are imported when they are first used, so that a command which only shows its help does not wait for
trio and construct.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frontend.bringup import DeviceLink, MissingFeature, Plan, bring_up, default_memory, open_device
    from frontend.connection import BackendGone, Frontend, RequestRefused
    from frontend.drivers.blk import BlkDriver, BlkError
    from frontend.drivers.rng import RngDriver
    from frontend.guest.memory import GuestRam
    from frontend.queue import Queue, QueueClosed

__all__ = [
    "BackendGone",
    "BlkDriver",
    "BlkError",
    "DeviceLink",
    "Frontend",
    "GuestRam",
    "MissingFeature",
    "Plan",
    "Queue",
    "QueueClosed",
    "RequestRefused",
    "RngDriver",
    "bring_up",
    "default_memory",
    "open_device",
]

_HOMES = {
    "BackendGone": "frontend.connection",
    "BlkDriver": "frontend.drivers.blk",
    "BlkError": "frontend.drivers.blk",
    "DeviceLink": "frontend.bringup",
    "Frontend": "frontend.connection",
    "GuestRam": "frontend.guest.memory",
    "MissingFeature": "frontend.bringup",
    "Plan": "frontend.bringup",
    "Queue": "frontend.queue",
    "QueueClosed": "frontend.queue",
    "RequestRefused": "frontend.connection",
    "RngDriver": "frontend.drivers.rng",
    "bring_up": "frontend.bringup",
    "default_memory": "frontend.bringup",
    "open_device": "frontend.bringup",
}

if not TYPE_CHECKING:  # for mypy these are plain imports, and a name that is not there is an error

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
