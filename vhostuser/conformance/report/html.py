"""Runs as one page of HTML that needs nothing else: no network, no files beside it, no server.

The page is put together from the files in ``page/``; the results are JSON inside it, and its script shows them.  What a
target printed or sent is hostile here more than anywhere: whoever runs the suite opens the page in a browser.  So

* no string becomes markup: the script makes elements, and texts go into them as text;
* the JSON has no ``<``, so it cannot end its own element;
* the browser is told to run this one script and no other, and to load nothing from anywhere.

Without scripts the page shows the failures as plain text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from vhostuser.conformance.report.json_needs import need_words
from vhostuser.conformance.report.json_report import to_data
from vhostuser.conformance.report.text import head_lines, recap_lines, style_of
from vhostuser.conformance.report.words import GROUPS, MEANINGS, contrast, ending, labels, one_line, printable
from vhostuser.conformance.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from vhostuser.conformance.result import Run

SCRIPTS: Final = ("data.js", "wire.js", "details.js", "overview.js", "list.js", "filter.js", "main.js")
"""They are one script, in this order."""
_MARKER = re.compile(r"\{\{(\w+)\}\}")


def write(runs: Sequence[Run], stream: TextIO) -> None:
    """Write ``runs`` as one page."""
    style, script = _asset("page.css"), "\n".join(map(_asset, SCRIPTS))
    parts = {
        "title": html.escape(one_line(f"Conformance: {', '.join(labels(runs))}")),
        "policy": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'",
        "style": style,
        "script": script,
        "data": _json(page_data(runs)),
        "text": html.escape("\n".join(_plain(runs))),
    }
    # In one pass: what is put in is not looked at again, whatever it looks like.
    stream.write(_MARKER.sub(lambda found: parts[found[1]], _asset("page.html")))


def page_data(runs: Sequence[Run]) -> dict[str, Any]:
    """What the script gets: the document of the JSON report, and what it would have to work out otherwise."""
    data = to_data(runs)
    for run, label, told in zip(runs, labels(runs), data["runs"], strict=True):
        told["label"] = label
        for result, told_result in zip(run.results, told["results"], strict=True):
            parts = contrast(result.reason)
            told_result["contrast"] = parts._asdict() if parts else None
            told_result["ending"] = ending(result)
            told_case = told["cases"][result.case.id]
            told_case["needs"] = [need_words(each) for each in result.case.needs]
            told_case["absent"] = [need_words(each) for each in result.case.absent]
    there = {result.case.group: "" for run in runs for result in run.results}
    groups = {group: title for group, title in GROUPS.items() if group in there} | {
        group: "" for group in there if group not in GROUPS
    }
    verdicts = [{"name": v.value, "kind": style_of(v).name.lower(), "meaning": MEANINGS[v]} for v in Verdict]
    cleaned: dict[str, Any] = _cleaned({"runs": data["runs"], "groups": groups, "verdicts": verdicts})
    return cleaned


def _plain(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        for line in (*head_lines(run), *recap_lines(run), ()):
            yield "".join(piece.text for piece in line)


def _cleaned(value: Any) -> Any:
    """The same with every string as `printable`: text that turns the direction of writing misleads in a browser too."""
    match value:
        case str():
            return printable(value)
        case list():
            return [_cleaned(each) for each in value]
        case dict():
            return {printable(name): _cleaned(each) for name, each in value.items()}
    return value


def _json(data: Any) -> str:
    """JSON in which nothing can be taken for markup."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(source: str) -> str:
    """How a content security policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")
