"""Each generated part of the documentation is up to date."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.docs.pages import GENERATORS, PAGES, ROOT, block_names, render


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_has_current_blocks(path: Path) -> None:
    text = path.read_text()
    assert render(text) == text, f"{path} is out of date; run: python -m tests.docs"


def test_shows_each_generated_block_once() -> None:
    shown = Counter(name for path in PAGES for name in block_names(path.read_text()))
    assert shown == Counter(GENERATORS.keys())


def test_rejects_unknown_block() -> None:
    with pytest.raises(KeyError):
        render("<!-- generated: nothing -->\n<!-- end of generated -->\n")


def test_writes_block_again() -> None:
    text = "before\n<!-- generated: role-options -->\nstale text\n<!-- end of generated -->\nafter\n"
    assert "max_session_ttl" in render(text)
    assert "stale text" not in render(text)
    assert render(render(text)) == render(text)
