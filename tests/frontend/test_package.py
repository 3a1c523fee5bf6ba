"""The package's names: there when they are asked for, and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import frontend


def test_every_public_name_is_there() -> None:
    assert set(frontend.__all__) <= set(dir(frontend))
    for name in frontend.__all__:
        assert getattr(frontend, name).__name__ == name


def test_a_name_that_is_not_there_is_named() -> None:
    name = "BlockDriver"
    with pytest.raises(AttributeError, match="module 'frontend' has no attribute 'BlockDriver'"):
        getattr(frontend, name)


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import frontend, sys; print(sorted({'trio', 'construct'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"[]\n"
