"""Measurements, and what may be said of them: medians, quartiles, and ratios within a round.

A machine's speed drifts while it is measured; a virtual machine's by half within an hour.  So each round measures
everything once, and what is compared was measured in the same round: a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    Attributes:
        experiment: of which it is a part.
        subject: what was measured: a back-end, a front-end, the machine.
        x: what the experiment varies: depth, queues, bytes.
        round: in which it was made.
        values: what was found, by name: ``iops``, ``p50_us`` ...
    """

    experiment: str
    subject: str
    x: int
    round: int
    values: Values


class Place(NamedTuple):
    """A row of measurements, one a round: which experiment, subject, x, and which of its values."""

    experiment: str
    subject: str
    x: int
    value: str = "iops"


class Spread(NamedTuple):
    """The middle half."""

    low: float
    median: float
    high: float


@dataclass
class Results:
    """Everything that was measured, and what could not be.

    Attributes:
        machine: what it was measured on, by name.
        left_out: subjects that are not there, and why.
    """

    samples: list[Sample] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def rounds(self, place: Place) -> dict[int, float]:
        """The measurements of one place, by round; none if it was not measured."""
        key = (place.experiment, place.subject, place.x)
        return {
            each.round: each.values[place.value]
            for each in self.samples
            if (each.experiment, each.subject, each.x) == key and place.value in each.values
        }

    def spread(self, place: Place) -> Spread | None:
        """Quartiles over the rounds; None if it was not measured."""
        return spread(self.rounds(place).values())

    def ratio(self, place: Place, to: Place) -> Spread | None:
        """How many times ``to`` it is, within each round; None where they have no round in common."""
        ours, theirs = self.rounds(place), self.rounds(to)
        return spread(ours[each] / theirs[each] for each in ours.keys() & theirs.keys() if theirs[each])

    def fastest(self, places: Iterable[Place]) -> Place | None:
        """Whose median is the highest; None if none was measured."""
        medians = {place: found.median for place in places if (found := self.spread(place)) is not None}
        return max(medians, key=medians.__getitem__, default=None)

    def xs(self, experiment: str, subject: str | None = None) -> list[int]:
        """What was varied, in order."""
        chosen = (each for each in self.samples if each.experiment == experiment)
        return sorted({each.x for each in chosen if subject in (None, each.subject)})

    def to_json(self) -> dict[str, Any]:
        """To be kept: `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Results:
        """What `to_json` wrote."""
        return cls([Sample(**each) for each in told["samples"]], dict(told["machine"]), dict(told["left_out"]))


def spread(figures: Iterable[float]) -> Spread | None:
    """Quartiles, for one figure too; None for none."""
    row = sorted(figures)
    if not row:
        return None
    if len(row) == 1:
        return Spread(row[0], row[0], row[0])
    low, median, high = statistics.quantiles(row, n=4, method="inclusive")
    return Spread(low, median, high)
