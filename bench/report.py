"""Results for people (a table on a terminal, Markdown in RESULTS.md) and for machines (JSON)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bench.figures import Bar, Figure, Outcome

HEAD = ("", "conchrec", "yardstick", "ratio", "of the rounds", "must reach", "aim")

_PREFACE = """# Results

Written by `python -m bench --results`, not by hand. Machines differ and are noisy: each number is the median
of several rounds, in which conchrec and its yardstick (`ssh -J` through a stock sshd, unrecorded) took turns,
and the ratio is conchrec's median by the yardstick's. *Of the rounds* are the smallest and the largest ratio
of a single round. Clients, servers and target share one machine and talk over loopback, with the defaults of
OpenSSH.
"""


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def row(figure: Figure) -> tuple[str, ...]:
    """One line of the table, in the order of HEAD."""
    spread = figure.spread
    return (
        figure.name,
        f"{number(figure.median)} {figure.unit}",
        f"{number(figure.yardstick_median)} {figure.unit}" if figure.yardstick else "–",
        f"{figure.ratio:.2f}" if figure.ratio is not None else "–",
        f"{spread[0]:.2f} – {spread[1]:.2f}" if spread is not None else "–",
        _judged(figure.must, figure),
        _judged(figure.aim, figure),
    )


def _judged(bar: Bar | None, figure: Figure) -> str:
    if bar is None:
        return "–"
    return f"{bar.text(figure.unit)} {'✓' if bar.reached(figure) else '✗'}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns that line up."""
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
    """For a terminal."""
    head = f"{outcome.benchmark}: {outcome.about} ({outcome.seconds:.0f} s)"
    return "\n".join(
        [head, table([HEAD, *map(row, outcome.figures)]), *(f"  {note}" for note in outcome.notes), ""]
    )


def as_json(outcomes: Sequence[Outcome], machine: Mapping[str, str], legs: Mapping[str, str]) -> str:
    """One object; a missing ratio is null."""
    document = {
        "machine": dict(machine),
        "legs": dict(legs),
        "benchmarks": [outcome.json() for outcome in outcomes],
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def markdown(
    outcomes: Sequence[Outcome], machine: Mapping[str, str], legs: Mapping[str, str], command: str
) -> str:
    """The whole of RESULTS.md."""
    parts = [_PREFACE, f"`{command}`\n", _markdown_table([("machine", ""), *machine.items()])]
    if legs:
        parts.append("## Negotiated\n")
        parts.append(_markdown_table([("leg", "key exchange, cipher, MAC"), *legs.items()]))
    for outcome in outcomes:
        parts.append(f"## {outcome.benchmark}\n\n{outcome.about[0].upper()}{outcome.about[1:]}.\n")
        parts.append(_markdown_table([HEAD, *map(row, outcome.figures)]))
        parts.append("".join(f"- {note}\n" for note in outcome.notes))
    return "\n".join(parts)


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
