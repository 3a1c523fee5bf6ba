"""How the demo tells what happens: numbered steps for people, one object for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from frontend.commands.printing import Printer
from vhostuser.trace.decode import Kind
from vhostuser.wire.requests import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.trace.decode import Decoded

INDENT = 3
NAME_WIDTH = 22
MARGIN = (0, 0, 0, INDENT)


class Story:
    """What has happened so far.

    Args:
        silent: tell nothing; only `facts` and `problems` count.

    Attributes:
        facts: what to tell machines.
        problems: what is not as it should be.
    """

    def __init__(self, *, silent: bool) -> None:
        self._printer = Printer(silent=silent)
        self._steps = 0
        self._unanswered: Decoded | None = None
        arrows = "→←" if self._printer.unicode else "><"
        self._arrows = dict(zip(Role, arrows, strict=True))
        self.facts: dict[str, Any] = {"messages": []}
        self.problems: list[str] = []

    def begin(self, text: str) -> None:
        """The first line."""
        self._printer.print(Text(text, style="bold"))

    def step(self, title: str) -> None:
        """Begin a part."""
        self._steps += 1
        self._printer.print()
        self._printer.print(Text(f"{self._steps}. {title}", style="bold"))

    def say(self, text: str) -> None:
        """A sentence or two."""
        self._printer.print(Padding(Text(text, overflow="fold"), MARGIN))

    def end(self, text: str) -> None:
        """The last line, not in any part."""
        self._printer.print()
        self._printer.print(Text(text, style="bold red" if self.problems else "bold green"))

    def check(self, holds: bool, so: str, otherwise: str) -> None:
        """Say ``so`` if it ``holds``; if not, say ``otherwise`` and remember it as a problem."""
        if holds:
            self.say(so)
        else:
            self.problems.append(otherwise)
            self._printer.print(Padding(Text(f"WRONG: {otherwise}", style="bold red"), MARGIN))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Some rows, under a head if there is one."""
        table = Table.grid(*(Column(overflow="fold") for _ in rows[0]), padding=(0, 2))
        if head:
            table.add_row(*(Text(title, style="dim") for title in head))
        for row in rows:
            table.add_row(*row)
        self._printer.print(Padding(table, MARGIN))

    # --- messages ---

    def message(self, decoded: Decoded) -> None:
        """One more message has passed.  An acknowledgement is told on the line of what it acknowledges."""
        self.facts["messages"].append(message_facts(decoded))
        asked = self._unanswered
        if decoded.kind is Kind.ACK and asked is not None and asked.name == decoded.name:
            self._unanswered = None
            self._line(asked, f"{self._arrows[decoded.sender]} {decoded.detail}")
            return
        self.flush_messages()
        if decoded.need_reply:
            self._unanswered = decoded
        else:
            self._line(decoded)

    def flush_messages(self) -> None:
        """Tell what still waits for its acknowledgement."""
        if self._unanswered is not None:
            self._line(self._unanswered)
            self._unanswered = None

    def _line(self, decoded: Decoded, answer: str = "") -> None:
        fds = f"with fd {', '.join(map(str, decoded.descriptors))}" if decoded.descriptors else ""
        row = Table.grid(padding=(0, 1))
        row.add_column(width=1)
        row.add_column(width=NAME_WIDTH)
        row.add_column(overflow="fold")
        row.add_row(
            self._arrows[decoded.sender],
            Text(decoded.name, style="cyan"),
            Text("  ".join(filter(None, [decoded.detail, fds, answer]))),
        )
        self._printer.print(Padding(row, MARGIN))


def message_facts(decoded: Decoded) -> dict[str, Any]:
    """A message for machines."""
    return {
        "sender": decoded.sender.name.lower(),
        "kind": decoded.kind.value,
        "name": decoded.name,
        "detail": decoded.detail,
        "fds": [{"fd": each.number, "kind": each.kind} for each in decoded.descriptors],
    }
