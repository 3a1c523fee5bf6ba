"""Which cases are meant, and in which order they run."""

from __future__ import annotations

import pytest

from vhostuser.conformance import Level, Suite
from vhostuser.conformance.selection import Selection, matches


async def nothing(peer: object) -> None:
    """Does nothing."""


def declare(suite: Suite, id_: str, level: Level = Level.MUST, **more: object) -> None:
    text = {"title": "t", "section": "s", "provoke": "p", "passes": "x"}
    suite.case(id_, level=level, **text, **more)(nothing)  # type: ignore[arg-type]


@pytest.fixture
def suite() -> Suite:
    made = Suite()
    declare(made, "B-RNG-10")
    declare(made, "B-RNG-02", variants=("split", "packed"))
    declare(made, "B-MEM-01", Level.SHOULD, tags=("slow",))
    declare(made, "B-MEM-02", destructive=True, tags=("hostile",))
    made.manual("B-MEM-03", level=Level.MAY, title="t", section="s", reason="r", provoke="p", passes="x")
    return made


def chosen(suite: Suite, *patterns: str, **options: object) -> list[str]:
    return [turn.name for turn in Selection(patterns=patterns, **options).turns(suite)]  # type: ignore[arg-type]


def test_all_but_what_destroys_by_group_and_number(suite: Suite) -> None:
    assert chosen(suite) == ["B-RNG-02[split]", "B-RNG-02[packed]", "B-RNG-10", "B-MEM-01", "B-MEM-03"]
    assert chosen(suite, groups=["MEM"])[0] == "B-MEM-01"
    assert "B-MEM-02" in chosen(suite, destructive=True)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["B-MEM-*"], ["B-MEM-01", "B-MEM-03"]),
        (["B-RNG-02"], ["B-RNG-02[split]", "B-RNG-02[packed]"]),
        (["B-RNG-02[packed]"], ["B-RNG-02[packed]"]),
        (["B-RNG-*[packed]"], ["B-RNG-02[packed]"]),
        (["B-MEM-0[12]"], ["B-MEM-01"]),
        (["no:B-RNG-*"], ["B-MEM-01", "B-MEM-03"]),
        (["B-MEM-*", "no:*-01"], ["B-MEM-03"]),
        (["B-NOPE-*"], []),
    ],
)
def test_globs(suite: Suite, patterns: list[str], expected: list[str]) -> None:
    assert chosen(suite, *patterns) == expected


def test_levels_and_tags(suite: Suite) -> None:
    assert chosen(suite, levels=[Level.SHOULD, Level.MAY]) == ["B-MEM-01", "B-MEM-03"]
    assert chosen(suite, tags=["slow"]) == ["B-MEM-01"]
    assert chosen(suite, tags=["MEM", "no:slow"], destructive=True) == ["B-MEM-02", "B-MEM-03"]


def test_what_failed_comes_first(suite: Suite) -> None:
    assert chosen(suite, "B-RNG-*", first={"B-RNG-10"}) == ["B-RNG-10", "B-RNG-02[split]", "B-RNG-02[packed]"]


def test_a_name_and_its_id() -> None:
    assert matches("B-SPL-07[packed]", "B-SPL-07")
    assert not matches("B-SPL-07[packed]", "B-SPL-07[split]")
    assert not matches("B-SPL-07", "B-SPL-07[split]")
