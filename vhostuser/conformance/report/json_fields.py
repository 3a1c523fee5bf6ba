"""Members of a JSON object, each of the type that it has to have, or an error that says where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from vhostuser.errors import VhostUserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from enum import Enum

    E = TypeVar("E", bound=Enum)

T = TypeVar("T")


class NotAReport(VhostUserError, ValueError):
    """This is no report of a run, or one of another version."""


class Fields:
    """A JSON object whose members are asked for by name and type; each method raises `NotAReport`.

    Args:
        value: what JSON had.
        where: what to call it in errors.
    """

    def __init__(self, value: object, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise NotAReport(f"{where}: found {_shown(value)}, expected an object")
        self._value: dict[str, Any] = value

    def text(self, name: str) -> str:
        """A string."""
        return self._typed(name, str, "a string")

    def integer(self, name: str) -> int:
        """A whole number."""
        return self._typed(name, int, "a whole number")

    def flag(self, name: str) -> bool:
        """True or false."""
        return self._typed(name, bool, "true or false")

    def number(self, name: str) -> float:
        """Any number."""
        value = self._get(name)
        return float(value) if isinstance(value, float) else float(self._typed(name, int, "a number"))

    def mapping(self, name: str) -> Mapping[str, Any]:
        """An object, as it is."""
        return self._typed(name, dict, "an object")

    def object(self, name: str) -> Fields:
        """An object whose members are asked for."""
        return Fields(self._get(name), f"{self.where}.{name}")

    def objects(self, name: str) -> list[Fields]:
        """A list of objects."""
        values = self._typed(name, list, "a list")
        return [Fields(value, f"{self.where}.{name}[{number}]") for number, value in enumerate(values)]

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        values = self._typed(name, list, "a list")
        if wrong := [value for value in values if not isinstance(value, str)]:
            raise NotAReport(f"{self.where}.{name}: found {_shown(wrong[0])}, expected strings only")
        return values

    def octets(self, name: str) -> bytes:
        """Bytes in hexadecimal."""
        try:
            return bytes.fromhex(self.text(name))
        except ValueError as error:
            raise NotAReport(f"{self.where}.{name}: {error}, expected hexadecimal digits") from None

    def one_of(self, name: str, kind: type[E]) -> E:
        """The member of an enum with this value."""
        value = self.text(name)
        try:
            return kind(value)
        except ValueError:
            values = ", ".join(str(each.value) for each in kind)
            raise NotAReport(f"{self.where}.{name}: found {_shown(value)}, expected one of {values}") from None

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """What ``read`` makes of it; None where JSON has null."""
        return None if self._get(name) is None else read(name)

    def _get(self, name: str) -> Any:
        if name not in self._value:
            raise NotAReport(f"{self.where}: found no {name!r}, expected one")
        return self._value[name]

    def _typed(self, name: str, kind: type[T], expected: str) -> T:
        value = self._get(name)
        # In Python true is a number; in a report it is not.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise NotAReport(f"{self.where}.{name}: found {_shown(value)}, expected {expected}")
        return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
