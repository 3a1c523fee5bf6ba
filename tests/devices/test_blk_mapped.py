"""A disk over a mapped image: the answers are a file's, whichever way the device looks at a request."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.devices.driving import BlkRing
from vhostuser.devices.blk import BlkDevice, MappedStorage
from vhostuser.memory import guard
from vhostuser.memory.address import address_of
from vhostuser.wire.virtio.blk import BlkFeature, BlkStatus, BlkType

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECTOR = 512
CONTENT = os.urandom(64 * SECTOR)


@pytest.fixture(params=["frames", "streams"])
def ring(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlkRing]:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    with closing(MappedStorage(path)) as storage:
        ring = BlkRing(BlkDevice(storage))
        ring.cut_headers = request.param == "streams"
        ring.device.negotiated(int(BlkFeature.FLUSH))
        yield ring


def storage_of(ring: BlkRing) -> MappedStorage:
    assert isinstance(ring.device, BlkDevice)
    assert isinstance(ring.device.storage, MappedStorage)
    return ring.device.storage


async def test_reads_and_writes_are_those_of_the_file(ring: BlkRing, tmp_path: Path) -> None:
    assert await ring.ask(BlkType.IN, 3, wanted=2 * SECTOR) == (0, CONTENT[3 * SECTOR : 5 * SECTOR], 2 * SECTOR + 1)
    data = os.urandom(SECTOR)
    assert (await ring.ask(BlkType.OUT, 7, out=data)).status == BlkStatus.OK
    assert (await ring.ask(BlkType.FLUSH)).status == BlkStatus.OK
    assert (tmp_path / "image").read_bytes() == CONTENT[: 7 * SECTOR] + data + CONTENT[8 * SECTOR :]


async def test_a_file_that_grew_is_mapped_anew(ring: BlkRing, tmp_path: Path) -> None:
    more = os.urandom(SECTOR)
    with (tmp_path / "image").open("ab") as file:
        file.write(more)
    assert (await ring.ask(BlkType.IN, 64, wanted=SECTOR)).status == BlkStatus.IOERR
    assert isinstance(ring.device, BlkDevice)
    assert ring.device.refresh()
    assert await ring.ask(BlkType.IN, 64, wanted=SECTOR) == (0, more, SECTOR + 1)


@pytest.mark.parametrize("kind", [BlkType.IN, BlkType.OUT])
async def test_what_is_not_mapped_any_more_is_an_error(ring: BlkRing, kind: BlkType) -> None:
    storage_of(ring).close()
    out, wanted = (b"", SECTOR) if kind == BlkType.IN else (bytes(SECTOR), 0)
    assert (await ring.ask(kind, 0, out=out, wanted=wanted)).status == BlkStatus.IOERR


@pytest.mark.skipif(not guard.SUPPORTED, reason="no page can be repaired on this system")
async def test_no_zeros_of_a_repaired_page_are_passed_off_as_the_file_s(ring: BlkRing) -> None:
    buffer = storage_of(ring).backing().buffer
    assert buffer is not None
    assert guard.repair(address_of(buffer))
    del buffer
    assert (await ring.ask(BlkType.IN, 0, wanted=SECTOR)).status == BlkStatus.IOERR
    assert (await ring.ask(BlkType.OUT, 0, out=bytes(SECTOR))).status == BlkStatus.IOERR
