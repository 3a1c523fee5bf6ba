"""What a case needs, by name: for files, and in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vhostuser.conformance.case import Need
from vhostuser.conformance.report.json_fields import NotAReport
from vhostuser.wire.features import ProtocolFeature, VirtioFeature, names

if TYPE_CHECKING:
    from enum import IntFlag

    from vhostuser.conformance.case import Requirement

_TABLES: Final[dict[str, type[VirtioFeature] | type[ProtocolFeature]]] = {
    "virtio": VirtioFeature,
    "protocol": ProtocolFeature,
}
_MOST_BITS: Final = 64


def need_name(need: Requirement) -> str:
    """``need`` for a file: ``virtio:RING_PACKED``."""
    if isinstance(need, Need):
        return f"need:{need.name}"
    kind = "virtio" if isinstance(need, VirtioFeature) else "protocol"
    return f"{kind}:{'|'.join(names(need, _TABLES[kind]))}"


def need_from_name(text: str, where: str) -> Requirement:
    """What `need_name` wrote.

    Raises:
        NotAReport: we do not know it; ``where`` is where it stood.
    """
    kind, colon, name = text.partition(":")
    if kind == "need" and name in Need.__members__:
        return Need[name]
    if colon and kind in _TABLES:
        bits = [_bit(each, _TABLES[kind]) for each in name.split("|") if each]
        if None not in bits:
            return _TABLES[kind](sum(bit for bit in bits if bit is not None))
    raise NotAReport(f"{where}: found {text!r}, expected virtio:NAME, protocol:NAME or need:NAME")


def _bit(name: str, table: type[IntFlag]) -> int | None:
    if name in table.__members__:
        return int(table[name])
    word, _, number = name.partition(" ")
    known = word == "bit" and number.isdecimal() and int(number) < _MOST_BITS
    return 1 << int(number) if known else None


def need_words(need: Requirement) -> str:
    """``need`` for people."""
    if isinstance(need, Need):
        return need.value
    kind = "feature" if isinstance(need, VirtioFeature) else "protocol feature"
    return f"{kind} {', '.join(names(need, VirtioFeature if kind == 'feature' else ProtocolFeature))}"
