"""How the compiled engine of the rings is built.  All else is in pyproject.toml.

It is optional: where there is no compiler, or no Cython, the package installs without it and the Python engine runs.
The environment variable VHOST_USER_BUILD_ENGINE says otherwise: with ``require`` a failure is an error, with ``no``
nothing is compiled.

Not for the limited API of CPython: measured, a chain that a device reads and answers costs twice as much there.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup  # type: ignore[import-untyped]

ENGINE = Path("vhostuser/virtqueue/engine")
WANTED = os.environ.get("VHOST_USER_BUILD_ENGINE", "")


def extensions() -> list[Extension]:
    """One extension module for each ``.pyx``, as C."""
    from Cython.Build import cythonize

    made = [
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            include_dirs=[str(ENGINE)],
            depends=[str(path) for path in (source, *sorted(ENGINE.glob("*.pxd")), *sorted(ENGINE.glob("*.h")))],
            extra_compile_args=os.environ.get("VHOST_USER_ENGINE_CFLAGS", "-O3 -g0").split(),
        )
        for source in sorted(ENGINE.glob("*.pyx"))
    ]
    directives = {"language_level": 3, "cdivision": True, "boundscheck": False, "wraparound": False}
    modules: list[Extension] = cythonize(made, compiler_directives=directives, quiet=True)  # type: ignore[no-untyped-call]
    for module in modules:
        module.optional = WANTED != "require"  # cythonize forgets it
    return modules


def engine() -> list[Extension]:
    """The extension modules that can be built here."""
    if WANTED == "no":
        return []
    try:
        return extensions()
    except Exception as error:
        if WANTED == "require":
            raise
        print(f"the compiled engine is left out: {error}", file=sys.stderr)
        return []


setup(ext_modules=engine())
