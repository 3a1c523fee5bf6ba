"""The compiled engine as a condition of tests: skipped where it was not built, but not in CI, where it has to be."""

from __future__ import annotations

import os

import pytest

from vhostuser.device import Serving
from vhostuser.virtqueue.engine import why_not_native

WHY_NOT = why_not_native()
MUST_BE_BUILT = os.environ.get("CI") == "true" and os.environ.get("VHOST_USER_BUILD_ENGINE") != "no"
needs_native = pytest.mark.skipif(
    WHY_NOT is not None and not MUST_BE_BUILT, reason=f"the compiled engine is not built: {WHY_NOT}"
)

SERVING = [
    pytest.param(Serving.TASK, id="task"),
    pytest.param(Serving.THREAD, id="thread"),
    pytest.param(Serving.NATIVE, id="native", marks=needs_native),
]
ON_A_THREAD = SERVING[1:]
