"""How the compiled engine of the rings is built.  All else is in pyproject.toml.

It is optional: where there is no compiler, or no Cython, the package installs without it and the Python engine runs.
The environment variable VHOST_USER_BUILD_ENGINE says otherwise: with ``require`` a failure is an error, with ``no``
nothing is compiled.

With VHOST_USER_BUILD_ABI3=1 it is built for the limited API of CPython, so that one wheel serves every version from the
oldest that we support on.  Not by default: measured, a chain that a device in Python reads and answers costs twice as
much there.  Loops that need no GIL do not care.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup  # type: ignore[import-untyped]

ENGINE = Path("vhostuser/virtqueue/engine")
WANTED = os.environ.get("VHOST_USER_BUILD_ENGINE", "")
ABI3 = os.environ.get("VHOST_USER_BUILD_ABI3", "") not in ("", "0")
OLDEST = (3, 11)  # as requires-python


def extensions() -> list[Extension]:
    """One extension module for each ``.pyx``, as C."""
    from Cython.Build import cythonize

    made = [
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            include_dirs=[str(ENGINE)],
            depends=[str(path) for path in (source, *sorted(ENGINE.glob("*.pxd")), *sorted(ENGINE.glob("*.h")))],
            define_macros=[("Py_LIMITED_API", f"0x{OLDEST[0]:02X}{OLDEST[1]:02X}0000")] if ABI3 else [],
            py_limited_api=ABI3,
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


MODULES = engine()
TAG = {"bdist_wheel": {"py_limited_api": f"cp{OLDEST[0]}{OLDEST[1]}"}} if ABI3 and MODULES else {}
setup(ext_modules=MODULES, options=TAG)
