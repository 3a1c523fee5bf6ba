"""Requests to the echoing devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.queue import Segment

if TYPE_CHECKING:
    from frontend.queue import Queue
    from tests.backend.scripted import Script


async def echo(script: Script, queue: Queue, data: bytes = b"hello") -> bytes:
    """One request, and what came back."""
    out, back = script.ram.buffer(len(data)), script.ram.buffer(len(data))
    out.view[:] = data
    used = await queue.submit([Segment(out.addr, len(data))], [Segment(back.addr, len(data))])
    answer = bytes(back.view[:used])
    script.ram.release(out)
    script.ram.release(back)
    return answer


def begin(script: Script, queue: Queue, data: bytes = b"hello") -> list[int]:
    """Start one request and wait for nothing; the list gets its used length."""
    out, back, lengths = script.ram.buffer(len(data)), script.ram.buffer(len(data)), list[int]()
    out.view[:] = data
    queue.start([Segment(out.addr, len(data))], [Segment(back.addr, len(data))], lengths.append)
    queue.flush()
    return lengths


def break_ring(queue: Queue) -> None:
    """Move ``avail.idx`` further than the ring is long."""
    queue.avail_ring.view[2:4] = (queue.queue_size + 7).to_bytes(2, "little")
    queue.notify_device()
