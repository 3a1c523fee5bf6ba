"""Two reports side by side: what a back-end offered once, and what it offers now.

What varies from run to run is left out: where the socket is, how fast it was, quirks that are seen by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frontend.probe.report import BY_CHANCE, FORMAT
from vhostuser.errors import VhostUserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_WORDS = ("features", "protocol_features")
_NUMBERS = {"type": "type", "queues": "queues", "memory_slots": "memory slots", "status": "status"}
_NUMBERS |= {"need_reply": "need_reply", "ended": "ended"}


class NotAReport(VhostUserError):
    """This JSON is not what a probe has written."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was.

    Attributes:
        what: its kind, ``virtio feature`` for one.
        before: how it was; None when it was not there.
        now: how it is; None when it is not there any more.
    """

    what: str
    before: Any
    now: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.what}: {self.now}"
        return f"- {self.what}: {self.before}" if self.now is None else f"~ {self.what}: {self.before} -> {self.now}"

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {"what": self.what, "before": self.before, "now": self.now}


def differences(before: Any, now: Any) -> list[Difference]:
    """What differs between two reports, each as `Report.to_json` makes it.

    Raises:
        NotAReport: one of them is something else.
    """
    found = before.get("format") if isinstance(before, dict) else None
    if found != FORMAT:
        raise NotAReport(f"found format {found}, expected {FORMAT}: a file that `vhost-user probe --json` has written")
    try:
        return list(_all(before, now))
    except (AttributeError, KeyError, TypeError) as error:
        raise NotAReport(f"a report with something missing or out of place: {error}") from error


def _all(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    for key, name in _NUMBERS.items():
        if before[key] != now[key]:
            yield Difference(name, before[key], now[key])
    for key in _WORDS:
        what = "virtio feature" if key == "features" else "protocol feature"
        yield from _sets(what, _names(before[key]), _names(now[key]))
    yield from _configs(before["config"], now["config"])
    yield from _sets("quirk", _quirks(before), _quirks(now))


def _sets(what: str, before: Iterable[str], now: Iterable[str]) -> Iterator[Difference]:
    before, now = list(before), list(now)
    yield from (Difference(what, name, None) for name in before if name not in now)
    yield from (Difference(what, None, name) for name in now if name not in before)


def _names(word: Mapping[str, Any] | None) -> list[str]:
    return list(word["names"]) if word else []


def _quirks(report: Mapping[str, Any]) -> list[str]:
    return [f"{quirk['id']}: {quirk['detail']}" for quirk in report["quirks"] if quirk["id"] not in BY_CHANCE]


def _configs(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[Difference]:
    """By field where there are names for them, else as a whole."""
    old, new = (config or {"hex": None, "fields": {}} for config in (before, now))
    if not (old["fields"] or new["fields"]):
        if old["hex"] != new["hex"]:
            yield Difference("config", old["hex"], new["hex"])
        return
    for name in {**old["fields"], **new["fields"]}:
        was, is_ = old["fields"].get(name), new["fields"].get(name)
        if was != is_:
            yield Difference(f"config {name}", was, is_)
