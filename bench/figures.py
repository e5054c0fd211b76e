"""Figures, the bars that they have to reach, and the arithmetic for both. Values only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median


class Quantity(Enum):
    """What a bar compares with its limit."""

    RATIO = "×"
    """conchrec divided by the yardstick."""
    DIFFERENCE = "+"
    """conchrec minus the yardstick."""
    VALUE = "="
    """conchrec alone."""


#: A gate fails a figure if at least this share of its rounds miss the bar. One bad round is noise.
GATE_SHARE = 6 / 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A limit for a quantity: an upper limit, or with ``at_least`` a lower one."""

    of: Quantity
    limit: float
    at_least: bool = False

    def admits(self, value: float | None) -> bool:
        """Tell whether a value is within the limit; None, a missing value, never is."""
        if value is None:
            return False
        return value >= self.limit if self.at_least else value <= self.limit

    def reached(self, figure: Figure) -> bool:
        """Tell whether the medians of all rounds are within the limit."""
        return self.admits(figure.measured(self.of))

    def missed_rounds(self, figure: Figure) -> int:
        """Return the number of rounds that are not within the limit."""
        return sum(not self.admits(value) for value in figure.rounds(self.of))

    def text(self, unit: str) -> str:
        """``≥ 0.8 ×``, ``≤ + 2 ms``, ``≤ 10 s/GB``"""
        sign = "≥" if self.at_least else "≤"
        if self.of is Quantity.RATIO:
            return f"{sign} {self.limit:g} ×"
        return f"{sign} {'+ ' if self.of is Quantity.DIFFERENCE else ''}{self.limit:g} {unit}"


def at_least_ratio(limit: float) -> Bar:
    """Return a bar: conchrec divided by the yardstick is at least this."""
    return Bar(of=Quantity.RATIO, limit=limit, at_least=True)


def at_most_ratio(limit: float) -> Bar:
    """Return a bar: conchrec divided by the yardstick is at most this."""
    return Bar(of=Quantity.RATIO, limit=limit)


def at_most_difference(limit: float) -> Bar:
    """Return a bar: conchrec exceeds the yardstick by at most this."""
    return Bar(of=Quantity.DIFFERENCE, limit=limit)


def at_most(limit: float) -> Bar:
    """Return a bar: conchrec is at most this."""
    return Bar(of=Quantity.VALUE, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """The three bars of a figure."""

    must: Bar | None = None
    aim: Bar | None = None
    gate: Bar | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the results: a number for each round, in ``unit``.

    ``yardstick`` has the numbers of the same rounds in the same order, and is empty if there is nothing to
    compare with.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    yardstick: tuple[float, ...] = ()
    must: Bar | None = None
    aim: Bar | None = None
    gate: Bar | None = None
    """The limit in CI. It has room for noise and for other machines, so it is a time only where the yardstick
    cannot be a limit."""

    @property
    def median(self) -> float:
        """Return the median of conchrec's rounds."""
        return median(self.ours)

    @property
    def yardstick_median(self) -> float | None:
        """Return the median of the yardstick's rounds; None without a yardstick."""
        return median(self.yardstick) if self.yardstick else None

    @property
    def ratio(self) -> float | None:
        """Return conchrec's median divided by the yardstick's; None without a yardstick."""
        return self.measured(Quantity.RATIO)

    @property
    def spread(self) -> tuple[float, float] | None:
        """Return the smallest and the largest ratio of a single round."""
        ratios = [value for value in self.rounds(Quantity.RATIO) if value is not None]
        return (min(ratios), max(ratios)) if len(ratios) == len(self.ours) else None

    @property
    def misses_gate(self) -> bool:
        """Tell whether so many rounds miss the gate's bar that it is not noise."""
        return self.gate is not None and self.gate.missed_rounds(self) >= GATE_SHARE * len(self.ours)

    def measured(self, of: Quantity) -> float | None:
        """Return a quantity of the medians; None if the yardstick is missing or zero."""
        return _quantity(of, self.median, self.yardstick_median)

    def rounds(self, of: Quantity) -> tuple[float | None, ...]:
        """Return a quantity for each round; None if the yardstick is missing or zero."""
        bases = self.yardstick or (None,) * len(self.ours)
        return tuple(_quantity(of, own, base) for own, base in zip(self.ours, bases, strict=True))

    def json(self) -> dict[str, object]:
        """Return the figure for ``--json``."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": list(self.ours),
            "yardstick": list(self.yardstick),
            "median": self.median,
            "yardstick_median": self.yardstick_median,
            "ratio": self.ratio,
            "difference": self.measured(Quantity.DIFFERENCE),
            **{name: _bar_json(bar, self) for name, bar in self.bars().items()},
        }

    def bars(self) -> dict[str, Bar | None]:
        """Return the bars by their names."""
        return {"must": self.must, "aim": self.aim, "gate": self.gate}


def _quantity(of: Quantity, own: float, base: float | None) -> float | None:
    if of is Quantity.VALUE:
        return own
    if base is None:
        return None
    if of is Quantity.DIFFERENCE:
        return own - base
    return own / base if base else None


def _bar_json(bar: Bar | None, figure: Figure) -> dict[str, object] | None:
    if bar is None:
        return None
    return {
        "of": bar.of.name.lower(),
        "limit": bar.limit,
        "at_least": bar.at_least,
        "reached": bar.reached(figure),
        "missed_rounds": bar.missed_rounds(figure),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All figures of one benchmark. ``notes`` say how they were measured."""

    benchmark: str
    about: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def json(self) -> dict[str, object]:
        """Return the outcome for ``--json``."""
        return {
            "benchmark": self.benchmark,
            "about": self.about,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "figures": [figure.json() for figure in self.figures],
        }


def missed_at_gate(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, Figure]]:
    """Return the figures that fail the gate."""
    return [(outcome, figure) for outcome in outcomes for figure in outcome.figures if figure.misses_gate]


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that at least ``percent`` of all samples do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
