"""What a disk has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Figures of one queue, or of a whole disk.

    Attributes:
        requests: answered, with whatever status.
        bytes_read: by IN requests that succeeded.
        bytes_written: by OUT requests that succeeded.
    """

    requests: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.requests + other.requests,
            self.bytes_read + other.bytes_read,
            self.bytes_written + other.bytes_written,
        )
