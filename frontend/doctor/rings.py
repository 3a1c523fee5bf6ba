"""What rings run on here: the engine, notifiers, fences, the guard, KVM's doorbells."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from typing import TYPE_CHECKING

from frontend.doctor.finding import Finding, Level
from frontend.guest.kvm import why_no_kvm
from vhostuser.errors import VhostUserError
from vhostuser.memory import guard, ordering
from vhostuser.transport.notifier import ENVIRONMENT_VARIABLE, NotifierKind, default_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPIC = "rings"
ENGINE_MODULE = "vhostuser.virtqueue.engine"
ENGINE_VARIABLE = "VHOST_USER_ENGINE"
BUILD = "VHOST_USER_BUILD_ENGINE=require pip install -e . (it needs a C compiler)"


def look_at_rings() -> Iterator[Finding]:
    """One finding each."""
    yield engine()
    yield notifier()
    yield fences()
    yield sigbus_guard()
    yield kvm()


def engine() -> Finding:
    """Which of the two engines serves rings, and why."""
    try:
        module = import_module(ENGINE_MODULE)
    except (ImportError, ValueError, VhostUserError) as error:
        advice = f"unset {ENGINE_VARIABLE}, or build the engine: {BUILD}"
        return Finding(TOPIC, "engine", Level.BROKEN, str(error), advice)
    if os.environ.get(ENGINE_VARIABLE):
        return Finding(TOPIC, "engine", Level.OK, f"{module.ENGINE}: {ENGINE_VARIABLE} asks for it")
    if module.ENGINE == "native":
        return Finding(TOPIC, "engine", Level.OK, "native: it is built")
    return Finding(TOPIC, "engine", Level.HINT, "python: the native one is not built", f"to be faster: {BUILD}")


def notifier() -> Finding:
    """What kicks and calls travel by."""
    try:
        kind = default_kind()
    except (ValueError, OSError) as error:
        advice = f"unset {ENVIRONMENT_VARIABLE}, or set it to pipe"
        return Finding(TOPIC, "notifier", Level.BROKEN, str(error), advice)
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return Finding(TOPIC, "notifier", Level.OK, f"{kind.value}: {ENVIRONMENT_VARIABLE} asks for it")
    why = "" if kind is NotifierKind.EVENTFD else ": this system has no eventfd, and pipes do the same"
    return Finding(TOPIC, "notifier", Level.OK, kind.value + why)


def fences() -> Finding:
    """What keeps our stores and loads in order."""
    named = getattr(ordering.full_fence, "func", ordering.full_fence)
    found = f"{named.__name__} on {platform.machine()}"
    if ordering.FENCE_IS_FULL:
        return Finding(TOPIC, "full fence", Level.OK, found)
    return Finding(
        TOPIC,
        "full fence",
        Level.HINT,
        f"{found}, which is none: notifications are never suppressed",
        "install libatomic (libatomic1 in Debian)",
    )


def sigbus_guard() -> Finding:
    """Whether a back-end outlives a front-end that cuts its memory short."""
    if guard.SUPPORTED:
        return Finding(TOPIC, "guard against SIGBUS", Level.OK, "yes")
    found = f"not on {platform.system()} on {platform.machine()}"
    advice = "take memory that cannot shrink (a sealed memfd), or serve each front-end by a process of its own"
    return Finding(TOPIC, "guard against SIGBUS", Level.HINT, found, advice)


def kvm() -> Finding:
    """Whether guests can run, which `vhost-user demo --kvm` and slots on KVM need."""
    why_not = why_no_kvm()
    if why_not is None:
        return Finding(TOPIC, "KVM", Level.OK, "usable")
    advice = "for guests with KVM: load the module kvm, and be allowed to open /dev/kvm (group kvm)"
    return Finding(TOPIC, "KVM", Level.HINT, why_not, advice)
