"""Pages of the documentation: their headings, links and fenced blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.proxy import ROOT

_FENCE = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language (empty: none) and its text."""

    language: str
    text: str


class Page:
    """One Markdown file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text()
        self.blocks = tuple(Block(match[1], match[2]) for match in _FENCE.finditer(self.text))
        self.prose = _FENCE.sub("", self.text)
        """The text without fenced blocks."""

    def __repr__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def headings(self) -> tuple[tuple[int, str], ...]:
        """Level and text of each heading."""
        matches = re.finditer(r"^(#+) (.*)$", self.prose, re.MULTILINE)
        return tuple((len(match[1]), match[2]) for match in matches)

    @property
    def anchors(self) -> frozenset[str]:
        """The fragments by which the headings can be linked."""
        return frozenset(slug(text) for _, text in self.headings)

    @property
    def links(self) -> tuple[str, ...]:
        """The targets of all links."""
        return tuple(_LINK.findall(re.sub(r"`[^`]*`", "", self.prose)))

    def section(self, heading: str) -> str:
        """The text below a heading of the second level. AssertionError if it is missing."""
        pattern = rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)"
        match = re.search(pattern, self.text, re.MULTILINE | re.DOTALL)
        assert match is not None, f"{self} has no section {heading}"
        return match[1]

    def blocks_of(self, heading: str, language: str) -> tuple[str, ...]:
        """The fenced blocks of a section that have this language."""
        matches = _FENCE.finditer(self.section(heading))
        return tuple(match[2] for match in matches if match[1] == language)

    def shell_lines(self) -> Iterator[str]:
        """Each line of the shell examples, with continued lines joined."""
        for block in self.blocks:
            if block.language == "sh":
                yield from block.text.replace("\\\n", " ").splitlines()


def slug(heading: str) -> str:
    """The fragment that GitHub and MyST make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def all_pages() -> tuple[Page, ...]:
    """README and the other pages at the top, and everything in docs/."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    return tuple(Page(path) for path in (*top, *sorted((ROOT / "docs").rglob("*.md"))))
