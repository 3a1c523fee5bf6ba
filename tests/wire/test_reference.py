"""The page that is made out of the catalogue."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vhostuser.wire import reference
from vhostuser.wire.messages import CATALOG

if TYPE_CHECKING:
    from pathlib import Path

    from vhostuser.wire.catalog import MessageSpec

PAGE = reference.page()


def section(name: str) -> str:
    return PAGE.split(f"\n### {name}\n")[1].split("\n### ")[0]


@pytest.mark.parametrize("spec", CATALOG.values(), ids=lambda spec: spec.name)
def test_every_message_has_a_row_and_a_section(spec: MessageSpec) -> None:
    assert f"\n| {int(spec.request)} | [`{spec.name}`](#{spec.name.lower()}) |" in PAGE
    assert f"class `{spec.message.__name__}`" in section(spec.name)


def test_every_link_leads_to_a_heading() -> None:
    headings = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\(#([^)]*)\)", PAGE)) <= headings


def test_every_table_has_as_many_cells_in_each_row() -> None:
    for table in re.findall(r"(?:^\|.*\|\n)+", PAGE, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_a_section_says_all_there_is_to_know() -> None:
    text = section("SET_MEM_TABLE")
    assert "Replace the whole memory table." in text
    assert "| 8 | 32 n | `MemoryRegion[n]` | `regions`: [`MemoryRegion`](#memoryregion) |" in text
    assert "* **Answer:** in postcopy: [`MemoryTable`](#memorytable); else *acknowledged*" in text
    assert "* **Descriptors:** 1 a region" in text
    assert "Once `XEN_MMAP` is negotiated (class `XenSetMemTable`):" in text


def test_gates_fds_and_refusals_are_told() -> None:
    assert "* **Refusal:** a payload of 0 bytes" in section("GET_CONFIG")
    assert "(offered is enough)" in section("GET_QUEUE_NUM")
    assert "* **Needs, to bring a descriptor:** [`BACKEND_SEND_FD`]" in section("BACKEND_SHMEM_MAP")
    assert "* **Descriptors with the reply:** 0 or 1" in section("GET_INFLIGHT_FD")


def test_without_arguments_the_page_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([]) == 0
    assert capsys.readouterr().out == PAGE


def test_a_fresh_page_passes_the_check(tmp_path: Path) -> None:
    file = tmp_path / "messages.md"
    file.write_text(PAGE, encoding="utf-8")
    assert reference.main(["--check", str(file)]) == 0


def test_a_stale_page_fails_the_check_and_is_told_how_to_become_fresh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "messages.md"
    file.write_text(PAGE.replace("SET_OWNER", "SET_MASTER"), encoding="utf-8")
    assert reference.main(["--check", str(file)]) == 1
    assert f"{file} is stale: python -m vhostuser.wire.reference > {file}" in capsys.readouterr().err


def test_a_page_that_is_not_there_is_stale(tmp_path: Path) -> None:
    assert reference.main(["--check", str(tmp_path / "no.md")]) == 1


def test_other_arguments_are_told_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--help"]) == 2
    assert "--check" in capsys.readouterr().err


def test_the_module_is_a_program() -> None:
    command = [sys.executable, "-m", "vhostuser.wire.reference"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == PAGE.encode()
