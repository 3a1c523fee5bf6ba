"""Sizes, offsets and constants against the C headers of the system.

One C program is made of all questions, a line each, and prints the answers.  Headers differ in age: a question that
the compiler does not understand is taken out and the rest asked again, so what a test may miss is listed with it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.tools.missing import missing
from vhostuser.wire import frontend_messages, packed, records, split
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.parts import parts
from vhostuser.wire.virtio import blk, console, fs, gpu, ids, net, scsi, vsock
from vhostuser.wire.virtio import input as input_

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import IntEnum, IntFlag
    from pathlib import Path

    from vhostuser.wire.schema import Structure

HEADERS = (
    *(
        f"linux/virtio_{name}.h"
        for name in ["blk", "config", "console", "fs", "gpu", "ids", "input", "net", "ring", "scsi", "vsock"]
    ),
    "linux/vhost_types.h",
    "linux/fuse.h",
)


class CStruct(NamedTuple):
    """A structure of ours and the C one that it has to equal.

    ``renamed`` maps our fields to C's, ``newer`` are fields that older headers lack, and with ``grows`` only the
    offsets count, because the C structure may end earlier.
    """

    ours: type[Structure]
    theirs: str
    renamed: Mapping[str, str] = {}
    newer: frozenset[str] = frozenset()
    grows: bool = False

    def fields(self) -> dict[str, str]:
        named = [part.name for part in parts(self.ours) if part.name and part.name != "trailing"]
        return {name: f"offsetof({self.theirs}, {self.renamed.get(name, name)})" for name in named}


ADDRESSES = {
    "descriptor": "desc_user_addr",
    "used": "used_user_addr",
    "available": "avail_user_addr",
    "log": "log_guest_addr",
}
IOTLB = {"user_addr": "uaddr", "permission": "perm"}
GEOMETRY = {each: f"geometry.{each}" for each in ("cylinders", "heads", "sectors")}
ZONED = {"zone_sectors", "max_open_zones", "max_active_zones", "max_append_sectors", "write_granularity", "model"}
REGION = {
    "guest_addr": "guest_phys_addr",
    "size": "memory_size",
    "user_addr": "userspace_addr",
    "mmap_offset": "flags_padding",
}

STRUCTURES = [
    CStruct(records.VringState, "struct vhost_vring_state"),
    CStruct(frontend_messages.SetVringAddr, "struct vhost_vring_addr", ADDRESSES),
    CStruct(records.MemoryRegion, "struct vhost_memory_region", REGION),
    CStruct(records.Iotlb, "struct vhost_iotlb_msg", IOTLB, grows=True),
    CStruct(frontend_messages.IotlbMsg, "struct vhost_iotlb_msg", IOTLB, grows=True),
    CStruct(split.VirtqDesc, "struct vring_desc"),
    CStruct(split.VirtqUsedElem, "struct vring_used_elem"),
    CStruct(packed.PackedDesc, "struct vring_packed_desc"),
    CStruct(packed.EventSuppression, "struct vring_packed_desc_event"),
    CStruct(
        blk.BlkConfig,
        "struct virtio_blk_config",
        {**GEOMETRY, **{each: f"zoned.{each}" for each in ZONED}, "writeback": "wce"},
        newer=frozenset(ZONED),
        grows=True,
    ),
    CStruct(blk.BlkHeader, "struct virtio_blk_outhdr", {"reserved": "ioprio"}),
    CStruct(blk.BlkRange, "struct virtio_blk_discard_write_zeroes"),
    CStruct(net.NetConfig, "struct virtio_net_config", newer=frozenset({"supported_tunnel_types"}), grows=True),
    CStruct(net.NetHeader, "struct virtio_net_hdr_v1"),
    CStruct(net.NetCtrlHeader, "struct virtio_net_ctrl_hdr", {"class_": "class", "command": "cmd"}),
    CStruct(console.ConsoleConfig, "struct virtio_console_config"),
    CStruct(console.ConsoleControl, "struct virtio_console_control"),
    CStruct(scsi.ScsiConfig, "struct virtio_scsi_config"),
    CStruct(scsi.ScsiCommandRequest, "struct virtio_scsi_cmd_req", {"id": "tag"}),
    CStruct(scsi.ScsiCommandResponse, "struct virtio_scsi_cmd_resp", {"residual": "resid"}),
    CStruct(scsi.ScsiTmfRequest, "struct virtio_scsi_ctrl_tmf_req", {"id": "tag"}),
    CStruct(scsi.ScsiEvent, "struct virtio_scsi_event"),
    CStruct(gpu.GpuConfig, "struct virtio_gpu_config", grows=True),
    CStruct(gpu.GpuHeader, "struct virtio_gpu_ctrl_hdr"),
    CStruct(gpu.GpuRect, "struct virtio_gpu_rect"),
    CStruct(input_.InputConfig, "struct virtio_input_config", {"data": "u"}),
    CStruct(input_.InputAbsInfo, "struct virtio_input_absinfo"),
    CStruct(input_.InputDevIds, "struct virtio_input_devids"),
    CStruct(input_.InputEvent, "struct virtio_input_event"),
    CStruct(vsock.VsockConfig, "struct virtio_vsock_config"),
    CStruct(vsock.VsockHeader, "struct virtio_vsock_hdr"),
    CStruct(vsock.VsockEvent, "struct virtio_vsock_event"),
    CStruct(fs.FsConfig, "struct virtio_fs_config", newer=frozenset({"notify_buf_size"}), grows=True),
    CStruct(fs.FuseInHeader, "struct fuse_in_header", newer=frozenset({"total_extlen"})),
    CStruct(fs.FuseOutHeader, "struct fuse_out_header"),
]


class CEnum(NamedTuple):
    """An enum of ours, how C spells its members, and whether C counts bits where we have masks."""

    ours: type[IntEnum] | type[IntFlag]
    spelling: str
    bits: bool = False
    renamed: Mapping[str, str] = {}
    newer: frozenset[str] = frozenset()

    def constants(self) -> dict[str, str]:
        return {
            each.name: self.renamed.get(each.name, self.spelling.format(each.name))
            for each in self.ours
            if each.name is not None
        }


TRANSPORT = {
    "LOG_ALL": "VHOST_F_LOG_ALL",
    "INDIRECT_DESC": "VIRTIO_RING_F_INDIRECT_DESC",
    "EVENT_IDX": "VIRTIO_RING_F_EVENT_IDX",
}
TYPES = {
    "BALLOON_TRADITIONAL": "VIRTIO_ID_BALLOON",
    "BALLOON": "VIRTIO_ID_MEMORY_BALLOON",
    "RTC": "VIRTIO_ID_CLOCK",
    "P9": "VIRTIO_ID_9P",
    "I2C": "VIRTIO_ID_I2C_ADAPTER",
}
GPU_ANSWERS = {each.name: f"VIRTIO_GPU_RESP_{each.name}" for each in gpu.GpuType if each >= gpu.GpuType.OK_NODATA}

ENUMS = [
    CEnum(
        VirtioFeature,
        "VIRTIO_F_{}",
        True,
        TRANSPORT,
        # PROTOCOL_FEATURES is vhost-user's own, in no header.
        frozenset({"PROTOCOL_FEATURES", "NOTIFICATION_DATA", "NOTIF_CONFIG_DATA", "ADMIN_VQ", "SUSPEND"}),
    ),
    CEnum(
        ids.DeviceType,
        "VIRTIO_ID_{}",
        False,
        TYPES,
        frozenset(["RDMA", "CAMERA", "ISM", "SPI", "TEE", "CPU_BALLOON", "MEDIA", "USB"]),
    ),
    CEnum(ids.DeviceStatus, "VIRTIO_CONFIG_S_{}", newer=frozenset({"SUSPEND"})),
    CEnum(records.VringAddrFlags, "VHOST_VRING_F_{}", True),
    CEnum(records.IotlbType, "VHOST_IOTLB_{}"),
    CEnum(records.IotlbPermission, "", renamed={"READ": "VHOST_ACCESS_RO", "WRITE": "VHOST_ACCESS_WO"}),
    CEnum(split.DescFlags, "VRING_DESC_F_{}"),
    CEnum(split.AvailFlags, "VRING_AVAIL_F_{}"),
    CEnum(split.UsedFlags, "VRING_USED_F_{}"),
    CEnum(packed.EventFlags, "VRING_PACKED_EVENT_FLAG_{}"),
    CEnum(blk.BlkFeature, "VIRTIO_BLK_F_{}", True, newer=frozenset({"LIFETIME", "ZONED"})),
    CEnum(
        blk.BlkType,
        "VIRTIO_BLK_T_{}",
        newer=frozenset(
            each.name for each in blk.BlkType if each.name.startswith(("ZONE", "FLUSH_", "GET_LIFE", "SCSI_CMD_"))
        ),
    ),
    CEnum(
        blk.BlkStatus,
        "VIRTIO_BLK_S_{}",
        newer=frozenset(each.name for each in blk.BlkStatus if each.name.startswith("ZONE")),
    ),
    CEnum(blk.BlkRangeFlags, "VIRTIO_BLK_WRITE_ZEROES_FLAG_{}"),
    CEnum(
        net.NetFeature,
        "VIRTIO_NET_F_{}",
        True,
        newer=frozenset(
            ["DEVICE_STATS", "HASH_TUNNEL", "VQ_NOTF_COAL", "GUEST_USO4", "GUEST_USO6", "HOST_USO", "GUEST_HDRLEN"],
        ),
    ),
    CEnum(net.NetStatus, "VIRTIO_NET_S_{}"),
    CEnum(net.NetHeaderFlags, "VIRTIO_NET_HDR_F_{}"),
    CEnum(net.NetGso, "VIRTIO_NET_HDR_GSO_{}", newer=frozenset({"UDP_L4"})),
    CEnum(net.NetCtrlClass, "VIRTIO_NET_CTRL_{}", newer=frozenset({"HASH_TUNNEL", "STATS"})),
    CEnum(net.NetCtrlRx, "VIRTIO_NET_CTRL_RX_{}"),
    CEnum(net.NetCtrlMac, "VIRTIO_NET_CTRL_MAC_{}"),
    CEnum(net.NetCtrlVlan, "VIRTIO_NET_CTRL_VLAN_{}"),
    CEnum(net.NetCtrlAnnounce, "VIRTIO_NET_CTRL_ANNOUNCE_{}"),
    CEnum(net.NetCtrlMq, "VIRTIO_NET_CTRL_MQ_{}"),
    CEnum(net.NetCtrlAck, "VIRTIO_NET_{}"),
    CEnum(console.ConsoleFeature, "VIRTIO_CONSOLE_F_{}", True),
    CEnum(console.ConsoleEvent, "VIRTIO_CONSOLE_{}"),
    CEnum(scsi.ScsiFeature, "VIRTIO_SCSI_F_{}", True),
    CEnum(scsi.ScsiTaskAttr, "VIRTIO_SCSI_S_{}"),
    CEnum(scsi.ScsiResponse, "VIRTIO_SCSI_S_{}"),
    CEnum(scsi.ScsiControlType, "VIRTIO_SCSI_T_{}"),
    CEnum(scsi.ScsiTmf, "VIRTIO_SCSI_T_TMF_{}"),
    CEnum(scsi.ScsiEventType, "VIRTIO_SCSI_T_{}"),
    CEnum(gpu.GpuFeature, "VIRTIO_GPU_F_{}", True, newer=frozenset({"BLOB_ALIGNMENT"})),
    CEnum(gpu.GpuType, "VIRTIO_GPU_CMD_{}", renamed=GPU_ANSWERS),
    CEnum(gpu.GpuHeaderFlags, "VIRTIO_GPU_FLAG_{}"),
    CEnum(input_.InputSelect, "VIRTIO_INPUT_CFG_{}"),
    CEnum(vsock.VsockFeature, "VIRTIO_VSOCK_F_{}", True, newer=frozenset({"STREAM", "NO_IMPLIED_STREAM"})),
    CEnum(vsock.VsockType, "VIRTIO_VSOCK_TYPE_{}"),
    CEnum(vsock.VsockOp, "VIRTIO_VSOCK_OP_{}"),
    CEnum(vsock.VsockShutdown, "VIRTIO_VSOCK_SHUTDOWN_{}", renamed={"RECEIVE": "VIRTIO_VSOCK_SHUTDOWN_RCV"}),
    CEnum(vsock.VsockSeqpacket, "VIRTIO_VSOCK_SEQ_{}"),
    CEnum(vsock.VsockEventId, "VIRTIO_VSOCK_EVENT_{}"),
    CEnum(fs.FuseOpcode, "FUSE_{}", newer=frozenset({"SYNCFS", "TMPFILE", "STATX"})),
]

CONSTANTS = {
    "VRING_DESC_ALIGN_SIZE": split.DESC_TABLE_ALIGN,
    "VRING_AVAIL_ALIGN_SIZE": split.AVAIL_RING_ALIGN,
    "VRING_USED_ALIGN_SIZE": split.USED_RING_ALIGN,
    "1 << VRING_PACKED_DESC_F_AVAIL": packed.PackedDescFlags.AVAIL,
    "1 << VRING_PACKED_DESC_F_USED": packed.PackedDescFlags.USED,
    "1 << VRING_PACKED_EVENT_F_WRAP_CTR": packed.WRAP_BIT,
    "offsetof(struct vring_avail, idx)": split.IDX_OFFSET,
    "offsetof(struct vring_used, idx)": split.IDX_OFFSET,
    "offsetof(struct vring_avail, ring)": split.RING_OFFSET,
    "offsetof(struct vring_used, ring)": split.RING_OFFSET,
    "sizeof(struct vhost_memory)": len(frontend_messages.SetMemTable(()).build()),
    # A ring in one piece: descriptor table, available ring, used ring from the next multiple of 4 on.
    "vring_size(256, 4)": split.desc_table_size(256) + split.avail_ring_size(256) + 2 + split.used_ring_size(256),
    "VIRTIO_BLK_ID_BYTES": blk.ID_SIZE,
    "VIRTIO_NET_HDR_GSO_ECN": net.GSO_ECN,
    "VIRTIO_SCSI_CDB_DEFAULT_SIZE": scsi.CDB_SIZE,
    "VIRTIO_SCSI_SENSE_DEFAULT_SIZE": scsi.SENSE_SIZE,
    "VIRTIO_SCSI_T_EVENTS_MISSED": scsi.EVENTS_MISSED,
    "FUSE_ROOT_ID": fs.ROOT_NODEID,
    # The paddings that the vhost-user document does not mention.
    "sizeof(struct vhost_iotlb_msg)": len(records.Iotlb(0, 0, 0, records.IotlbPermission(0), 0).build()),
}


def questions() -> list[str]:
    """Every C expression that some test wants to know."""
    asked = dict.fromkeys(CONSTANTS)
    for struct in STRUCTURES:
        asked |= dict.fromkeys([f"sizeof({struct.theirs})", *struct.fields().values()])
    for enum in ENUMS:
        asked |= dict.fromkeys(enum.constants().values())
    return list(asked)


def program(expressions: list[str]) -> str:
    """Line n (from 1) of what follows ``#line 1`` asks expression n - 1."""
    includes = "\n".join(f"#if __has_include(<{header}>)\n#include <{header}>\n#endif" for header in HEADERS)
    lines = "\n".join(f'printf("{each}=%llu\\n", (unsigned long long)({each}));' for each in expressions)
    return (
        f'{includes}\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{\n#line 1 "q"\n{lines}\nreturn 0; }}\n'
    )


