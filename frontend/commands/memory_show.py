"""The answers of ``vhost-user memory``, for people and for machines."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from frontend.commands.printing import Printer
from vhostuser.memory.guard import seals_forbid_shrink
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from frontend.guest.memory import GuestBlock
    from vhostuser.memory.proc import MemoryReport, RamBlock


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer.

    Attributes:
        shareable: a back-end could have all of the memory.
        json: the answer for machines.
        table: the answer for people ...
        remarks: ... and what to say below it, a paragraph each.
    """

    shareable: bool
    json: Mapping[str, Any]
    table: Table
    remarks: Sequence[str]

    def print(self) -> None:
        """To stdout."""
        printer = Printer()
        if self.table.row_count:
            printer.print(self.table)
        for remark in self.remarks:
            click.echo(remark)  # not wrapped: there may be options in it, to be copied


def show_process(report: MemoryReport) -> Shown:
    """What was found in a process."""
    table = _table("block", "backend", "size", "fd", "address", "flags", "offered")
    for block in (*report.blocks, *report.unused):
        mapping = block.mapping
        table.add_row(
            block.ram.id,
            block.ram.type.removeprefix("memory-backend-") or block.kind,
            format_size(block.size),
            ", ".join(str(file.fd) for file in block.files) or "-",
            "-" if mapping is None else f"{mapping.start:#x}",
            _process_flags(block),
            _offered(block.why_not, used=block.ram.used),
        )
    reasons = [f"{block.ram.id}: {block.why_not}" for block in report.blocks if block.why_not is not None]
    verdict = f"process {report.pid}, {report.program}: {report.diagnosis}"
    return Shown(report.shareable, report.to_json(), table, [*reasons, verdict] if len(reasons) > 1 else [verdict])


def show_offer(blocks: Sequence[GuestBlock]) -> Shown:
    """What a guest with this memory would offer, while the memory is there."""
    table = _table("block", "backend", "size", "fd", "guest range", "flags", "offered")
    rows = [_offer_json(block) for block in blocks]
    for block, row in zip(blocks, rows, strict=True):
        table.add_row(
            row["id"],
            row["backend"].removeprefix("memory-backend-"),
            format_size(block.size),
            "-" if row["fd"] is None else str(row["fd"]),
            f"{block.guest_addr:#x}-{block.guest_addr + block.size - 1:#x}",
            ", ".join(row["flags"]),
            _offered(block.why_not_offered),
        )
    # A block that was split has one reason, not two.
    reasons = dict.fromkeys(block.why_not_offered for block in blocks if block.why_not_offered is not None)
    shareable = not reasons
    found = {"shareable": shareable, "blocks": rows}
    return Shown(shareable, found, table, [f"not offered: {reason}" for reason in reasons])


def _offer_json(block: GuestBlock) -> dict[str, Any]:
    memory, backend = block.memory, block.memory.backend
    return {
        "id": backend.id,
        "backend": backend.type,
        "size": block.size,
        "fd": None if memory.backing.fd is None else memory.backing.fd.fileno(),
        "guest_addr": block.guest_addr,
        "mmap_offset": memory.mmap_offset + block.offset,
        "flags": _offer_flags(block),
        "offered": block.why_not_offered is None,
        "why_not": block.why_not_offered,
    }


def _offer_flags(block: GuestBlock) -> list[str]:
    memory, fd = block.memory, block.memory.backing.fd
    page_size = memory.backing.page_size
    flags = {
        "shared" if memory.backend.share else "private": True,
        "rom": block.rom,
        "sealed": fd is not None and seals_forbid_shrink(fd),
        "durable": memory.backend.lasting,
        "not saved": not memory.backend.saved,
        f"pages of {format_size(page_size)}": page_size > mmap.PAGESIZE,
    }
    return [flag for flag, is_so in flags.items() if is_so]


def _process_flags(block: RamBlock) -> str:
    if block.mapping is None:
        return "-"
    flags = ["shared" if block.mapping.shared else "private"]
    flags += ["read-only"] if block.is_rom else []
    if block.files:
        file = block.files[0]
        flags += ["sealed"] if "shrink" in (file.seals or ()) else []
        flags += [f"pages of {format_size(file.page_size)}"] if file.page_size > mmap.PAGESIZE else []
    return ", ".join(flags)


def _offered(why_not: str | None, *, used: bool = True) -> str:
    if not used:
        return "not in use"
    return "yes" if why_not is None else "no"


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    return table
