"""The engines that drive rings and the ways to serve a device, as parameters for tests.

The compiled engine is optional: where it does not run its tests are skipped, with the reason.  With CI=true that is a
failure, unless somebody wanted it so: with VHOST_USER_BUILD_ENGINE=no, or with VHOST_USER_ENGINE=python.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from vhostuser.device import Serving
from vhostuser.virtqueue.engine import why_not_native

if TYPE_CHECKING:
    from vhostuser.virtqueue.engine import Engine

ENGINES: tuple[Engine, ...] = ("python", "native")
WHY_NOT = why_not_native()
UNWANTED = os.environ.get("VHOST_USER_BUILD_ENGINE") == "no" or os.environ.get("VHOST_USER_ENGINE") == "python"
MUST_RUN = os.environ.get("CI") == "true" and not UNWANTED
REASON = f"the compiled engine does not run: {WHY_NOT}"

# For the tests of tests/virtqueue, which run on each engine unless one of these says otherwise.
python_only = pytest.mark.parametrize("engine", ENGINES[:1], indirect=True)
native_only = pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)

needs_native = pytest.mark.skipif(WHY_NOT is not None and not MUST_RUN, reason=REASON)

SERVING = [
    pytest.param(Serving.TASK, id="task"),
    pytest.param(Serving.THREAD, id="thread"),
    pytest.param(Serving.NATIVE, id="native", marks=needs_native),
]
ON_A_THREAD = SERVING[1:]


def need(engine: Engine) -> None:
    """Go on only where there is this engine."""
    if engine == "python" or WHY_NOT is None:
        return
    if MUST_RUN:
        pytest.fail(REASON)
    pytest.skip(REASON)
