"""Faults of feature negotiation, of both kinds."""

from __future__ import annotations

import itertools
from typing import Any

from tests.conformance.mutants.registry import edit, mutant, wrap
from vhostuser.backend import connection
from vhostuser.protocol import rings, state
from vhostuser.protocol.backend import BackendProtocol
from vhostuser.protocol.rings import TRANSITIONS, Effect, RingEvent
from vhostuser.protocol.state import ProtocolState
from vhostuser.virtqueue.split_device import SplitDevice
from vhostuser.wire.features import ProtocolFeature

_TRANSITIONS: Any = TRANSITIONS


def _offer(features: int) -> None:
    """Offer other protocol features: ``features`` are those that change."""

    @wrap(connection, "_protocol_features")
    def offered(original: Any, device: Any) -> ProtocolFeature:
        return ProtocolFeature(int(original(device)) ^ features)


def _demand(condition: str) -> None:
    """Refuse messages for which ``condition`` does not hold."""
    edit(ProtocolState, "_check", "check_payload(message)", f"check_payload(message); expect({condition}, 'no', 'yes')")


@mutant("B-FEAT-02")
def features_unstable() -> None:
    """Every second GET_FEATURES has one bit less."""
    calls = itertools.count()

    @wrap(BackendProtocol, "_known")
    def known(original: Any, self: BackendProtocol, message: Any) -> Any:
        value = original(self, message)
        return value & ~(1 << 28) if message.spec.request == 1 and next(calls) % 2 else value


@mutant("B-FEAT-03")
def features_only_for_the_owner() -> None:
    """GET_FEATURES before SET_OWNER is refused."""
    _demand("self.owner or spec.request != 1")


@mutant("B-FEAT-04")
def all_features_or_none() -> None:
    """SET_FEATURES is refused unless it takes everything that was offered."""
    edit(
        state,
        "_check_offered",
        "expect(not surplus,",
        "expect(not surplus and (table is ProtocolFeature or int(features) == int(offered or 0)),",
    )


@mutant("B-FEAT-06")
def used_index_in_big_endian() -> None:
    """With VERSION_1 the used index is stored in big-endian."""
    edit(
        SplitDevice,
        "_give_back",
        "self._used[IDX] = self._next_used = next_used",
        "self._used[IDX] = (next_used & 0xFF) << 8 | next_used >> 8\n            self._next_used = next_used",
    )


@mutant("B-FEAT-10", "B-FEAT-11", "B-PF-14")
def rings_have_to_be_enabled_always() -> None:
    """Rings are disabled until SET_VRING_ENABLE, even without PROTOCOL_FEATURES."""
    _TRANSITIONS[RingEvent.FEATURES_WITHOUT_BIT_30] = Effect(None, None)


@mutant("B-FEAT-12")
def bit_30_taken_for_a_mask() -> None:
    """Whether rings begin enabled is decided by features & 30, that is bits 1 to 4, instead of bit 30."""
    edit(rings, "event_of", "features & VirtioFeature.PROTOCOL_FEATURES", "features & 30")


@mutant("B-FEAT-05")
def a_feature_never_offered_stops_the_rings() -> None:
    """Features that were never offered are accepted, and no ring is served from then on."""
    edit(state, "_check_offered", "expect(not surplus,", "expect(True,")
    edit(
        connection.Backend,
        "_follow",
        "state = self.protocol.state",
        "state = self.protocol.state\n        if int(state.features) & ~int(state.offered_features): return",
    )


@mutant("B-PF-01", "B-PF-02")
def protocol_features_only_after_bit_30() -> None:
    """Protocol feature messages are refused before bit 30 has been acknowledged."""
    _demand("spec.request not in (15, 16) or self.features >> 30 & 1")


@mutant("B-PF-03")
def protocol_features_go_with_bit_30() -> None:
    """SET_FEATURES without bit 30 makes the back-end forget protocol features."""
    forget = "self.protocol_features = NO_PROTOCOL_FEATURE"
    edit(
        ProtocolState,
        "_apply",
        "self.features = features",
        f"self.features = features\n                if not features >> 30 & 1: {forget}",
    )


@mutant("B-PF-04", offers=True)
def protocol_feature_40() -> None:
    """A protocol feature is offered that there is not."""
    _offer(1 << 40)


@mutant("B-PF-09", offers=True)
def base_inflight_without_inflight() -> None:
    """GET_VRING_BASE_INFLIGHT is offered, and INFLIGHT_SHMFD is not."""
    _offer(int(ProtocolFeature.GET_VRING_BASE_INFLIGHT))


@mutant("B-PF-10", offers=True)
def send_fd_without_a_channel() -> None:
    """BACKEND_SEND_FD is offered without BACKEND_REQ."""
    _offer(int(ProtocolFeature.BACKEND_SEND_FD | ProtocolFeature.BACKEND_REQ))


@mutant("B-PF-11", offers=True)
def mq_not_offered() -> None:
    """MQ is not offered."""
    _offer(int(ProtocolFeature.MQ))


@mutant("B-PF-12")
def protocol_features_only_once() -> None:
    """A second SET_PROTOCOL_FEATURES ends the program."""
    edit(ProtocolState, "_apply", "_check_prerequisites(features)", "assert not self.protocol_features")


@mutant("B-PF-05")
def protocol_features_asserted() -> None:
    """A protocol feature that was not offered ends the program."""
    edit(state, "_check_offered", "expect(not surplus,", "assert not surplus\n    expect(True,")


@mutant("B-PF-06")
def no_protocol_features_refused() -> None:
    """SET_PROTOCOL_FEATURES with no bit is refused."""
    edit(ProtocolState, "_apply", "_check_prerequisites(features)", "expect(bool(features), 'none', 'some')")
