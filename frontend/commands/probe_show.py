"""A `Report` as tables, for a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from frontend.commands.meanings import DEVICE_MEANINGS
from frontend.commands.printing import Printer
from frontend.probe.config import SPACES
from frontend.probe.report import BY_CHANCE
from vhostuser.memory.sizes import format_size
from vhostuser.wire.features import PROTOCOL_MEANINGS, VIRTIO_MEANINGS, ProtocolFeature, names
from vhostuser.wire.virtio.blk import SECTOR_SIZE
from vhostuser.wire.virtio.features import describe
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from frontend.probe.report import Report

HEX_LINE = 16
"""Bytes in a line."""


def show(report: Report, socket_path: str) -> None:
    """Print all of it to stdout."""
    printer = Printer()
    printer.print(_facts(report, socket_path))
    for table in _tables(report):
        printer.print()
        printer.print(table)


def _tables(report: Report) -> list[Table]:
    tables = []
    if report.features:
        named, meanings = describe(report.features, report.device.type), _meanings(report.device.type)
        tables.append(_features("virtio feature", report.features, named, meanings))
    if report.protocol_features:
        named = names(report.protocol_features, ProtocolFeature)
        tables.append(_features("protocol feature", report.protocol_features, named, PROTOCOL_MEANINGS))
    if report.config:
        tables.append(_fields(report) if report.config_fields else _bytes(report.config))
    if report.quirks:
        tables.append(_quirks(report))
    return tables


def _facts(report: Report, socket_path: str) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in {
        "socket": socket_path,
        "device type": _type(report),
        "queues": _told(report.queues, asked=report.has(ProtocolFeature.MQ), else_="not told: MQ is not offered"),
        "memory slots": _told(
            report.memory_slots, asked=report.has(ProtocolFeature.CONFIGURE_MEM_SLOTS), else_="not told"
        ),
        "need_reply": report.need_reply,
        "round trip": _round_trip(report),
        "quirks": "none" if not report.quirks else f"{len(report.quirks)}, see below",
    }.items():
        table.add_row(name, Text(value))
    return table


def _type(report: Report) -> str:
    device = report.device
    if device.type is None:
        return "unknown, and nothing to guess it from; --type tells it"
    return f"{device.name}, a guess: {device.why}" if device.why else device.name


def _told(value: int | None, *, asked: bool, else_: str) -> str:
    if value is not None:
        return str(value)
    return "no answer" if asked else else_


def _round_trip(report: Report) -> str:
    times = report.round_trip_us()
    if times is None:
        return "not measured"
    return f"{times['median']:.0f} µs, {times['least']:.0f} to {times['most']:.0f} in {len(report.round_trips)}"


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    return table


def _features(title: str, offered: int, named: list[str], meanings: Mapping[Any, str]) -> Table:
    table = _table(title, "bit", "meaning")
    bits = [bit for bit in range(offered.bit_length()) if offered & (1 << bit)]
    for bit, name in zip(bits, named, strict=True):
        table.add_row(name, str(bit), meanings.get(1 << bit, "unknown"))
    return table


def _meanings(device_type: int | None) -> Mapping[Any, str]:
    return {**DEVICE_MEANINGS.get(device_type or 0, {}), **VIRTIO_MEANINGS}


def _fields(report: Report) -> Table:
    table = _table("configuration space", "value")
    shown = dict(report.config_fields)
    unread = [name for name in _expected(report) if name not in shown]
    for name, value in shown.items():
        table.add_row(name, Text(_in_words(report, name, value)))
    for name in unread:
        table.add_row(name, Text("not given"))
    return table


def _in_words(report: Report, name: str, value: Any) -> str:
    if name == "capacity" and report.device.type == DeviceType.BLOCK:
        return f"{value}, which is {format_size(value * SECTOR_SIZE)}"
    return str(value) or '""'


def _expected(report: Report) -> list[str]:
    space = SPACES.get(report.device.type or 0)
    return space.meaningful(report.features or 0) if space else []


def _bytes(data: bytes) -> Table:
    table = _table("configuration space", f"{len(data)} bytes")
    for at in range(0, len(data), HEX_LINE):
        table.add_row(f"{at:#04x}", data[at : at + HEX_LINE].hex(" "))
    return table


def _quirks(report: Report) -> Table:
    table = _table("quirk", "what was seen")
    for quirk in report.quirks:
        table.add_row(quirk.id, Text(quirk.detail + (" (not in every run)" if quirk.id in BY_CHANCE else "")))
    return table
