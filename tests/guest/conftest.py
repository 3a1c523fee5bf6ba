"""Machines to test: Python's always, KVM's where there is one.  KVM is hardware, so its absence is never a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from frontend.guest.kvm import KvmMachine, why_no_kvm
from frontend.guest.slots import SoftwareSlots
from tests.guest.machines import Exits
from vhostuser.transport.notifier import NotifierKind, default_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.guest.slots import Machine


@pytest.fixture(scope="session")
def kvm_here() -> None:
    """Skips a test, and says why, where no virtual machine can be made."""
    if (reason := why_no_kvm()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def kvm_and_eventfds_here(kvm_here: None) -> None:
    """The same for tests that need ioeventfd or irqfd."""
    if default_kind() is not NotifierKind.EVENTFD:
        pytest.skip("KVM knows eventfds and no pipes")


@pytest.fixture
def exits() -> Exits:
    return Exits()


@pytest.fixture(params=["software", "kvm"])
def machine(request: pytest.FixtureRequest, exits: Exits) -> Iterator[Machine]:
    """A machine without memory, whose exits are kept in ``exits``."""
    if request.param == "software":
        yield SoftwareSlots(exits)
        return
    request.getfixturevalue("kvm_here")
    with KvmMachine(exits) as machine:
        yield machine
