"""What is known about a message besides its bytes, said once.

`CATALOG` is read by the codec, by both roles' state machines, by tracing, by the conformance suite's coverage and
by the reference page of the documentation.  Each message class adds its own row with `message`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, TypeVar

from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.records import Empty
from vhostuser.wire.requests import BackendRequest, FrontendRequest, Role
from vhostuser.wire.schema import Structure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NO_PROTOCOL_FEATURE = ProtocolFeature(0)
NO_VIRTIO_FEATURE = VirtioFeature(0)


class FdRule(Enum):
    """How many descriptors come with a message."""

    NONE = "none"
    ONE = "exactly one"
    OPTIONAL = "none or one"
    TOLERATED = "none; one is closed unused"
    PER_REGION = "one per region, in order"
    UNLESS_NOFD = "one, or none when bit 8 of the payload is set"
    WITH_REPLY = "exactly one when the feature that makes it be replied to is negotiated, else none"


class Answer(Enum):
    """Whether a message is answered with a payload of its own."""

    ACK_IF_ASKED = "acknowledged when need_reply is set and REPLY_ACK negotiated"
    ALWAYS = "always replied to"
    WITH_FEATURE = "replied to when a protocol feature is negotiated, else acknowledged if asked"
    IN_POSTCOPY = "acknowledged if asked; replied to with the same structure while in postcopy"


class Gate(Enum):
    """What has to be true of the features that a message needs."""

    OFFERED = "offered"
    ACKED = "negotiated"


class Message(Structure):
    """The payload of one request; subclasses are declared with `message`."""

    __slots__ = ()
    spec: ClassVar[MessageSpec]


@dataclass(frozen=True, slots=True)
class MessageSpec:
    """One row of the catalogue.

    Attributes:
        request: its number and name.
        sender: which role sends it.
        message: class of the payload.
        answer: whether it is replied to.
        reply: payload of that reply.
        reply_feature: with `Answer.WITH_FEATURE`, the feature in question.
        refusal: payload that says no in place of `reply`.  None where an own reply cannot say no: then a receiver
            that cannot answer has nothing left but to close.
        fds: descriptors that come with the request.
        reply_fds: descriptors that come with the reply.
        needs: protocol features without which it may not be sent.
        needs_virtio: virtio features without which it may not be sent.
        gate: whether those have to be negotiated, or only offered.
        variants: other payloads it has once a protocol feature is negotiated.
        section: heading of the vhost-user document.
    """

    request: FrontendRequest | BackendRequest
    sender: Role
    message: type[Message]
    answer: Answer
    reply: type[Structure] | None
    reply_feature: ProtocolFeature
    refusal: type[Structure] | None
    fds: FdRule
    reply_fds: FdRule
    needs: ProtocolFeature
    needs_virtio: VirtioFeature
    gate: Gate
    variants: Mapping[ProtocolFeature, type[Message]]
    section: str

    @property
    def name(self) -> str:
        """The name in the document without its ``VHOST_USER_``: ``SET_MEM_TABLE``, ``BACKEND_IOTLB_MSG``."""
        return self.request.name if self.sender is Role.FRONTEND else f"BACKEND_{self.request.name}"

    @property
    def fds_need(self) -> ProtocolFeature:
        """What has to be negotiated before descriptors may come with the request: only back-ends have to ask."""
        may_carry = self.sender is Role.BACKEND and self.fds is not FdRule.NONE
        return ProtocolFeature.BACKEND_SEND_FD if may_carry else NO_PROTOCOL_FEATURE

    def payload(self, negotiated: ProtocolFeature) -> type[Message]:
        """The payload's class, given the protocol features in force."""
        for feature, variant in self.variants.items():
            if feature & negotiated:
                return variant
        return self.message

    def replies(self, negotiated: ProtocolFeature) -> bool:
        """Whether an answer with a payload of its own follows, given the protocol features in force."""
        return self.answer is Answer.ALWAYS or (
            self.answer is Answer.WITH_FEATURE and bool(self.reply_feature & negotiated)
        )

    def fd_limits(self, negotiated: ProtocolFeature, *, regions: int = 0, no_fd: bool = False) -> range:
        """How many descriptors may come with the request: a range of counts.

        Args:
            negotiated: protocol features in force.
            regions: number of regions in the payload.
            no_fd: bit 8 of the payload.
        """
        if self.fds is FdRule.NONE:
            return range(1)
        with_reply = int(self.replies(negotiated))
        fewest, most = {
            FdRule.ONE: (1, 1),
            FdRule.OPTIONAL: (0, 1),
            FdRule.TOLERATED: (0, 1),
            FdRule.PER_REGION: (regions, regions),
            FdRule.UNLESS_NOFD: (0, 0) if no_fd else (1, 1),
            FdRule.WITH_REPLY: (with_reply, with_reply),
        }[self.fds]
        return range(fewest, most + 1)


_catalog: dict[tuple[Role, int], MessageSpec] = {}
CATALOG: Mapping[tuple[Role, int], MessageSpec] = _catalog
"""Every message, by sender and number, in the order of the document.

Each module of messages adds its own; `vhostuser.wire.messages` imports them all.
"""

M = TypeVar("M", bound=Message)


def message(
    request: FrontendRequest | BackendRequest,
    *,
    answer: Answer = Answer.ACK_IF_ASKED,
    reply: type[Structure] | None = None,
    reply_feature: ProtocolFeature = NO_PROTOCOL_FEATURE,
    refusal: type[Structure] | None = None,
    fds: FdRule = FdRule.NONE,
    reply_fds: FdRule = FdRule.NONE,
    needs: ProtocolFeature = NO_PROTOCOL_FEATURE,
    needs_virtio: VirtioFeature = NO_VIRTIO_FEATURE,
    gate: Gate = Gate.ACKED,
    variants: Mapping[ProtocolFeature, type[Message]] | None = None,
) -> Callable[[type[M]], type[M]]:
    """Put the decorated payload class into the `CATALOG`, as the message called ``request``."""

    def add(cls: type[M]) -> type[M]:
        sender = Role.FRONTEND if isinstance(request, FrontendRequest) else Role.BACKEND
        middle = "" if sender is Role.FRONTEND else "BACKEND_"
        spec = MessageSpec(
            request=request,
            sender=sender,
            message=cls,
            answer=answer,
            reply=reply or (Empty if answer is Answer.ALWAYS else None),
            reply_feature=reply_feature,
            refusal=refusal,
            fds=fds,
            reply_fds=reply_fds,
            needs=needs,
            needs_virtio=needs_virtio,
            gate=gate,
            variants=variants or {},
            section=f"VHOST_USER_{middle}{request.name}",
        )
        _catalog[sender, request] = spec
        payloads: list[type[Message]] = [cls, *spec.variants.values()]
        for each in payloads:
            each.spec = spec
        return cls

    return add
