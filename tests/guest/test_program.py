"""The guest's listing: bytes, addresses and meaning belong together, here and in the documentation."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from frontend.guest.kvm import program
from frontend.guest.kvm.program import HANDLER, PROGRAM, Instruction, rom_image
from tests.tools.missing import missing
from vhostuser.wire.split import VirtqDesc
from vhostuser.wire.virtio.blk import BlkHeader, BlkType

ROOT = Path(__file__).parent.parent.parent


def test_the_parts_of_the_rom_do_not_overlap() -> None:
    parts = [
        (program.TEXT_OFFSET, len(program.TEXT)),
        (HANDLER[0].offset, sum(len(each.code) for each in HANDLER)),
        (PROGRAM[0].offset, sum(len(each.code) for each in PROGRAM)),
        (program.DESCRIPTORS_OFFSET, 6 * 16),
        (program.REQUESTS_OFFSET, 2 * 16),
        (program.DATA_OFFSET, 512),
    ]
    ends = [0, *(begin + size for begin, size in parts)]
    assert all(begin >= end for (begin, _), end in zip(parts, ends, strict=False))
    assert ends[-1] <= program.ROM_SIZE


def test_the_rom_holds_what_the_program_copies() -> None:
    image = rom_image(b"secret")
    assert image.startswith(program.TEXT)
    descs = [VirtqDesc.parse(image[at : at + 16]) for at in range(0x400, 0x460, 16)]
    assert [(desc.addr, desc.len) for desc in descs] == [
        (program.REQUESTS, 16),
        (program.WRITTEN, 512),
        (program.STATUS, 1),
        (program.REQUESTS + 16, 16),
        (program.READ_BACK, 512),
        (program.STATUS + 1, 1),
    ]
    headers = [BlkHeader.parse(image[at : at + 16]) for at in (0x460, 0x470)]
    assert [header.type for header in headers] == [BlkType.OUT, BlkType.IN]
    assert image[program.DATA_OFFSET :][:8] == b"secret.."


@pytest.mark.parametrize("listing", [HANDLER, PROGRAM], ids=["handler", "program"])
def test_a_disassembler_reads_the_same_instructions(listing: tuple[Instruction, ...], tmp_path: Path) -> None:
    objdump = shutil.which("objdump")
    if objdump is None:
        missing("no objdump: on Debian, apt install binutils")
    binary = tmp_path / "rom.bin"
    binary.write_bytes(rom_image(b""))
    end = listing[-1].offset + len(listing[-1].code)
    ran = subprocess.run(
        [
            *(objdump, "-D", "-b", "binary", "-m", "i8086", "-M", "intel", "-w"),
            *(f"--start-address={listing[0].offset}", f"--stop-address={end}", str(binary)),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        missing(f"this objdump knows no i8086: {ran.stderr.strip()}")
    found = re.findall(r"^\s*([0-9a-f]+):\t([0-9a-f ]+?)\s*\t(\S+)(?: (movs|outs))?", ran.stdout, re.MULTILINE)
    assert [(int(offset, 16), bytes.fromhex(code)) for offset, code, *_ in found] == [
        (each.offset, each.code) for each in listing
    ]
    for each, (_, _, mnemonic, repeated) in zip(listing, found, strict=True):
        words = re.sub(r"^\w+: ", "", each.text).split()
        assert words[0] == mnemonic
        assert not repeated or words[1].startswith(repeated)


@pytest.mark.parametrize("listing", [HANDLER, PROGRAM], ids=["handler", "program"])
def test_the_documentation_shows_the_same_listing(listing: tuple[Instruction, ...]) -> None:
    page = (ROOT / "docs" / "kvm.md").read_text(encoding="utf-8")
    assert "\n".join(str(each) for each in listing) in page
