"""SET_MEM_TABLE has room for eight regions; how much of the unused room is sent differs from peer to peer."""

from __future__ import annotations

import pytest

from tests.protocol.helpers import REGION
from vhostuser.errors import LocalProtocolError
from vhostuser.protocol.payloads import check_payload
from vhostuser.wire.frontend_messages import SetMemTable
from vhostuser.wire.records import MemoryRegion

PLACE = MemoryRegion.wire_size()


@pytest.mark.parametrize(
    "unused",
    [
        pytest.param(0, id="QEMU"),
        pytest.param(1, id="Linux's virtio_uml, whose table has two places"),
        pytest.param(7, id="all eight places"),
    ],
)
def test_a_memory_table_may_carry_unused_places(unused: int) -> None:
    check_payload(SetMemTable((REGION,), bytes(unused * PLACE)))


@pytest.mark.parametrize("size", [1, PLACE - 1, PLACE + 1, 8 * PLACE])
def test_a_memory_table_carries_nothing_but_whole_places_and_no_ninth(size: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"{size} bytes behind the regions, expected unused places of 32"):
        check_payload(SetMemTable((REGION,), bytes(size)))
