"""What the target offers, found out once before the run: it decides which cases can be run at all."""

from __future__ import annotations

from dataclasses import dataclass

from vhostuser.wire.features import ProtocolFeature, VirtioFeature

__all__ = ["Profile"]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A target's offer.

    Attributes:
        features: virtio features.
        protocol: protocol features; none without bit 30.
        queues: what GET_QUEUE_NUM says; 1 without MQ.
        device_type: what it is, as told or guessed; None when nobody knows.
        config: its configuration space as far as it could be read.
    """

    features: int
    protocol: ProtocolFeature
    queues: int = 1
    device_type: int | None = None
    config: bytes = b""

    def offers(self, need: VirtioFeature | ProtocolFeature) -> bool:
        """True when every bit of ``need`` is offered."""
        offered = self.protocol if isinstance(need, ProtocolFeature) else self.features
        return not need & ~offered
