"""Two engines drive the rings: one in Python, which says how it is done, and the same compiled, which does it faster.

Both have the interfaces of `vhostuser.virtqueue.queue`, raise the same errors and pass the same tests.  Where the
compiled one was built it is taken, unless the environment variable VHOST_USER_ENGINE says ``python``; ``native`` makes
its absence an error.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from vhostuser.errors import VhostUserError

if TYPE_CHECKING:
    from collections.abc import Callable

Engine: TypeAlias = Literal["native", "python"]

VARIABLE: Final = "VHOST_USER_ENGINE"
HOW_TO_BUILD: Final = (
    "it needs a C compiler and Cython when the package is installed; "
    "VHOST_USER_BUILD_ENGINE=require pip install ... says what is missing"
)


class NoSuchEngine(VhostUserError):
    """The engine that was asked for is not there."""


def why_not_native() -> str | None:
    """What keeps the compiled engine from running, for rings and for devices' loops; None where it runs."""
    if os.environ.get(VARIABLE) == "python":
        return f"{VARIABLE} is python"
    try:
        from vhostuser.virtqueue.engine import device, driver  # noqa: F401
    except ImportError as error:
        return str(error)
    return None


def choose(wanted: str, why_not: Callable[[], str | None] = why_not_native) -> Engine:
    """The engine to use.

    Args:
        wanted: ``native``, ``python``, or nothing: the best there is.
        why_not: says what is wrong with the compiled one.

    Raises:
        NoSuchEngine: it is demanded and was not built, or nobody knows its name.
    """
    if wanted not in ("", "native", "python"):
        raise NoSuchEngine(f"{VARIABLE} is {wanted!r}, expected native or python")
    if wanted == "python":
        return "python"
    reason = why_not()
    if reason is None:
        return "native"
    if wanted == "native":
        raise NoSuchEngine(f"the compiled engine of the rings was not built ({reason}): {HOW_TO_BUILD}")
    return "python"


ENGINE: Final[Engine] = choose(os.environ.get(VARIABLE, ""))
"""Which engine drives the rings of this process, where a caller does not say otherwise."""
