"""Results as a table on a terminal, and as JSON. ``bench.results`` writes Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bench.figures import Bar, Figure, Outcome

HEAD = ("", "conchrec", "yardstick", "ratio", "of the rounds", "must reach", "aim")


def number(value: float | None) -> str:
    """Format a number with three significant digits."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def row(figure: Figure) -> tuple[str, ...]:
    """Return one line of the table, in the order of HEAD."""
    spread = figure.spread
    return (
        figure.name,
        f"{number(figure.median)} {figure.unit}",
        f"{number(figure.yardstick_median)} {figure.unit}" if figure.yardstick else "–",
        f"{figure.ratio:.2f}" if figure.ratio is not None else "–",
        f"{spread[0]:.2f} – {spread[1]:.2f}" if spread is not None else "–",
        _bar_text(figure.must, figure),
        _bar_text(figure.aim, figure),
    )


def _bar_text(bar: Bar | None, figure: Figure) -> str:
    if bar is None:
        return "–"
    return f"{bar.text(figure.unit)} {'✓' if bar.reached(figure) else '✗'}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows with aligned columns."""
    widths = [max(len(line[at]) for line in rows) for at in range(len(rows[0]))]
    lines = [
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def text(outcome: Outcome) -> str:
    """Format an outcome for a terminal."""
    head = f"{outcome.benchmark}: {outcome.about} ({outcome.seconds:.0f} s)"
    return "\n".join(
        [head, table([HEAD, *map(row, outcome.figures)]), *(f"  {note}" for note in outcome.notes), ""]
    )


def as_json(outcomes: Sequence[Outcome], machine: Mapping[str, str], legs: Mapping[str, str]) -> str:
    """Format outcomes as one JSON object; a missing ratio is null."""
    document = {
        "machine": dict(machine),
        "legs": dict(legs),
        "benchmarks": [outcome.json() for outcome in outcomes],
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
