"""Pieces of Markdown: tables, wrapped text, and docstrings as text."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

WIDTH = 100


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; each cell is Markdown, and a bar in it is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def wrap(text: str, *, first: str = "", rest: str | None = None) -> str:
    """One paragraph in lines of at most WIDTH characters. ``first`` begins the first line, ``rest`` the
    others (default: as many blanks)."""
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def item(text: str) -> str:
    """An item of a list."""
    return wrap(text, first="- ") + "\n"


def from_docstring(docstring: str) -> str:
    """A docstring as paragraphs of Markdown: ````code```` in double backquotes becomes `code`."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(docstring).strip().replace("``", "`"))
    return "\n\n".join(wrap(paragraph) for paragraph in paragraphs) + "\n"


def code(text: str) -> str:
    """``text`` in backquotes, also where it contains some."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def yaml(text: str) -> str:
    """A block of YAML."""
    return f"```yaml\n{text.rstrip()}\n```\n"


def anchor(heading: str) -> str:
    """The anchor that GitHub and MyST make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def contents(headings: Iterable[str]) -> str:
    """A list of links to headings of the same page."""
    return "".join(f"- [{heading}](#{anchor(heading)})\n" for heading in headings)


def json_object(values: Mapping[str, object]) -> str:
    """A block with a JSON object, broken between its members into lines of at most WIDTH characters."""
    members = [json.dumps({name: value}, ensure_ascii=False)[1:-1] for name, value in values.items()]
    lines: list[str] = []
    line = "{"
    for member in members[:-1]:
        line, lines = _append(line, f"{member},", lines)
    line, lines = _append(line, f"{members[-1]}}}", lines)
    return "\n".join(["```json", *lines, line, "```\n"])


def _append(line: str, word: str, lines: list[str]) -> tuple[str, list[str]]:
    """The line with one more word; a new line, and the old one among the lines, if it would be too long."""
    longer = line + ("" if line in ("{", "  ") else " ") + word
    return (longer, lines) if len(longer) <= WIDTH or line == "{" else (f"  {word}", [*lines, line])


def escape(text: str) -> str:
    """Plain text, with what Markdown would read as markup escaped."""
    return re.sub(r"([*<\\])", r"\\\1", text)