@pytest.fixture(scope="session")
def c(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, int]:
    """What the compiler and the headers of this machine say."""
    compiler = shutil.which("cc") or missing("no C compiler: cc of the package gcc would do")
    folder = tmp_path_factory.mktemp("c")
    expressions = questions()
    while errors := complaints(compiler, folder, program(expressions)):
        understood = [each for line, each in enumerate(expressions, 1) if line not in errors]
        if understood == expressions or not any("vhost" in each for each in understood):
            missing("no Linux headers: linux/vhost_types.h of the package linux-libc-dev would do")
        expressions = understood
    output = subprocess.run([folder / "facts"], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, _, value in (line.rpartition("=") for line in output.splitlines())}


def complaints(compiler: str, folder: Path, text: str) -> set[int]:
    """The lines that do not compile; 0 stands for all others."""
    command = [compiler, "-x", "c", "-w", "-o", str(folder / "facts"), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return set()
    return {int(line) for line in re.findall(r"^q:(\d+):", done.stderr, re.MULTILINE)} or {0}


@pytest.mark.parametrize("struct", STRUCTURES, ids=lambda struct: struct.ours.__name__)
def test_a_structure_lies_in_memory_as_in_c(struct: CStruct, c: Mapping[str, int]) -> None:
    known = {name: question for name, question in struct.fields().items() if question in c}
    assert set(struct.fields()) - set(known) <= struct.newer
    assert {name: struct.ours.wire_offset(name) for name in known} == {name: c[known[name]] for name in known}
    if not struct.grows:
        assert struct.ours.wire_size() == c[f"sizeof({struct.theirs})"]


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.ours.__name__)
def test_a_constant_has_the_value_that_it_has_in_c(enum: CEnum, c: Mapping[str, int]) -> None:
    known = {name: constant for name, constant in enum.constants().items() if constant in c}
    assert set(enum.constants()) - set(known) <= enum.newer
    theirs = {name: 1 << c[constant] if enum.bits else c[constant] for name, constant in known.items()}
    assert {name: enum.ours[name].value for name in known} == theirs


@pytest.mark.parametrize("expression", CONSTANTS)
def test_an_expression_has_the_value_that_it_has_in_c(expression: str, c: Mapping[str, int]) -> None:
    assert CONSTANTS[expression] == c[expression]
