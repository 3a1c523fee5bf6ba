"""Pages of docs/ that are generated say what the code does, or this fails and says how to make them anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

GENERATED = {
    "docs/reference/messages.md": "vhostuser.wire.reference",
    "docs/conformance-coverage.md": "frontend.conformance.coverage_page",
}


@pytest.mark.parametrize("page", GENERATED)
def test_a_generated_page_is_fresh(page: str) -> None:
    command = [sys.executable, "-m", GENERATED[page], "--check", page]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stderr, pytrace=False)
