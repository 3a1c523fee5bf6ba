"""Install the project as people may who have no compiler, or who have a wheel:

    python -m tests.tools.installs [WHEEL PYTHON...]

Without arguments: the compiler is ``false``.  Then an install that demands the compiled engine fails, one that says
nothing about it works on the Python engine, and so does one that wants none.  With them: the wheel, which has to bring
the compiled engine along, runs on each of these interpreters, and there passes the tests of rings.

Each install is in an environment of its own, and nothing is downloaded: what the project needs is borrowed from the
environment of the interpreter.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.tools.asan_engine import ROOT, copy_project

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BROKEN = {"CC": "false"}
WHAT_RUNS = "import vhostuser; from vhostuser.virtqueue.engine import ENGINE; print(vhostuser.__file__, ENGINE)"
RING_TESTS = (
    "test_model",
    "test_hostile",
    "test_packed_hostile",
    "test_split_device",
    "test_packed_device",
    "test_pair",
)


class Environment:
    """An environment of its own, which borrows what ``lender`` has.

    Args:
        folder: where it shall be.
        lender: an interpreter in an environment with all that the project needs.
    """

    def __init__(self, folder: Path, lender: str) -> None:
        self._folder = folder
        subprocess.run([lender, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / "bin" / "python"
        borrowed, own = (purelib(python) for python in (lender, self.python))
        # A path in a .pth file: the .pth files that lie there, of editable installs for one, are not read.
        (own / "borrowed.pth").write_text(f"{borrowed}\n")

    def install(self, what: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Install a folder or a wheel."""
        command = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(self.python),
            "install",
            "--quiet",
            "--ignore-installed",
        ]
        command += ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir", str(what)]
        return self._run(command, environment)

    def engine(self) -> str:
        """What drives the rings there, after a look whether it is what was installed there."""
        file, engine = self._checked([str(self.python), "-c", WHAT_RUNS]).split()
        if self._folder not in Path(file).parents:
            raise SystemExit(f"{file} is not what was installed in {self._folder}")
        return engine

    def demo(self) -> None:
        """The whole story, as a program there tells it."""
        told = json.loads(self._checked([str(self.python), "-m", "vhostuser", "demo", "--json"]))
        if not told["ok"]:
            raise SystemExit(f"the demo did not get its file back: {told}")

    def ring_tests(self, folder: Path) -> None:
        """The tests of rings, on what is installed there."""
        shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(ROOT / "pyproject.toml", folder)
        files = [f"tests/virtqueue/{name}.py" for name in RING_TESTS]
        command = [str(self.python), "-m", "pytest", "-q", "-k", "native", "-p", "no:cacheprovider", *files]
        subprocess.run(command, cwd=folder, env=os.environ | {"CI": "true"}, check=True)

    def _checked(self, command: Sequence[str]) -> str:
        ran = self._run(command, {})
        if ran.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: status {ran.returncode}\n{ran.stdout}{ran.stderr}")
        return ran.stdout

    def _run(self, command: Sequence[str], more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        # Not in the checkout, which would be imported; and what is measured or demanded here is not so there.
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("VHOST_USER_", "COVERAGE_"))}
        folder = self._folder.parent
        return subprocess.run(command, cwd=folder, env={**clean, **more}, capture_output=True, text=True, check=False)


def purelib(python: str | Path) -> Path:
    """Where an interpreter has its packages."""
    question = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", question], capture_output=True, text=True, check=True).stdout.strip())


def without_a_compiler(folder: Path) -> None:
    """What `VHOST_USER_BUILD_ENGINE` promises about it."""
    project = folder / "project"
    project.mkdir()
    copy_project(project)
    demanding = Environment(folder / "require", sys.executable).install(
        project, VHOST_USER_BUILD_ENGINE="require", **BROKEN
    )
    if demanding.returncode == 0 or "'false'" not in demanding.stderr:
        raise SystemExit(f"an engine that cannot be built was demanded:\n{demanding.stdout}{demanding.stderr}")
    print("require, and no compiler: the install fails")
    for name, environment in (("default", BROKEN), ("no", {"VHOST_USER_BUILD_ENGINE": "no"})):
        place = Environment(folder / name, sys.executable)
        installed = place.install(project, **environment)
        if installed.returncode != 0 or place.engine() != "python":
            raise SystemExit(f"{name}: no install on the Python engine:\n{installed.stdout}{installed.stderr}")
        place.demo()
        print(f"{name}: installed, the demo passes on the Python engine")


def wheel(folder: Path, file: Path, python: str) -> None:
    """A wheel with the compiled engine in it, on one interpreter."""
    place = Environment(folder / "environment", python)
    installed = place.install(file.resolve())
    if installed.returncode != 0 or place.engine() != "native":
        raise SystemExit(f"{file} on {python}: no compiled engine:\n{installed.stdout}{installed.stderr}")
    place.demo()
    place.ring_tests(folder)
    print(f"{file.name}, {python}: the demo and the tests of rings pass on the compiled engine")


def main(arguments: Sequence[str]) -> None:
    """One of the two."""
    if not arguments:
        with tempfile.TemporaryDirectory(prefix="installs-") as folder:
            without_a_compiler(Path(folder))
    for python in arguments[1:]:
        with tempfile.TemporaryDirectory(prefix="installs-") as folder:
            wheel(Path(folder), Path(arguments[0]), python)


if __name__ == "__main__":
    main(sys.argv[1:])
