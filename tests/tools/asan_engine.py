"""Run the ring tests on a compiled engine that checks every access to memory:  python asan_engine.py [PYTEST_ARGS...]

The engine is built in a temporary copy of the project with AddressSanitizer and UndefinedBehaviorSanitizer, so that a
step outside an array of ours, or one of C's undefined operations, ends the process instead of going unnoticed.  Steps
outside guest memory are seen by the tests themselves, which surround it with bytes that must not change.

Needs gcc with libasan.  Leaks are not looked for: the interpreter never frees all of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("vhostuser", "frontend", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE")
CFLAGS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
TESTS = ("tests/virtqueue", "-q", "-p", "no:cacheprovider", "-o", "timeout=120")


def copy_project(to: Path) -> None:
    """The sources, without anything that was built from them."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "engine/*.c")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=ignored)
        else:
            shutil.copy2(source, to / name)


def build(project: Path) -> None:
    """Compile the engine in place."""
    environment = {
        **os.environ,
        "VHOST_USER_BUILD_ENGINE": "require",
        "VHOST_USER_ENGINE_CFLAGS": CFLAGS,
        "LDFLAGS": "-fsanitize=address,undefined",
    }
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=project, env=environment, check=True)


def libasan() -> str:
    """The library that has to be there before the interpreter's first allocation."""
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def checked_environment() -> dict[str, str]:
    """The environment in which an engine that was built like that can be loaded."""
    return {
        **os.environ,
        "LD_PRELOAD": libasan(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # each object is an allocation of its own, and its end a border
        "VHOST_USER_ENGINE": "native",
        "CI": "true",
    }


def check(project: Path) -> None:
    """Is it the checked engine that gets loaded?  Tests of any other would prove nothing."""
    question = "from vhostuser.virtqueue.engine import device; print(device.__file__)"
    command = [sys.executable, "-c", question]
    answer = subprocess.run(
        command, cwd=project, env=checked_environment(), capture_output=True, text=True, check=True
    ).stdout.strip()
    if project not in Path(answer).parents or b"__asan_report_load" not in Path(answer).read_bytes():
        raise SystemExit(f"{answer} is not the engine that was built with AddressSanitizer in {project}")


def run_tests(project: Path, arguments: list[str]) -> int:
    """The tests, in the copy; their status."""
    command = [sys.executable, "-m", "pytest", *TESTS, *(arguments or ["-k", "native"])]
    return subprocess.run(command, cwd=project, env=checked_environment(), check=False).returncode


def main() -> int:
    """Copy, build, test."""
    with tempfile.TemporaryDirectory(prefix="asan-engine-") as folder:
        project = Path(folder)
        copy_project(project)
        build(project)
        check(project)
        return run_tests(project, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
