"""Memory behind an IOMMU: three kinds of addresses of which no two are the same number."""

from __future__ import annotations

import itertools

from frontend.conformance.iommu import SHIFT, WINDOW, IommuMemory, through_window
from frontend.conformance.memory import PAGE
from frontend.conformance.model import RngModel
from vhostuser.wire.records import IotlbPermission, IotlbType


def test_no_address_means_two_things() -> None:
    with IommuMemory() as memory:
        virtual = [(each.guest_addr, each.size) for each in memory.regions] + [(WINDOW, PAGE)]
        guest = [(each.guest_addr, each.size) for each in memory.told]
        user = [(each.user_addr, each.size) for each in memory.told]
        spans = sorted(virtual + guest + user)
        assert all(first + size <= second for (first, size), (second, _) in itertools.pairwise(spans))


def test_ring_addresses_are_virtual_and_entries_lead_to_what_was_told() -> None:
    with IommuMemory() as memory:
        buffer = memory.buffer(8)
        assert buffer.user_addr == buffer.addr
        entry = memory.entry()
        assert (entry.iova, entry.type) == (memory.regions[0].guest_addr, IotlbType.UPDATE)
        assert entry.user_addr == memory.told[0].user_addr != memory.told[0].guest_addr


def test_with_gpa_addresses_entries_lead_to_guest_addresses() -> None:
    with IommuMemory(gpa=True) as memory:
        assert memory.entry().user_addr == memory.told[0].guest_addr == memory.regions[0].guest_addr + SHIFT


def test_the_window_shows_one_page_of_the_second_region() -> None:
    with IommuMemory() as memory:
        entry = memory.window(3, IotlbPermission.READ)
        assert (entry.iova, entry.size, entry.permission) == (WINDOW, PAGE, IotlbPermission.READ)
        assert entry.user_addr == memory.told[1].user_addr + 3 * PAGE
        memory.page(3)[:2] = b"hi"
        assert bytes(memory.view(memory.regions[1].guest_addr + 3 * PAGE, 2)) == b"hi"


def test_a_request_through_the_window_is_judged_by_what_lies_behind_it() -> None:
    with IommuMemory() as memory:
        page = memory.page(0)
        request = through_window(RngModel().request(memory), page)
        (buffer,) = request.writable
        assert (buffer.addr, len(buffer)) == (WINDOW, 32)
        page[:32] = bytes(range(1, 33))
        request.check(32)
