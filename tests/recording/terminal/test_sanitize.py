from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.terminal.sanitize import SafeOutput

ASKS = [
    "\x1b[c", "\x1b[0c", "\x1b[>c", "\x1b[=c", "\x1bZ", "\x9a", "\x9bc", "\x1b[5n", "\x1b[6n", "\x1b[?6n",
    "\x1b[?996n",
    "\x1b[>q", "\x1b[>0q", "\x1b[?u", "\x1b[21t", "\x1b[18t", "\x1b[?1;1;0S", "\x1b[?25$p", "\x1b[4$p",
    "\x1b[x",
    "\x1b[1;1;1;1;24;80*y", "\x1b[1$w", "\x1b[&u", "\x1b[5i", "\x1b[?1000h", "\x1b[?1003;25h",
    "\x1b[?1004h", "\x05",
    "\x1b]52;c;?\x07", "\x1b]52;c;cm0=\x1b\\", "\x1b]10;?\x07", "\x1b]4;1;?\x07", "\x1b]0;rm -rf\x07", "\x1b]8;;file:///\x07",
    "\x1bP$qm\x1b\\", "\x1bP+q544e\x1b\\", "\x1b_Ga=q;\x1b\\", "\x1b^x\x1b\\", "\x1bXx\x1b\\",
    "\x90$qm\x9c", "\x9d52;c;?\x07",
    "\x1b[?2004h", "\x1b[?2l", "\x1b[?9001h", "\x1b[?7700h", "\x1b[?1043h", "\x1b[?1h", "\x1b[?2026h",
    "\x1b[2h", "\x1b[12l", "\x1b[20h", "\x1b=", "\x1b[3J", "\x1b[1;1;1;1;1T", "\x1b[3g", "\x1bH",
    "\x1b[9999b", "\x1b[?67h", "\x1bn", "\x1b6", "\x1b[?3h", "\x1b[#{", "\x1b[1;2'w", "\x1b[2'z",
    "\x1b[?62;1$p", "\x1b[2*x", "\x1b[1;2;3,~", "\x1b[0}",
    "\x1b[>4;2m", "\x1b[=1;1u", "\x1b[>1u", "\x1b[?2031h", "\x1b[?2048h", "\x7f", "\x00",
]  # fmt: skip
DRAWS = [
    "hello", "h\u00e9llo \U0001f600", "a\r\n\tb\b\a", "\x1b[m", "\x1b[1;31m", "\x1b[38:2::1:2:3m",
    "\x1b[2J", "\x1b[H", "\x1b[10;20H",
    "\x1b[K", "\x1b[?25l", "\x1b[?1049h", "\x1b[?1049l", "\x1b[?2004l", "\x1b[?1000l", "\x1b7\x1b8",
    "\x1b(0qqq\x1b(B",
    "\x1b[1;5r", "\x1bM", "\x1b[4 q", "\x1b[!p", "\x1b#8", "\x0e\x0f", "\x1b[s\x1b[u", "\x1b[3b",
    "\x1b[4h",
]  # fmt: skip


def show(*parts: str) -> str:
    safe = SafeOutput()
    return "".join(safe.feed(part) for part in parts)


@pytest.mark.parametrize("ask", ASKS)
def test_drops_everything_that_a_terminal_answers(ask: str) -> None:
    assert show(f"before{ask}after") == "beforeafter"
    assert show("before", *ask, "after") == "beforeafter"


@pytest.mark.parametrize("text", DRAWS)
def test_passes_everything_that_draws(text: str) -> None:
    assert show(text + ".") == text + "."
    assert show(*text, ".") == text + "."


def test_replaces_reset_by_one_that_keeps_the_scrollback() -> None:
    shown = show("a\x1bcb")
    assert shown.startswith("a\x1b[?1049l\x1b[!p") and shown.endswith("\x1b[H\x1b[2Jb")
    assert "\x1bc" not in shown


def test_breaks_sequence_at_a_control_inside() -> None:
    """xterm executes the newline and continues the sequence."""
    assert show("\x1b[\n6n") == "\n6n"
    assert show("\x1b\x1b[6n") == ""
    assert show("\x1b[6\x18n") == "6n"


def test_ends_unclosed_string_where_a_terminal_does() -> None:
    assert show("\x1b]0;x\x1b[1mvisible") == "\x1b[1mvisible"
    assert show("\x1bPq\x18visible") == "visible"


def test_limits_held_sequence() -> None:
    safe = SafeOutput()
    assert safe.feed("\x1b[" + "1;" * 5000) == ""
    assert safe.feed("mtext") == "mtext"


DANGEROUS = re.compile(
    "\x1b\\[[^@-~]*[cnxyqtiwS]|\x1b[]PX^_Z]|[\x80-\x9f\x05]|\x1b\\[[<=>]|\x1b\\[\\?[0-9;]*1000h"
)
pieces = st.lists(
    st.sampled_from(ASKS + DRAWS) | st.text(st.sampled_from("\x1b[]?;>0123456789cnhmtPq\\\x07\x9b\x18 $"))
)


@given(pieces, st.integers(1, 7))
def test_passes_nothing_by_order_or_parts(texts: list[str], size: int) -> None:
    text = "".join(texts)
    whole = show(text)
    assert not DANGEROUS.search(re.sub("\x1b\\[[0-9:;]* q", "#", whole))
    assert show(*(text[begin : begin + size] for begin in range(0, len(text), size))) == whole


def test_works_in_linear_time() -> None:
    assert len(show("\x1b[1mx" * 200_000)) == 5 * 200_000
    assert len(show("\x1b" * 200_000)) == 0
