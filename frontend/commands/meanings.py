"""What the feature bits of devices other than disks mean, in a few words each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frontend.commands.blk_show import BLK_MEANINGS
from vhostuser.wire.virtio.console import ConsoleFeature
from vhostuser.wire.virtio.fs import FsFeature
from vhostuser.wire.virtio.gpu import GpuFeature
from vhostuser.wire.virtio.ids import DeviceType
from vhostuser.wire.virtio.net import NetFeature
from vhostuser.wire.virtio.vsock import VsockFeature

if TYPE_CHECKING:
    from collections.abc import Mapping

NET_MEANINGS: dict[NetFeature, str] = {
    NetFeature.CSUM: "the device completes checksums of packets it is given",
    NetFeature.GUEST_CSUM: "the driver takes packets with incomplete checksums",
    NetFeature.CTRL_GUEST_OFFLOADS: "what the driver takes can be changed on the way",
    NetFeature.MTU: "the device tells the largest packet",
    NetFeature.MAC: "the device tells its address",
    NetFeature.GSO: "legacy: any kind of segmentation",
    NetFeature.GUEST_TSO4: "the driver takes large TCP segments, IPv4",
    NetFeature.GUEST_TSO6: "the driver takes large TCP segments, IPv6",
    NetFeature.GUEST_ECN: "the driver takes them with congestion marks",
    NetFeature.GUEST_UFO: "the driver takes large UDP datagrams",
    NetFeature.HOST_TSO4: "the device takes large TCP segments, IPv4",
    NetFeature.HOST_TSO6: "the device takes large TCP segments, IPv6",
    NetFeature.HOST_ECN: "the device takes them with congestion marks",
    NetFeature.HOST_UFO: "the device takes large UDP datagrams",
    NetFeature.MRG_RXBUF: "a packet may be spread over several buffers",
    NetFeature.STATUS: "the device tells whether the link is up",
    NetFeature.CTRL_VQ: "there is a control queue",
    NetFeature.CTRL_RX: "the driver chooses which packets it wants",
    NetFeature.CTRL_VLAN: "the driver chooses which VLANs it wants",
    NetFeature.CTRL_RX_EXTRA: "more choices of packets",
    NetFeature.GUEST_ANNOUNCE: "the driver can announce itself after a migration",
    NetFeature.MQ: "there may be several pairs of queues",
    NetFeature.CTRL_MAC_ADDR: "the driver sets the address",
    NetFeature.DEVICE_STATS: "the device counts what it does",
    NetFeature.HASH_TUNNEL: "hashes of packets inside tunnels",
    NetFeature.VQ_NOTF_COAL: "fewer notifications, set for each queue",
    NetFeature.NOTF_COAL: "fewer notifications, set for all queues",
    NetFeature.GUEST_USO4: "the driver takes many UDP datagrams as one, IPv4",
    NetFeature.GUEST_USO6: "the driver takes many UDP datagrams as one, IPv6",
    NetFeature.HOST_USO: "the device takes many UDP datagrams as one",
    NetFeature.HASH_REPORT: "a packet comes with its hash",
    NetFeature.GUEST_HDRLEN: "the driver tells exactly how long the headers are",
    NetFeature.RSS: "packets are spread over queues by their hash",
    NetFeature.RSC_EXT: "the device joins segments and tells how many",
    NetFeature.STANDBY: "it may stand in for another device, or be its stand-in",
    NetFeature.SPEED_DUPLEX: "the device tells its speed",
}

DEVICE_MEANINGS: Mapping[int, Mapping[Any, str]] = {
    DeviceType.BLOCK: BLK_MEANINGS,
    DeviceType.NET: NET_MEANINGS,
    DeviceType.CONSOLE: {
        ConsoleFeature.SIZE: "the device tells its rows and columns",
        ConsoleFeature.MULTIPORT: "there may be several ports, and there is a control queue",
        ConsoleFeature.EMERG_WRITE: "a character can be written without a queue",
    },
    DeviceType.GPU: {
        GpuFeature.VIRGL: "3D commands in virgl's format",
        GpuFeature.EDID: "the device tells what its displays can do",
        GpuFeature.RESOURCE_UUID: "resources can be exported under a UUID",
        GpuFeature.RESOURCE_BLOB: "resources may be plain memory",
        GpuFeature.CONTEXT_INIT: "several kinds of contexts",
        GpuFeature.BLOB_ALIGNMENT: "plain memory has to be aligned",
    },
    DeviceType.VSOCK: {
        VsockFeature.STREAM: "stream sockets",
        VsockFeature.SEQPACKET: "sockets that keep the borders of messages",
        VsockFeature.NO_IMPLIED_STREAM: "no stream sockets unless STREAM says so",
    },
    DeviceType.FS: {FsFeature.NOTIFICATION: "there is a queue for notifications"},
}
"""By device type."""
