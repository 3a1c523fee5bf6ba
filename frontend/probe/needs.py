"""Which feature needs which others, and which bits mean nothing: what can be said of two words without asking more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.probe.guess import DEVICE_BITS
from vhostuser.wire.features import PREREQUISITES, ProtocolFeature, VirtioFeature, names
from vhostuser.wire.virtio.blk import BlkFeature
from vhostuser.wire.virtio.features import DEVICE_FEATURES, describe
from vhostuser.wire.virtio.gpu import GpuFeature
from vhostuser.wire.virtio.ids import DeviceType
from vhostuser.wire.virtio.net import NetFeature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from frontend.probe.report import Report

_PROTOCOL_NEEDS: Mapping[ProtocolFeature, ProtocolFeature] = {
    **PREREQUISITES,
    ProtocolFeature.BACKEND_SEND_FD: ProtocolFeature.BACKEND_REQ,
    ProtocolFeature.HOST_NOTIFIER: ProtocolFeature.BACKEND_REQ | ProtocolFeature.BACKEND_SEND_FD,
    ProtocolFeature.SHMEM: ProtocolFeature.BACKEND_REQ | ProtocolFeature.BACKEND_SEND_FD,
}
"""All of the others, or the feature cannot be put to use."""

_TSO = (NetFeature.GUEST_TSO4 | NetFeature.GUEST_TSO6, NetFeature.HOST_TSO4 | NetFeature.HOST_TSO6)
_NET_NEEDS: Mapping[int, int] = {
    NetFeature.GUEST_TSO4: NetFeature.GUEST_CSUM,
    NetFeature.GUEST_TSO6: NetFeature.GUEST_CSUM,
    NetFeature.GUEST_ECN: _TSO[0],
    NetFeature.GUEST_UFO: NetFeature.GUEST_CSUM,
    NetFeature.GUEST_USO4: NetFeature.GUEST_CSUM,
    NetFeature.GUEST_USO6: NetFeature.GUEST_CSUM,
    NetFeature.HOST_TSO4: NetFeature.CSUM,
    NetFeature.HOST_TSO6: NetFeature.CSUM,
    NetFeature.HOST_ECN: _TSO[1],
    NetFeature.HOST_UFO: NetFeature.CSUM,
    NetFeature.HOST_USO: NetFeature.CSUM,
    NetFeature.CTRL_RX: NetFeature.CTRL_VQ,
    NetFeature.CTRL_VLAN: NetFeature.CTRL_VQ,
    NetFeature.GUEST_ANNOUNCE: NetFeature.CTRL_VQ,
    NetFeature.MQ: NetFeature.CTRL_VQ,
    NetFeature.CTRL_MAC_ADDR: NetFeature.CTRL_VQ,
    NetFeature.NOTF_COAL: NetFeature.CTRL_VQ,
    NetFeature.VQ_NOTF_COAL: NetFeature.CTRL_VQ,
    NetFeature.RSS: NetFeature.CTRL_VQ,
    NetFeature.RSC_EXT: _TSO[1],
}
"""5.1.3.1: one of the others at least."""
_DEVICE_NEEDS: Mapping[int, Mapping[int, int]] = {
    DeviceType.NET: _NET_NEEDS,
    DeviceType.BLOCK: {BlkFeature.CONFIG_WCE: BlkFeature.FLUSH},
    DeviceType.GPU: {GpuFeature.CONTEXT_INIT: GpuFeature.VIRGL},
}
_LEGACY_TOO = (1 << 32) - 1
"""Bits that a device without VERSION_1 has room for."""


def note_oddities(report: Report) -> None:
    """Note unknown bits, and features whose needs are not on offer."""
    if report.features is None:
        return
    for name in _unknown(report.features, report.device.type):
        report.note("unknown-bit", f"virtio feature {name}")
    for name in names(report.protocol_features or 0, ProtocolFeature):
        if name.startswith("bit "):
            report.note("unknown-bit", f"protocol feature {name}")
    for feature, missing in [*_protocol_gaps(report), *_virtio_gaps(report.features, report.device.type)]:
        report.note("missing-feature", f"{feature} is offered without {missing}")


def _unknown(features: int, device_type: int | None) -> Iterator[str]:
    """What `describe` cannot name, but for bits that belong to a type we know nothing of."""
    described = device_type in DEVICE_FEATURES or device_type == DeviceType.RNG
    for bit in range(features.bit_length()):
        mask = features & (1 << bit)
        if mask and (described or not mask & DEVICE_BITS):
            yield from (name for name in describe(mask, device_type) if name.startswith("bit "))


def _protocol_gaps(report: Report) -> Iterator[tuple[str, str]]:
    offered = report.protocol_features or 0
    for feature, needed in _PROTOCOL_NEEDS.items():
        if offered & feature and needed & ~offered:
            yield str(feature.name), " and ".join(names(int(needed) & ~offered, ProtocolFeature))
    if (report.features or 0) & VirtioFeature.LOG_ALL and not offered & ProtocolFeature.LOG_SHMFD:
        yield "LOG_ALL", "LOG_SHMFD: there is no way to share the log"


def _virtio_gaps(features: int, device_type: int | None) -> Iterator[tuple[str, str]]:
    for feature, needed in _DEVICE_NEEDS.get(device_type or 0, {}).items():
        if features & feature and not features & needed:
            yield describe(feature, device_type)[0], " or ".join(describe(needed, device_type))
    late = features & ~DEVICE_BITS & ~_LEGACY_TOO & ~VirtioFeature.VERSION_1
    if late and not features & VirtioFeature.VERSION_1:
        yield " and ".join(describe(late)), "VERSION_1"
