"""Every text that conchrec can say to somebody is in a golden file, or in a list that says why not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden.conftest import HERE, Compare
from tests.golden.templates import GAP, Sources, calls, name_of, reasons, template

#: Calls whose text somebody reads.
SAYS = frozenset(
    {"print", "write", "ArgumentTypeError", "ValueError", "SystemExit", "Unknown", "problem", "_problem",
     "warning", "say", "_say", "Challenge", "Prompt", "_note", "NotAHost", "_Problem", "NotFollowed"}
)  # fmt: skip
#: Shorter ones prove nothing.
LEAST = 8
MISSING = HERE / "texts_without_message.txt"


def _fragments(sources: Sources) -> Iterator[tuple[Path, str]]:
    """The longest constant part of each text, with where it is."""
    for path, tree in sources.trees.items():
        for call, names in calls(tree):
            if name_of(call.func) in SAYS:
                for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
                    for text in template(argument, names):
                        longest = max(text.replace("\n", GAP).split(GAP), key=len).strip()
                        if len(longest) >= LEAST and not isinstance(argument, ast.Starred):
                            yield path, longest


def _known() -> str:
    """All golden messages without the marks of their lines, in one line, and with white space as it is in
    sources."""
    lines: list[str] = []
    for file in sorted((HERE / "messages").glob("*.txt")):
        for line in file.read_text().splitlines():
            mark, separator, text = line.partition("| ")
            lines.append(text if separator and len(mark) < 16 else line)
    return "\n".join(lines)


@pytest.fixture(scope="module")
def sources() -> Sources:
    """All our modules, parsed."""
    return Sources()


def test_shows_every_reason(golden: Compare, sources: Sources) -> None:
    golden("messages/reasons.txt", "".join(f"{line}\n" for line in reasons(sources)))


def test_lists_texts_without_message(sources: Sources) -> None:
    """``texts_without_message.txt``: one text a line, below a line that says why there is no message."""
    known = _known()
    missing = {text for _, text in _fragments(sources) if text not in known}
    listed = {line for line in MISSING.read_text().splitlines() if line and not line.startswith("# ")}
    assert sorted(missing - listed) == []
    assert sorted(listed - missing) == []
