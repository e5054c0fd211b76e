"""Makes recorded output safe to print to the terminal of a reviewer.

A recording is an attack surface: a terminal that is queried (its type, the cursor position, the clipboard,
the title) *types* the answer, which lands in the reviewer's shell. So only what draws is passed on: a list of
what is harmless, and not of what is known to be dangerous. These are dropped: every string sequence (OSC,
DCS, APC, PM, SOS: titles, clipboard, hyperlinks, images), every report, printing, changes of the keyboard and
of the tab stops, every mode except those that draw (others make a terminal send mouse events, focus events,
pastes or its size, or switch it to VT52), and what erases the scrollback. See ECMA-48 and xterm's ctlseqs.
"""

from __future__ import annotations

import re
from functools import lru_cache

RESET = "\x1b[!p\x1b[?1049l\x1b[?5;45;69l\x1b[?7;25h\x1b[0 q\x1b[0m\x1b(B\x0f"
"""Printed at the end, so that the terminal is as it was."""

_LONGEST = 512
"""The longest sequence that may come in parts; no sequence that draws is longer."""
# As in a terminal, any escape ends a string: one that is never closed must not hide what follows it.
_STRING = re.compile("[\x07\x18\x1a\x9c]|(?=\x1b)")
_SEQUENCE = re.compile(
    "(?P<string>\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])"
    "|(?:\x1b\\[|\x9b)(?P<private>[<-?]?)(?P<numbers>[0-9:;]*)(?P<middle>[ -/]*)(?P<final>[@-~])"
    "|\x1b(?P<escape>[ -/]*[0-~])"
    "|[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f-\x9f]|\x1b"
)
_UNFINISHED = re.compile("(?:\x1b|(?:\x1b\\[|\x9b)[<-?]?[0-9:;]*[ -/]*|\x1b[ -/]*)\\Z")
_DRAWS = frozenset("@ABCDEFGHIJKLMPSTXZ`abdefhlmrsu")
_DRAWS_PRIVATELY = frozenset("hlJK")
_WITH_MIDDLE = frozenset({" q", "!p"})
_ESCAPES = re.compile("[78DEM]|#[3-8]|[()*+][0-9A-Za-z<=>]")
# In place of a reset, which would also change the scrollback, the tab stops and perhaps the size.
_CLEARED = "\x1b[?1049l\x1b[!p\x1b[m\x1b(B\x0f\x1b[H\x1b[2J"
_INSERT = frozenset({4})
_DRAWING_MODES = frozenset({5, 6, 7, 12, 25, 45, 47, 69, 1047, 1048, 1049})
#: Modes that may be switched off, and never on.
_ANSWERING_MODES = frozenset({1, 9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016, 2004})
_MOST_REPEATS = 1000


class SafeOutput:
    """Filters one stream; a sequence may come in parts."""

    def __init__(self) -> None:
        self._held = ""
        self._in_string = False

    def feed(self, text: str) -> str:
        """Return what of ``text``, and of what was held back before it, may be printed now."""
        text = self._held + text
        self._held = ""
        shown: list[str] = []
        unfinished = _UNFINISHED.search(text)
        position = 0
        while position < len(text):
            if self._in_string:
                end = _STRING.search(text, position)
                if end is None:
                    break
                self._in_string = False
                position = end.end()
                continue
            match = _SEQUENCE.search(text, position)
            if unfinished and (match is None or unfinished.start() <= match.start()):
                shown.append(text[position : unfinished.start()])
                if len(text) - unfinished.start() <= _LONGEST:
                    self._held = text[unfinished.start() :]
                break
            if match is None:
                shown.append(text[position:])
                break
            shown.append(text[position : match.start()])
            position = match.end()
            sequence = match.group()
            allowed = _filter_sequence(sequence) if len(sequence) <= _LONGEST else ""
            if allowed is None:
                self._in_string = True
            else:
                shown.append(allowed)
        return "".join(shown)


@lru_cache(maxsize=1024)
def _filter_sequence(sequence: str) -> str | None:
    """Return what of one sequence may be printed, or None where it begins a string. Programs use few
    different ones."""
    match = _SEQUENCE.match(sequence)
    assert match is not None
    if match["string"]:
        return None
    if match["escape"] == "c":
        return _CLEARED
    return sequence if _draws(match) else ""


def _draws(match: re.Match[str]) -> bool:
    if final := match["final"]:
        if match.group().startswith("\x9b") or len(match["numbers"]) > 256:
            return False
        if match["middle"]:
            return not match["private"] and match["middle"] + final in _WITH_MIDDLE
        return _is_drawing(final, match["private"], [int(n) for n in re.split("[:;]", match["numbers"]) if n])
    if escape := match["escape"]:
        return _ESCAPES.fullmatch(escape) is not None
    return match.group() in ("\x0e", "\x0f")


def _is_drawing(final: str, private: str, numbers: list[int]) -> bool:
    if private:
        allowed = _DRAWING_MODES if final == "h" else _DRAWING_MODES | _ANSWERING_MODES
        return private == "?" and final in _DRAWS_PRIVATELY and (final in "JK" or allowed.issuperset(numbers))
    if final in "hl":
        return _INSERT.issuperset(numbers)
    if final == "J":
        return 3 not in numbers  # the scrollback belongs to the reader
    if final == "T":
        return len(numbers) <= 1  # with more numbers it is xterm's mouse tracking
    if final == "b":
        return max(numbers, default=1) <= _MOST_REPEATS
    return final in _DRAWS
