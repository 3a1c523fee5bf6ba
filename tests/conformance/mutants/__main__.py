"""A back-end with a fault: ``python -m tests.conformance.mutants NAME|- [words of vhost-user backend] [options]``.

``rare --socket-path PATH`` and ``resuming --socket-path PATH`` are example back-ends, for what ours have not; ``-`` is
a back-end without a fault.  The rings are driven by Python, where the faults are.

With ``--serve-forks FD`` it becomes a parent of such programs instead: everything is imported once, and a start is a
fork (`tests.conformance.warm`).
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

os.environ["VHOST_USER_ENGINE"] = "python"

from tests.conformance import warm
from tests.conformance.backends import rare, resuming
from tests.conformance.mutants import all_mutants
from vhostuser.cli import backend, disk, serving  # noqa: F401 - the last two: before the first fork
from vhostuser.devices import rng  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = {"rare": rare.main, "resuming": resuming.main}


def run(words: Sequence[str]) -> NoReturn:
    """Be the back-end that ``words`` describe; ends the process."""
    name, *command = words
    status: object = 1
    try:
        if name != "-":
            all_mutants()[name].patch()
        if command[0] in EXAMPLES:
            EXAMPLES[command[0]](command[-1])
        else:
            backend.backend(command)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else status is not None)


if __name__ == "__main__":
    if sys.argv[1] == "--serve-forks":
        all_mutants()
        warm.serve_forks(int(sys.argv[2]), run)
    else:
        run(sys.argv[1:])
