"""One legal message of each kind, as it is once everything is negotiated, and how it may be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.protocol.helpers import ALL, FEATURES, OTHER_REGION, REGION, ring_addr
from vhostuser.wire import backend_messages as b
from vhostuser.wire import frontend_messages as f
from vhostuser.wire import records as r

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.schema import Structure

UUID = bytes(range(16))


class Sample(NamedTuple):
    """A message, the descriptors with it, the reply it gets if it has one of its own, and the descriptors with that."""

    message: Message
    fd_count: int = 0
    reply: Structure | None = None
    reply_fd_count: int = 0

    @property
    def name(self) -> str:
        return self.message.spec.name


_READ = r.IotlbPermission.READ
_READ_ONLY = r.ShmemFlags(0)

SAMPLES: list[Sample] = [
    Sample(f.GetFeatures(), reply=r.U64(FEATURES)),
    Sample(f.SetFeatures(FEATURES)),
    Sample(f.GetProtocolFeatures(), reply=r.U64(ALL)),
    Sample(f.SetProtocolFeatures(ALL)),
    Sample(f.SetOwner()),
    Sample(f.ResetOwner()),
    Sample(f.SetMemTable((REGION,)), 1),
    Sample(f.SetLogBase(0x8000, 0), 1, r.Opaque(r.Log(0x8000, 0).build())),
    Sample(f.SetLogFd(), 1),
    Sample(f.SetVringNum(0, 256)),
    Sample(ring_addr(0)),
    Sample(f.SetVringBase(0, 12)),
    Sample(f.GetVringBase(0), reply=r.VringState(0, 99)),
    Sample(f.SetVringKick.of(0), 1),
    Sample(f.SetVringCall.of(1), 1),
    Sample(f.SetVringErr.of(1, no_fd=True)),
    Sample(f.GetQueueNum(), reply=r.U64(2)),
    Sample(f.SetVringEnable(0, 1)),
    Sample(f.SendRarp(bytes(6))),
    Sample(f.NetSetMtu(1500)),
    Sample(f.SetBackendReqFd(), 1),
    Sample(f.IotlbMsg(0x1000, 0x1000, REGION.user_addr, _READ, r.IotlbType.UPDATE), reply=r.U64(0)),
    Sample(f.SetVringEndian(0, 1)),
    Sample(f.GetConfig(0, 8, data=bytes(8)), reply=r.Config(0, 8, r.ConfigFlags(0), b"01234567")),
    Sample(f.SetConfig(8, 2, r.ConfigFlags.LIVE_MIGRATION, b"ab")),
    Sample(f.CreateCryptoSession(bytes(1072)), reply=r.CryptoSession(0, bytes(1056), 5)),
    Sample(f.CloseCryptoSession(5)),
    Sample(f.PostcopyAdvise(), 0, r.Empty(), 1),
    Sample(f.PostcopyListen()),
    Sample(f.PostcopyEnd(), reply=r.U64(0)),
    Sample(f.GetInflightFd(0, 0, 2, 256), 0, r.Inflight(0x2000, 0, 2, 256), 1),
    Sample(f.SetInflightFd(0x2000, 0, 2, 256), 1),
    Sample(f.GpuSetSocket(), 1),
    Sample(f.ResetDevice()),
    Sample(f.VringKick(0)),
    Sample(f.GetMaxMemSlots(), reply=r.U64(4)),
    Sample(f.AddMemReg(OTHER_REGION), 1),
    Sample(f.RemMemReg(REGION)),
    Sample(f.SetStatus(15)),
    Sample(f.GetStatus(), reply=r.U64(15)),
    Sample(f.GetSharedObject(UUID), 0, r.Opaque(UUID), 1),
    Sample(f.SetDeviceStateFd(r.TransferDirection.SAVE, r.TransferPhase.STOPPED), 1, r.U64(0x100)),
    Sample(f.CheckDeviceState(), reply=r.U64(0)),
    Sample(f.GetShmemConfig(), reply=r.ShmemConfig(1, (4096,) + (0,) * 255)),
    Sample(b.BackendIotlbMsg(0x1000, 0, 0, _READ, r.IotlbType.MISS)),
    Sample(b.BackendConfigChangeMsg()),
    Sample(b.BackendVringHostNotifierMsg(1, 4096, 0), 1),
    Sample(b.BackendVringCall(1)),
    Sample(b.BackendVringErr(0)),
    Sample(b.BackendSharedObjectAdd(UUID)),
    Sample(b.BackendSharedObjectRemove(UUID)),
    Sample(b.BackendSharedObjectLookup(UUID), 0, r.U64(0), 1),
    Sample(b.BackendShmemMap(0, 0, 0, 4096, _READ_ONLY), 1),
    Sample(b.BackendShmemUnmap(0, 0, 0, 4096, _READ_ONLY)),
]
BY_NAME = {sample.name: sample for sample in SAMPLES}
FRONTEND_SAMPLES = [sample for sample in SAMPLES if not sample.name.startswith("BACKEND_")]
BACKEND_SAMPLES = [sample for sample in SAMPLES if sample.name.startswith("BACKEND_")]


def name_of(sample: Sample) -> str:
    """For the ids of parametrized tests."""
    return sample.name
