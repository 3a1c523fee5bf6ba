"""What a mutant is, and how one is written down: `mutant` over a function that patches, its docstring the deviation."""

from __future__ import annotations
import __future__

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from vhostuser.conformance import Grade

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Patch: TypeAlias = Callable[[], None]

__all__ = ["BLK", "RARE", "RESUMING", "RNG", "Mutant", "all_mutants", "edit", "mutant", "replace", "wrap"]

BLK: Final = ("blk", "--memory-size", "4M", "--num-queues", "2", "--packed", "--serve", "task")
RNG: Final = ("rng", "--packed")
RARE: Final = ("rare",)
RESUMING: Final = ("resuming",)
"""Both: example back-ends (`tests.conformance.backends`), for what ours have not."""
_MUTANTS: dict[str, Mutant] = {}
_EDITED: dict[Any, str] = {}
"""The source of functions that were edited, which is in no file."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A back-end with one fault.

    Attributes:
        name: of the function that makes it.
        deviation: what it does wrong, in a sentence.
        caught_by: cases, or variants of cases ("B-STA-01[packed]"), each of which has to find it.
        program: words of ``vhost-user backend`` that say which device it is, or an example.
        offers: it does not offer the same as the back-end without a fault, so it has to be asked.
        grade: how it ends when it is asked to, if that is what is wrong with it.
        patch: breaks the library, in a process that serves nothing else.
    """

    name: str
    deviation: str
    caught_by: Sequence[str]
    program: Sequence[str]
    offers: bool
    grade: Grade
    patch: Patch


def mutant(
    *caught_by: str, program: Sequence[str] = BLK, offers: bool = False, grade: Grade = Grade.CLEAN
) -> Callable[[Patch], Patch]:
    """Declare a mutant: the function patches, its docstring says what is wrong afterwards."""

    def declare(patch: Patch) -> Patch:
        name = patch.__name__.replace("_", "-")
        if name in _MUTANTS:
            raise ValueError(f"{name} is declared twice")
        deviation = " ".join(inspect.cleandoc(patch.__doc__ or "").split())
        _MUTANTS[name] = Mutant(
            name=name,
            deviation=deviation,
            caught_by=caught_by,
            program=program,
            offers=offers,
            grade=grade,
            patch=patch,
        )
        return patch

    return declare


def edit(owner: Any, name: str, old: str, new: str) -> None:
    """Compile ``owner.name``, a function or a method, anew with ``new`` in the one place where ``old`` stands."""
    function = _function(inspect.getattr_static(owner, name))
    source = _EDITED.get(function) or inspect.getsource(function)
    if source.count(old) != 1:
        raise ValueError(f"{old!r} stands {source.count(old)} times in {function.__qualname__}, expected once")
    made: dict[str, Any] = {}
    head = "def make(__class__):\n" if source[0] == " " else ""  # of methods, which may say super()
    tail = f"\n    return {name}\n" if head else ""
    edited = source.replace(old, new)
    flags = __future__.annotations.compiler_flag
    exec(compile(head + edited + tail, function.__code__.co_filename, "exec", flags), function.__globals__, made)
    result = made["make"](owner) if head else made[name]
    _EDITED[_function(result)] = edited
    setattr(owner, name, result)


def _function(found: Any) -> Any:
    """What is behind a property, a class method or a decorator."""
    return inspect.unwrap(getattr(found, "fget", None) or getattr(found, "__func__", found))


def wrap(owner: Any, name: str) -> Callable[[Callable[..., Any]], None]:
    """Put the decorated function in the place of ``owner.name``; it gets the original before its own arguments."""

    def decorate(function: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            return function(original, *args, **kwargs)

        setattr(owner, name, patched)

    return decorate


def replace(owner: Any, name: str) -> Callable[[Any], None]:
    """Put what is decorated in the place of ``owner.name``, which has to be there."""

    def decorate(value: Any) -> None:
        inspect.getattr_static(owner, name)
        setattr(owner, name, value)

    return decorate


def all_mutants() -> Mapping[str, Mutant]:
    """By name, file by file."""
    for module in sorted(info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)])):
        if module not in ("__main__", "registry"):
            importlib.import_module(f"tests.conformance.mutants.{module}")
    return _MUTANTS
