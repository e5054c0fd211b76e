"""RESULTS.md: a section for each benchmark, with the date and the command of its measurement.

A run replaces the sections of its benchmarks and keeps the others. A run of some floods only, with ``hostile
--only KIND``, replaces the rows of these floods in their section.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from bench.figures import Outcome
from bench.report import HEAD, row

LEGS = "negotiated"
"""The heading of the section with the algorithms of the connections."""

_PREFACE = """# Results

Written by `python -m bench --results`, not by hand. Machines differ and are noisy: each number is the median
of several rounds, in which conchrec and its yardstick (`ssh -J` through a stock sshd, unrecorded) took turns,
and the ratio is conchrec's median divided by the yardstick's. *Of the rounds* are the smallest and the
largest ratio of a single round. Clients, servers and target share one machine and use loopback, with the
defaults of OpenSSH; but the target offers the key exchange curve25519-sha256 only, unless a row names another
one. A section shows the bars and the target's algorithms of its own measurement.
"""
_MEASURED = "Measured by "
_HEADING = re.compile(r"^## (.+)\n", re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The lines of a section without its heading: paragraphs, a table with its head, and notes.

    The first paragraph says what was measured. The others say when and how.
    """

    paragraphs: tuple[str, ...]
    table: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Section:
        """Read what ``text`` writes."""
        lines = [line for line in text.splitlines() if line]
        return cls(
            paragraphs=tuple(line for line in lines if not line.startswith(("| ", "- "))),
            table=tuple(line for line in lines if line.startswith("| ")),
            notes=tuple(line for line in lines if line.startswith("- ")),
        )

    @property
    def text(self) -> str:
        """Return the section in Markdown."""
        parts = [*self.paragraphs, "\n".join(self.table), "\n".join(self.notes)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def with_rows(self, other: Section) -> Section:
        """Return this section with the floods of ``other``, a measurement of some floods only.

        A flood has several rows; each begins with its name and a colon.
        """
        head, fresh = self.table[:2], {name: [*rows] for name, rows in groupby(other.table[2:], _flood)}
        again = f"Measured again ({', '.join(fresh)}): "
        rows: list[str] = []
        for name, old in groupby(self.table[2:], _flood):
            rows += fresh.pop(name, [*old])
        for new in fresh.values():
            rows += new
        notes = {note.rpartition(": ")[0] or note: note for note in [*self.notes, *other.notes]}
        kept = [line for line in self.paragraphs if not line.startswith(again)]
        return Section(
            paragraphs=(*kept, *(again + line.removeprefix(_MEASURED) for line in other.paragraphs[1:])),
            table=(*head, *rows),
            notes=tuple(notes.values()),
        )


def outcome_section(outcome: Outcome, machine: Mapping[str, str], command: str) -> Section:
    """Return the section of a benchmark; ``machine`` is that of ``bench.machine``."""
    return Section(
        paragraphs=(f"{outcome.about[0].upper()}{outcome.about[1:]}.", _origin(machine, command)),
        table=_table([HEAD, *map(row, outcome.figures)]),
        notes=tuple(f"- {note}" for note in outcome.notes),
    )


def legs_section(legs: Mapping[str, str], machine: Mapping[str, str], command: str) -> Section:
    """Return the section of the algorithms that the connections negotiate."""
    return Section(
        paragraphs=("Algorithms of each connection.", _origin(machine, command)),
        table=_table([("leg", "key exchange, cipher, MAC"), *legs.items()]),
    )


def read_page(page: str) -> dict[str, Section]:
    """Return the sections of a page by their headings."""
    parts = _HEADING.split(page)
    return {name: Section.parse(text) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def make_page(sections: Mapping[str, Section], order: Sequence[str]) -> str:
    """Return a page; sections that are not in ``order`` are of benchmarks that no longer exist."""
    names = [name for name in order if name in sections]
    return "\n".join([_PREFACE, *(f"## {name}\n\n{sections[name].text}" for name in names)])


def _origin(machine: Mapping[str, str], command: str) -> str:
    """``Measured by `python -m bench echo`; date: …; conchrec: …``"""
    return f"{_MEASURED}`{command}`; " + "; ".join(f"{name}: {value}" for name, value in machine.items())


def _flood(line: str) -> str:
    """The flood of a row of a table; the whole name if it has no colon."""
    return line.removeprefix("| ").partition(" | ")[0].partition(": ")[0]


def _table(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    head, *rest = rows
    return tuple(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rest])
