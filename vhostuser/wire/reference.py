"""Writes the message reference of the documentation out of the `CATALOG`.

::

    python -m vhostuser.wire.reference > docs/reference/messages.md
    python -m vhostuser.wire.reference --check docs/reference/messages.md

The second form exits with 1 when the page no longer says what the code does.
"""

from __future__ import annotations

import sys
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

from vhostuser.wire import records
from vhostuser.wire.catalog import Answer, FdRule, Gate, MessageSpec
from vhostuser.wire.features import PREREQUISITES, PROTOCOL_MEANINGS, VIRTIO_MEANINGS, ProtocolFeature, names
from vhostuser.wire.messages import CATALOG
from vhostuser.wire.parts import Part, fixed_size, parts
from vhostuser.wire.requests import Header, HeaderFlags, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from enum import IntFlag

    from vhostuser.wire.schema import Structure

INTRODUCTION = """
<!-- Generated: python -m vhostuser.wire.reference > docs/reference/messages.md -->

# Messages

All that vhost-user says, generated from the one table that codec, state machines and tracer read: `CATALOG` in
`vhostuser.wire.catalog`. If this page and the code differ, a test fails.

A **front-end** owns the virtqueues (a virtual machine monitor, or a program that wants a disk); a **back-end** consumes
them (the device). They talk over a Unix stream socket. Nothing marks the end of a message but its size, and replies
come in the order of the requests: an answer that nobody expected, or a missing one, puts both ends out of step.

Integers written `u8` to `u64` are in the machine's byte order: both ends share one machine. Offsets and sizes are in
bytes, and offsets count from the beginning of the payload.
"""

HEADER = """
## Header

Twelve bytes in front of every message, replies included. File descriptors travel with the first of them.
"""

HEADER_FLAGS = {
    HeaderFlags.VERSION_1: "bits 0 and 1 are the version, and this is the only one",
    HeaderFlags.REPLY: "set in every reply, which repeats the number of its request",
    HeaderFlags.NEED_REPLY: "the sender asks for an acknowledgement (with REPLY_ACK negotiated)",
}

ANSWERS = """
## Answers

*acknowledged* in the tables below means: answered only if the sender set need_reply and `REPLY_ACK` is negotiated, and
then by a `u64` that is 0 for success and anything else for failure. Where a payload stands instead, that reply always
comes, and need_reply changes nothing.
"""

BACKEND_CHANNEL = """
These travel on the channel that `SET_BACKEND_REQ_FD` brings, so all of them need `BACKEND_REQ`; a descriptor with them
needs `BACKEND_SEND_FD`.
"""

ANSWER_TEXT = {
    Answer.ACK_IF_ASKED: "*acknowledged*",
    Answer.ALWAYS: "{reply}",
    Answer.WITH_FEATURE: "with `{feature}`: {reply}; else *acknowledged*",
    Answer.IN_POSTCOPY: "in postcopy: {reply}; else *acknowledged*",
}

FD_TEXT = {
    FdRule.NONE: "-",
    FdRule.ONE: "1",
    FdRule.OPTIONAL: "0 or 1",
    FdRule.TOLERATED: "0 (1 is closed unused)",
    FdRule.PER_REGION: "1 a region",
    FdRule.UNLESS_NOFD: "1, or 0 if bit 8 is set",
    FdRule.WITH_REPLY: "1 if replied to, else 0",
}


def page() -> str:
    """The whole page as Markdown."""
    blocks = [
        cleandoc(INTRODUCTION),
        cleandoc(HEADER),
        field_table(Header),
        table(
            ("flag", "name", "meaning"), ((f"{each:#x}", code(each.name), HEADER_FLAGS[each]) for each in HeaderFlags)
        ),
        cleandoc(ANSWERS),
        *overview(Role.FRONTEND, "What a front-end sends"),
        *overview(Role.BACKEND, "What a back-end sends"),
        cleandoc(BACKEND_CHANNEL),
        "## Front-end messages, one by one",
        *sections(Role.FRONTEND),
        "## Back-end messages, one by one",
        *sections(Role.BACKEND),
        "## Records",
        *(block for cls in shared_records() for block in record_section(cls)),
        *protocol_features(),
        *virtio_features(),
    ]
    return "\n\n".join(blocks) + "\n"


