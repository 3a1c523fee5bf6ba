"""Two roles that do not wait for each other, played by Hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.protocol.helpers import (
    FEATURES,
    NEGOTIATED,
    OTHER_REGION,
    REGION,
    ProtocolPair,
    crossed,
    fd_count,
    null,
    ring_addr,
    shared,
)
from vhostuser.errors import LocalProtocolError, RemoteProtocolError
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.records import MemoryRegion, VringState

if TYPE_CHECKING:
    from vhostuser.protocol import Frame
    from vhostuser.wire.catalog import Message


class Conversation(RuleBasedStateMachine):
    """A front-end that sends without waiting, a back-end that refuses when it likes; in the end they agree."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = ProtocolPair()
        self.pair.exchange(NEGOTIATED)
        self.to_backend: list[Frame] = []
        self.to_frontend: list[Frame] = []

    def send(self, message: Message) -> None:
        frontend = self.pair.frontend
        fds = null(fd_count(message, frontend.state))
        try:
            self.to_backend.append(frontend.request(message, fds))
        except LocalProtocolError:
            fds.close()

    @rule(index=st.integers(0, 1), size=st.sampled_from([8, 256, 300]))
    def set_vring_num(self, index: int, size: int) -> None:
        self.send(f.SetVringNum(index, size))

    @rule(index=st.integers(0, 1), avail=st.sampled_from([0x10000, 0x10002, 0x10001, REGION.size]))
    def set_vring_addr(self, index: int, avail: int) -> None:
        self.send(ring_addr(index, avail=avail))

    @rule(index=st.integers(0, 1), base=st.integers(0, 0x10000))
    def set_vring_base(self, index: int, base: int) -> None:
        self.send(f.SetVringBase(index, base))

    @rule(index=st.integers(0, 1), no_fd=st.booleans(), kind=st.sampled_from([f.SetVringKick, f.SetVringCall]))
    def set_notifier(self, index: int, no_fd: bool, kind: type[f.VringFd]) -> None:
        self.send(kind.of(index, no_fd=no_fd))

    @rule(index=st.integers(0, 1), num=st.integers(0, 1))
    def set_vring_enable(self, index: int, num: int) -> None:
        self.send(f.SetVringEnable(index, num))

    @rule(index=st.integers(0, 1))
    def get_vring_base(self, index: int) -> None:
        self.send(f.GetVringBase(index))

    @rule(bit_30=st.booleans())
    def set_features(self, bit_30: bool) -> None:
        self.send(f.SetFeatures(FEATURES if bit_30 else V.VERSION_1))

    @rule(regions=st.sampled_from([(), (REGION,), (REGION, OTHER_REGION), (REGION, REGION)]))
    def set_mem_table(self, regions: tuple[MemoryRegion, ...]) -> None:
        self.send(f.SetMemTable(regions))

    @rule(region=st.sampled_from([REGION, OTHER_REGION]), kind=st.sampled_from([f.AddMemReg, f.RemMemReg]))
    def change_memory(self, region: MemoryRegion, kind: type[f.AddMemReg | f.RemMemReg]) -> None:
        self.send(kind(region))

    @rule(message=st.sampled_from([f.ResetDevice(), f.ResetOwner(), f.SetStatus(4), f.GetStatus(), f.GetFeatures()]))
    def other(self, message: Message) -> None:
        self.send(message)

    @precondition(lambda self: self.to_backend)
    @rule(refuse=st.booleans(), base=st.integers(0, 0xFFFF))
    def back_end_handles_one(self, refuse: bool, base: int) -> None:
        backend, frame = self.pair.backend, self.to_backend.pop(0)
        answer: Frame | None
        try:
            arrived = crossed(frame)
            message = backend.receive(arrived)
            arrived.close()
        except RemoteProtocolError:
            answer = backend.nack()
        else:
            if isinstance(message, f.GetVringBase):
                answer = backend.reply(message, VringState(message.index, base))
            elif message.spec.replies(backend.state.protocol_features):
                answer = backend.answer(message)
            else:
                answer = backend.nack() if refuse else backend.ack()
        assert answer is not None
        self.to_frontend.append(crossed(answer))

    @precondition(lambda self: self.to_frontend)
    @rule()
    def front_end_reads_one(self) -> None:
        self.pair.frontend.receive(self.to_frontend.pop(0))

    @invariant()
    def both_ends_agree_when_nothing_is_on_its_way(self) -> None:
        waiting = len(self.to_backend) + len(self.to_frontend)
        assert len(self.pair.frontend.outstanding) == waiting
        if not waiting:
            assert shared(self.pair.frontend.state, 2) == shared(self.pair.backend.state, 2)

    @invariant()
    def a_started_ring_has_all_it_needs(self) -> None:
        for ring in self.pair.backend.state.rings:
            assert not ring.started or (ring.size and ring.addr is not None)

    def teardown(self) -> None:
        while self.to_backend:
            self.back_end_handles_one(False, 0)
        while self.to_frontend:
            self.front_end_reads_one()
        self.both_ends_agree_when_nothing_is_on_its_way()


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=20, stateful_step_count=25)
