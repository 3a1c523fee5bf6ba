"""The suite of back-end cases: where they are declared, and how they are all loaded."""

from __future__ import annotations

import importlib
import pkgutil

from vhostuser.conformance import Suite

SUITE = Suite()
case = SUITE.case
manual = SUITE.manual


def load() -> Suite:
    """The suite, with every case of ``frontend.conformance.cases`` in it."""
    package = importlib.import_module("frontend.conformance.cases")
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{package.__name__}.{module}")
    return SUITE