# --- the parts of the page ---------------------------------------------------------------------------------------


def overview(sender: Role, title: str) -> Iterator[str]:
    """One row for each message that ``sender`` sends."""
    yield f"## {title}"
    yield table(
        ("number", "message", "payload", "descriptors", "answer", "needs"),
        (
            (str(int(spec.request)), link(spec.name), size(spec.message), fds(spec), answer(spec), needs(spec))
            for spec in specs(sender)
        ),
    )


def sections(sender: Role) -> Iterator[str]:
    """One section for each message that ``sender`` sends."""
    for spec in specs(sender):
        yield f"### {spec.name}"
        yield cleandoc(spec.message.__doc__ or "")
        yield f"Number {int(spec.request)}, class `{spec.message.__name__}`."
        yield field_table(spec.message)
        yield "\n".join(f"* **{title}:** {text}" for title, text in rules(spec))
        for feature, variant in spec.variants.items():
            yield f"Once `{feature.name}` is negotiated (class `{variant.__name__}`):"
            yield field_table(variant)


def rules(spec: MessageSpec) -> Iterator[tuple[str, str]]:
    """What is to be known about a message besides its bytes."""
    yield "Answer", answer(spec)
    if spec.refusal:
        yield "Refusal", f"a payload of {size(spec.refusal)} bytes"
    if spec.fds is not FdRule.NONE:
        yield "Descriptors", FD_TEXT[spec.fds]
    if spec.reply_fds is not FdRule.NONE:
        yield "Descriptors with the reply", FD_TEXT[spec.reply_fds]
    if needs(spec) != "-":
        yield "Needs", needs(spec)
    if spec.fds_need:
        yield "Needs, to bring a descriptor", features(spec.fds_need)


def record_section(cls: type[Structure]) -> Iterator[str]:
    """A record that several messages use."""
    yield f"### {cls.__name__}"
    yield cleandoc(cls.__doc__ or "")
    yield field_table(cls)


def protocol_features() -> Iterator[str]:
    """All protocol feature bits and what each permits."""
    yield "## Protocol features"
    yield "Bits of `GET_PROTOCOL_FEATURES` and `SET_PROTOCOL_FEATURES`; those not listed are reserved."
    yield table(
        ("bit", "name", "meaning", "messages", "requires"),
        (
            (
                str(each.value.bit_length() - 1),
                code(each.name),
                prose(PROTOCOL_MEANINGS[each]),
                listed(link(spec.name) for spec in CATALOG.values() if each in spec.needs & ~channel(spec)),
                features(PREREQUISITES.get(each, ProtocolFeature(0))),
            )
            for each in ProtocolFeature
        ),
    )


def virtio_features() -> Iterator[str]:
    """The feature bits of transport and rings."""
    yield "## Virtio features"
    yield "Bits of `GET_FEATURES` and `SET_FEATURES` that mean the same for every type of device."
    yield table(
        ("bit", "name", "meaning"),
        (
            (str(each.value.bit_length() - 1), code(each.name), prose(meaning))
            for each, meaning in VIRTIO_MEANINGS.items()
        ),
    )


# --- what goes into a cell ---------------------------------------------------------------------------------------


def specs(sender: Role) -> list[MessageSpec]:
    """The rows of the catalogue for one sender, in the order of the document."""
    return [spec for spec in CATALOG.values() if spec.sender is sender]


def shared_records() -> list[type[Structure]]:
    """The records that this page refers to, each after the first one that refers to it."""
    found: list[type[Structure]] = []
    for spec in CATALOG.values():
        payloads = [spec.message, *spec.variants.values()]
        found += [part.record for payload in payloads for part in parts(payload) if part.record]
        found += [spec.reply] if spec.reply else []
    found += [part.record for each in found for part in parts(each) if part.record]
    return [each for each in dict.fromkeys(found) if each not in (records.U64, records.Empty)]


