"""What is made of measurements: medians, ratios within a round, verdicts, the page and its pictures.  No rates."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from benchmarks import backends as b
from benchmarks.experiments import BUSY, MACHINE, SCALED
from benchmarks.page import BEGIN, END, PICTURES, NoMarks, renew
from benchmarks.plots import LINE_HEIGHT, lines, short, spaced
from benchmarks.programs import SOURCES, WARNINGS
from benchmarks.sample import Place, Results, Sample, Spread, spread
from benchmarks.svg import HUES, Drawing
from benchmarks.tables import TABLES
from benchmarks.targets import Target, targets
from tests.test_floors import ROOT
from tests.tools.missing import missing

if TYPE_CHECKING:
    from pathlib import Path

OURS, THEIRS = Place("busy", b.PYTHON.name, BUSY), Place("busy", b.QSD_URING.name, BUSY)


def results(**rounds: list[float]) -> Results:
    """Rates at depth 128, a row of rounds for each back-end (``_`` for ``-`` in its name)."""
    names = {name.replace("-", "_"): name for name in b.TITLES}
    return Results(
        [
            Sample("busy", names[key], BUSY, number, {"iops": rate})
            for key, row in rounds.items()
            for number, rate in enumerate(row)
        ]
    )


def everything() -> Results:
    """Something for each table and picture."""
    found = results(python=[100, 120], loop=[900], qsd_threads=[50], qsd_io_uring=[80, 60])
    values = {"iops": 7.0, "p50_us": 1.5, "p99_us": 9.0, "cpu_ns": 120.0, "first_us": 800.0, "ms": 3.0}
    limits = {"memcpy": 2e6, "preadv": 1e6, "eventfd_one_cpu": 3e5, "eventfd_two_cpus": 2e4}
    for experiment, subject, x in (
        ("busy, sleeping", "python", BUSY),
        ("asleep", "loop", 1),
        ("watched", "loop+poll", 1),
        ("depths", "python", 1),
        ("depths", "python", 16),
        ("queues", "loop", 2),
        ("images", "loop", 16),
        ("writes", "python", BUSY),
        ("front-ends", "libblkio on qsd-io_uring", BUSY),
        ("front-ends", "us-python on qsd-io_uring", BUSY),
        ("first request", "python", 1),
        ("start", "vhost-user --help", 0),
    ):
        found.samples.append(Sample(experiment, subject, x, 0, values))
    for experiment in ("busy", "asleep"):
        found.samples.append(Sample(experiment, MACHINE, 0, 0, limits))
    found.machine = {"processor": "one of <those> & others"}
    found.left_out = {"thread": "there is none"}
    return found


def page(folder: Path) -> Path:
    path = folder / "page.md"
    path.write_text(f"# Title\n\n{BEGIN}\nold figures\n{END}\n\nThe end.\n")
    return path


def test_a_ratio_is_the_median_of_the_ratios_of_rounds() -> None:
    found = results(python=[10, 300, 60], qsd_io_uring=[10, 100, 30]).ratio(OURS, THEIRS)
    assert found is not None
    assert found.median == 2  # and not 60 / 30 of the medians by chance: quartiles of 1, 3 and 2
    assert (found.low, found.high) == (1.5, 2.5)


def test_only_rounds_that_both_have_are_compared() -> None:
    found = results(python=[10, 50], qsd_io_uring=[10]).ratio(OURS, THEIRS)
    assert found == Spread(1, 1, 1)
    assert results(python=[10]).ratio(OURS, THEIRS) is None


def test_nothing_measured_has_no_spread() -> None:
    assert spread([]) is None
    assert Results().spread(OURS) is None
    assert Results().fastest([OURS, THEIRS]) is None


def test_the_fastest_is_the_one_with_the_highest_median() -> None:
    assert results(python=[1, 2, 90], qsd_io_uring=[3, 3, 3]).fastest([OURS, THEIRS]) == THEIRS


def test_figures_that_are_kept_are_the_same_afterwards() -> None:
    found = everything()
    assert Results.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("less", "figure", "verdict"),
    [
        (False, 0.5, "missed"),
        (False, 1, "reached"),
        (False, 2, "aim reached"),
        (True, 0.5, "aim reached"),
        (True, 1, "reached"),
        (True, 2, "missed"),
    ],
)
def test_a_target_says_whether_it_is_reached(less: bool, figure: float, verdict: str) -> None:
    must, aim = (1.5, 0.5) if less else (1, 1.5)
    target = Target("this", "that", must, aim, lambda _: None, less)
    assert target.verdict(Spread(figure, figure, figure)) == verdict
    assert target.verdict(None) == "not measured"


def test_aims_are_beyond_musts() -> None:
    assert all(each.aim <= each.must if each.less else each.aim >= each.must for each in targets())


def test_a_page_keeps_its_prose_and_loses_its_old_figures(tmp_path: Path) -> None:
    path = page(tmp_path)
    renew(path, everything())
    text = path.read_text()
    assert text.startswith(f"# Title\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nThe end.\n")
    assert "old figures" not in text
    renew(path, everything())
    assert path.read_text() == text


def test_a_page_has_every_table_and_both_pictures(tmp_path: Path) -> None:
    path = page(tmp_path)
    renew(path, everything())
    text = path.read_text()
    assert [title for title in TABLES if f"### {title}\n" not in text] == []
    for name in PICTURES.values():
        assert f"]({name})" in text
        assert ElementTree.parse(tmp_path / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_tables_are_as_wide_as_their_heads() -> None:
    for rows in TABLES.values():
        found = list(rows(everything()))
        assert {len(row) for row in found} == {len(found[0])}


def test_a_page_of_nothing_has_no_pictures(tmp_path: Path) -> None:
    path = page(tmp_path)
    renew(path, Results())
    assert "not measured" in path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["page.md"]


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("nothing here")
    with pytest.raises(NoMarks, match="expected one line"):
        renew(path, Results())


def test_the_projects_own_page_has_its_marks_once() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert (text.count(BEGIN), text.count(END)) == (1, 1)


def test_text_in_a_picture_is_escaped() -> None:
    drawing = Drawing(10, 10, "a < b & c")
    drawing.text(1, 1, "<script>")
    root = ElementTree.fromstring(str(drawing))
    assert [each.text for each in root.iter() if each.text and "<" in each.text] == ["a < b & c", "<script>"]


def test_a_picture_has_a_colour_for_each_line() -> None:
    assert len(SCALED) <= len(HUES)
    series = {each.title: {1: Spread(1, 2, 3), 4: Spread(2, 3, 4)} for each in SCALED}
    assert all(f"{each.title}</text>" in lines("many", series) for each in SCALED)


def test_names_at_the_ends_of_lines_do_not_lie_on_each_other() -> None:
    found = spaced([10, 12, 11, 100])
    assert all(later - earlier >= LINE_HEIGHT for earlier, later in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("figure", "said"), [(2_310_000, "2.31 M"), (84_900, "84.9 k"), (999, "999"), (0.5, "0"), (120_000, "120 k")]
)
def test_figures_have_three_digits(figure: float, said: str) -> None:
    assert short(figure) == said


def test_the_machine_says_what_it_gives_at_most(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        missing("no C compiler: install gcc and libc6-dev")
    image, program = tmp_path / "image", tmp_path / "limits"
    image.write_bytes(bytes(1 << 16))
    subprocess.run([compiler, *WARNINGS, str(SOURCES / "limits.c"), "-o", str(program)], check=True)
    ran = subprocess.run([program, image, "4096", "0.001"], capture_output=True, check=True)
    assert all(rate > 0 for rate in json.loads(ran.stdout).values())


@pytest.mark.parametrize("backend", [each for each in b.ALL if each.file], ids=lambda each: each.name)
def test_a_back_end_that_serves_the_image_is_told_which(backend: b.Backend, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    command = backend.command(image, 7)
    assert any(str(image) in word for word in command)
    assert "7" in command or any("addr.str=7" in word for word in command)
    watching = backend.watching()
    assert watching.name in b.TITLES
    assert watching.options[-2:] == b.WATCH
