"""An async test that hangs says where, and leaves the next test alone."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

HANGING_MODULE = """
import pytest, trio

async def somebody_else(event):
    await event.wait()

@pytest.mark.timeout(0.3)
async def test_hangs():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(somebody_else, trio.Event())
        try:
            await trio.sleep_forever()
        finally:
            print("tidied up")

async def test_is_next():
    await trio.lowlevel.checkpoint()
"""


def test_a_hanging_test_is_cancelled_and_says_where_its_tasks_waited(tmp_path: Path) -> None:
    module = tmp_path / "test_hanging.py"
    module.write_text(HANGING_MODULE)
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "tests.conftest"]
    command = [sys.executable, "-m", "pytest", *config, "-p", "no:cacheprovider", "--no-header", str(module)]
    report = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout

    assert "the time limit is reached" in report
    assert f"{module}:12 in test_hangs" in report
    assert f"{module}:5 in somebody_else" in report
    assert "tidied up" in report
    assert "1 failed, 1 passed" in report