def channel(spec: MessageSpec) -> ProtocolFeature:
    """What every message of the back-end channel needs, and no row has to repeat."""
    return ProtocolFeature.BACKEND_REQ if spec.sender is Role.BACKEND else ProtocolFeature(0)


def size(cls: type[Structure]) -> str:
    """Bytes of a payload, as far as they are known."""
    fixed = fixed_size(cls)
    for part in parts(cls):
        if part.size is None:
            item = part.record
            return f"{fixed} + {item.wire_size()} n" if item else f"{fixed} or more" if fixed else "any"
    return str(fixed)


def fds(spec: MessageSpec) -> str:
    """How many descriptors come with the request."""
    return FD_TEXT[spec.fds]


def answer(spec: MessageSpec) -> str:
    """Who answers, when, and with what."""
    reply = "" if spec.reply is None else payload_name(spec.reply)
    if spec.reply_fds is not FdRule.NONE:
        reply += f" and {FD_TEXT[spec.reply_fds]} descriptor"
    return ANSWER_TEXT[spec.answer].format(reply=reply, feature=spec.reply_feature.name)


def payload_name(cls: type[Structure]) -> str:
    """The name of a reply's payload."""
    if cls is records.Empty:
        return "empty"
    return "`u64`" if cls is records.U64 else link(cls.__name__)


def needs(spec: MessageSpec) -> str:
    """The feature gate."""
    wanted = [features(spec.needs & ~channel(spec)), features(spec.needs_virtio)]
    found = ", ".join(each for each in wanted if each != "-")
    return found + (" (offered is enough)" if spec.gate is Gate.OFFERED else "") or "-"


def features(value: IntFlag) -> str:
    """Names of feature bits."""
    anchor = "protocol-features" if isinstance(value, ProtocolFeature) else "virtio-features"
    return listed(f"[`{name}`](#{anchor})" for name in names(value, type(value)))


def field_table(cls: type[Structure]) -> str:
    """The layout of a record."""
    rows = [(offset(part), bytes_of(part), code(part.kind), field_name(part)) for part in parts(cls)]
    return table(("offset", "bytes", "type", "field"), rows) if rows else "No payload."


def offset(part: Part) -> str:
    """Where it begins."""
    return "" if part.offset is None else str(part.offset)


def bytes_of(part: Part) -> str:
    """How long it is."""
    if part.size is not None:
        return str(part.size)
    return f"{part.record.wire_size()} n" if part.record else "any"


def field_name(part: Part) -> str:
    """The field, with the names of its values."""
    if part.name is None:
        return "*padding*"
    if part.values is ProtocolFeature:
        return f"{code(part.name)}: [protocol features](#protocol-features)"
    if part.record:
        return f"{code(part.name)}: {link(part.record.__name__)}"
    values = ", ".join(f"{each.value:#x} {code(each.name)}" for each in part.values or ())
    return f"{code(part.name)}: {values}" if values else code(part.name)


# --- Markdown ----------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def link(name: str) -> str:
    """A link to the section of a message or a record."""
    return f"[`{name}`](#{name.lower()})"


def code(text: str | None) -> str:
    """As code."""
    return f"`{text}`"


def listed(items: Iterable[str]) -> str:
    """With commas; a dash for none."""
    return ", ".join(items) or "-"


def prose(text: str) -> str:
    """A sentence out of a phrase."""
    return text[0].upper() + text[1:]


def main(arguments: Sequence[str]) -> int:
    """Print the page, or with ``--check FILE`` say whether that file is still it."""
    match arguments:
        case []:
            sys.stdout.write(page())
            return 0
        case ["--check", file]:
            if Path(file).exists() and Path(file).read_text(encoding="utf-8") == page():
                return 0
            print(f"{file} is stale: python -m vhostuser.wire.reference > {file}", file=sys.stderr)
            return 1
    print(cleandoc(__doc__ or ""), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
