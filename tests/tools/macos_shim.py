"""Run a program under the macOS rules of ``macos_shim.c``.

    python tests/tools/macos_shim.py -- command arguments

Builds the shim with the machine's C compiler into a temporary folder and starts the command with it preloaded.  Tests
build it once, with ``build_macos_shim``, and give ``shim_environment`` to the processes they start.  To take the Linux
system calls away as well, put ``without_linux.py`` between: preloading and filters do not disturb each other.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("macos_shim.c")


class NoCompilerError(Exception):
    """There is no C compiler here, so there is no shim."""


def build_macos_shim(folder: Path) -> Path:
    """Compile the shim into ``folder`` and return the library.

    Raises:
        NoCompilerError: ``CC`` is not set and there is no ``cc``.
        subprocess.CalledProcessError: the compiler refuses.
    """
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        raise NoCompilerError("found no cc and no CC in the environment: install a C compiler")
    library = folder / "macos_shim.so"
    options = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", library, SOURCE, "-ldl"], check=True)
    return library


def shim_environment(library: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """``base`` (by default this process's environment) with the shim put before whatever is preloaded already."""
    environment = dict(os.environ if base is None else base)
    preloaded = environment.get("LD_PRELOAD")
    environment["LD_PRELOAD"] = f"{library}:{preloaded}" if preloaded else str(library)
    return environment


def main(arguments: Sequence[str]) -> int:
    """Run the command under the shim and return its status."""
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            library = build_macos_shim(Path(folder))
        except (NoCompilerError, subprocess.CalledProcessError) as error:
            print(f"macos_shim.py: {error}", file=sys.stderr)
            return 126
        return subprocess.run(command, env=shim_environment(library), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
