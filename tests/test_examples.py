"""The programs in examples/, and the one in the README, are run as their readers would run them."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from frontend import DeviceLink, Plan, open_device
from frontend.queue import Segment
from tests.backend.process import HERE, BackendProcess
from vhostuser.memory.backends import MemoryBackendShm

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = HERE / "examples"
TRANSMITQ = 1


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_example_is_run_by_a_test(name: str) -> None:
    assert any(f'"{name}"' in path.read_text() for path in (HERE / "tests").rglob("test_*.py"))


def test_a_device_fits_into_sixty_lines() -> None:
    assert len((EXAMPLES / "console.py").read_text().splitlines()) < 60


# --- disk.py and the README ----------------------------------------------------------------------------------------


def python(*arguments: str | Path, cwd: Path = HERE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    environment = {"PYTHONPATH": str(HERE), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=cwd, env=environment)


@pytest.mark.timeout(40)
def test_the_disk_example_writes_to_a_backend_and_reads_it_back(tmp_path: Path) -> None:
    with BackendProcess(tmp_path, ["blk", "--memory-size", "64M"]) as backend:
        done = python(EXAMPLES / "disk.py", backend.path)
        assert done.stderr == ""
        assert done.stdout == "131072 sectors, the first begins with b'hello'\n"
        assert backend.running


def readme_programs() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (HERE / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_readme_has_a_program() -> None:
    assert len(readme_programs()) == 1


@pytest.mark.timeout(40)
def test_the_program_in_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(readme_programs()[0])
    with BackendProcess(tmp_path, ["blk", "--memory-size", "64M"], socket="disk.sock"):
        done = python("script.py", cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout == "131072 b'hello'\n"


# --- console.py ----------------------------------------------------------------------------------------------------


class ConsoleDriver:
    """Writes to a console, and has nothing to read."""

    def __init__(self, link: DeviceLink) -> None:
        self.link = link

    @classmethod
    def plan(cls, **options: object) -> Plan:
        return Plan(queues=2, memory=MemoryBackendShm(size=1 << 20))

    async def write(self, text: bytes) -> None:
        buffer = self.link.ram.buffer(len(text))
        buffer.view[:] = text
        await self.link.queues[TRANSMITQ].submit([Segment(buffer.addr, len(text))], [])

    def offer_room(self) -> None:
        """What every console driver does: buffers for what may be typed some day."""
        buffer = self.link.ram.buffer(64)
        self.link.queues[0].start([], [Segment(buffer.addr, 64)], lambda _: None)
        self.link.queues[0].flush()


@pytest.mark.timeout(40)
async def test_the_console_example_prints_what_the_guest_writes(tmp_path: Path) -> None:
    path = tmp_path / "console.sock"
    console = await trio.lowlevel.open_process(
        [sys.executable, str(EXAMPLES / "console.py"), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": str(HERE)},
    )
    assert console.stdout is not None
    try:
        for greeting in (b"hello\n", b"and hello again\n"):  # it serves one front-end after the other
            async with open_device(path, ConsoleDriver, retry_for=15) as driver:
                driver.offer_room()
                await driver.write(greeting)
                found = b""
                while len(found) < len(greeting):
                    found += await console.stdout.receive_some()
                assert found == greeting
    finally:
        console.kill()
        await console.wait()
        await console.stdout.aclose()
