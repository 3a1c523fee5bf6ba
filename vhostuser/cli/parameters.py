"""Kinds of parameters that several commands take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    _IntegerType = click.ParamType[int]
else:
    _IntegerType = click.ParamType  # click 8.1 has it, and cannot be subscripted


class SizeType(_IntegerType):
    """A size as QEMU's users write it: ``64M``, ``1.5G``, ``4096``; bytes in the program.

    Args:
        least: smallest value to accept.
        most: largest, if there is one.
        unit: the value has to be a multiple of this.
    """

    name = "size"

    def __init__(self, *, least: int = 0, most: int | None = None, unit: int = 1) -> None:
        self._least = least
        self._most = most
        self._unit = unit

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes; click calls this, with its own defaults too."""
        from vhostuser.memory.sizes import SizeError, parse_size

        try:
            size = value if isinstance(value, int) else parse_size(str(value))
        except SizeError as error:
            self.fail(f"{error}.", param, ctx)
        if size < self._least or (self._most is not None and size > self._most):
            limit = f"at least {self._least}" if size < self._least else f"at most {self._most}"
            self.fail(f"found {size} bytes, expected {limit}.", param, ctx)
        if size % self._unit:
            self.fail(f"found {size} bytes, expected a multiple of {self._unit}.", param, ctx)
        return size


SIZE = SizeType()
