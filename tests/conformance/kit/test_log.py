"""The log of a case keeps what matters and stays small."""

from __future__ import annotations

from frontend.conformance.log import MOST, SHOWN, Recorder
from vhostuser.fd import NO_FDS
from vhostuser.protocol.framing import Frame
from vhostuser.transport.channel import Direction
from vhostuser.wire.frontend_messages import GetFeatures
from vhostuser.wire.requests import Header, HeaderFlags

QUESTION = Frame(Header(GetFeatures.spec.request, HeaderFlags(1), 0), b"", NO_FDS)


async def test_messages_are_told_in_words_with_their_bytes() -> None:
    recorder = Recorder()
    first, second = recorder.observer(), recorder.observer()
    first(Direction.SENT, QUESTION)
    second(Direction.SENT, QUESTION)
    recorder.note("done", connection=1, data=b"x")
    told = recorder.finish()
    assert [(each.connection, each.direction, each.text) for each in told] == [
        (0, Direction.SENT.value, "GET_FEATURES"),
        (1, Direction.SENT.value, "GET_FEATURES"),
        (1, "note", "done"),
    ]
    assert told[0].data == QUESTION.build()


async def test_of_long_ones_the_beginning_is_kept_and_the_size() -> None:
    recorder = Recorder()
    recorder.note("long", data=bytes(SHOWN + 1))
    (told,) = recorder.finish()
    assert (len(told.data), told.size) == (SHOWN, SHOWN + 1)


async def test_of_very_many_the_first_are_kept_and_the_rest_is_counted() -> None:
    recorder = Recorder()
    observe = recorder.observer()
    for _ in range(MOST):
        recorder.note("again")
    for _ in range(3):
        observe(Direction.SENT, QUESTION)
    recorder.note("again")
    assert recorder.finish()[-1].text == "4 more exchanges"
    assert len(recorder.finish()) == MOST + 1  # told once
