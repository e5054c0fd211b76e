"""What was measured, and whether it is good enough. Values and arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median


class Of(Enum):
    """What of a figure a bar is about."""

    RATIO = "×"
    """The median of conchrec by the median of the yardstick."""
    DIFFERENCE = "+"
    """The median of conchrec less the median of the yardstick."""
    VALUE = "="
    """The median of conchrec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What has to be reached: at least, or at most, this."""

    of: Of
    limit: float
    at_least: bool = False

    def reached(self, figure: Figure) -> bool:
        """False also where there is nothing to judge by."""
        value = figure.measured(self.of)
        if value is None:
            return False
        return value >= self.limit if self.at_least else value <= self.limit

    def text(self, unit: str) -> str:
        """``≥ 0.8 ×``, ``≤ + 2 ms``, ``≤ 10 s/GB``"""
        sign = "≥" if self.at_least else "≤"
        if self.of is Of.RATIO:
            return f"{sign} {self.limit:g} ×"
        return f"{sign} {'+ ' if self.of is Of.DIFFERENCE else ''}{self.limit:g} {unit}"


def at_least_ratio(limit: float) -> Bar:
    """Return a bar: ours divided by the yardstick is at least this."""
    return Bar(of=Of.RATIO, limit=limit, at_least=True)


def at_most_ratio(limit: float) -> Bar:
    """Return a bar: ours divided by the yardstick is at most this."""
    return Bar(of=Of.RATIO, limit=limit)


def at_most_more(limit: float) -> Bar:
    """Return a bar: ours exceeds the yardstick by at most this."""
    return Bar(of=Of.DIFFERENCE, limit=limit)


def at_most(limit: float) -> Bar:
    """Return a bar: ours is at most this."""
    return Bar(of=Of.VALUE, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the results: a number from each round, in ``unit``. ``yardstick`` is empty where there is
    nothing to compare with; else it has the number from the same round at the same place."""

    name: str
    unit: str
    ours: tuple[float, ...]
    yardstick: tuple[float, ...] = ()
    must: Bar | None = None
    aim: Bar | None = None
    gate: Bar | None = None
    """What a regression does not get by, with much room for noise; never an absolute time."""

    @property
    def median(self) -> float:
        """Return the median of ours."""
        return median(self.ours)

    @property
    def yardstick_median(self) -> float | None:
        """Return the median of the yardstick; None without one."""
        return median(self.yardstick) if self.yardstick else None

    @property
    def ratio(self) -> float | None:
        """Return ours divided by the yardstick; None without one."""
        return self.measured(Of.RATIO)

    @property
    def spread(self) -> tuple[float, float] | None:
        """The smallest and the largest ratio of one round: how noisy it was."""
        if not self.yardstick or not all(self.yardstick):
            return None
        ratios = [own / base for own, base in zip(self.ours, self.yardstick, strict=True)]
        return min(ratios), max(ratios)

    def measured(self, of: Of) -> float | None:
        """None if the yardstick is missing or zero."""
        base = self.yardstick_median
        if of is Of.VALUE:
            return self.median
        if base is None:
            return None
        if of is Of.DIFFERENCE:
            return self.median - base
        return self.median / base if base else None

    def json(self) -> dict[str, object]:
        """For machines; numbers and what was reached, nothing to be parsed again."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": list(self.ours),
            "yardstick": list(self.yardstick),
            "median": self.median,
            "yardstick_median": self.yardstick_median,
            "ratio": self.ratio,
            "difference": self.measured(Of.DIFFERENCE),
            **{name: _bar_json(bar, self) for name, bar in self.bars().items()},
        }

    def bars(self) -> dict[str, Bar | None]:
        """Return the bars by their names."""
        return {"must": self.must, "aim": self.aim, "gate": self.gate}


def _bar_json(bar: Bar | None, figure: Figure) -> dict[str, object] | None:
    if bar is None:
        return None
    return {
        "of": bar.of.name.lower(),
        "limit": bar.limit,
        "at_least": bar.at_least,
        "reached": bar.reached(figure),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All figures of one benchmark. ``notes`` are what a reader has to know beside them."""

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
    """What a regression has made worse than any noise would."""
    return [
        (outcome, figure)
        for outcome in outcomes
        for figure in outcome.figures
        if figure.gate is not None and not figure.gate.reached(figure)
    ]


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least ``percent`` of all do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
