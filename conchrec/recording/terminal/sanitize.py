"""Recorded output, made safe to print to the terminal of whoever looks at it.

A recording is an attack surface: a terminal that is asked something (who are you, where is the
cursor, what is in the clipboard, what is your title) *types* its answer, and that lands in the
reviewer's shell. So only what draws goes through: a list of what is harmless, and not one of what is
known to be dangerous. Dropped are every string sequence (OSC, DCS, APC, PM, SOS: titles, clipboard,
hyperlinks, images), every report, printing, changes of the keyboard and of the tab stops, every mode but
those that draw (others make a terminal send the mouse, the focus, pastes or its size, or take it for a
VT52), and what erases the lines that have scrolled away. ECMA-48, and xterm's ctlseqs.
"""

from __future__ import annotations

import re
from functools import lru_cache

RESET = "\x1b[!p\x1b[?1049l\x1b[?5;45;69l\x1b[?7;25h\x1b[0 q\x1b[0m\x1b(B\x0f"
"""What to print at the end, so that the terminal is as it was."""

_LONGEST = 512
"""Characters of a sequence that may come in parts; nothing that draws is longer."""
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
# A terminal that is reset has forgotten its lines and its tab stops, and perhaps its size.
_CLEARED = "\x1b[?1049l\x1b[!p\x1b[m\x1b(B\x0f\x1b[H\x1b[2J"
_INSERT = frozenset({4})
_DRAWING_MODES = frozenset({5, 6, 7, 12, 25, 45, 47, 69, 1047, 1048, 1049})
#: These may be switched off, if never on.
_ANSWERING_MODES = frozenset({1, 9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016, 2004})
_MOST_REPEATS = 1000


class SafeOutput:
    """Filters one stream; a sequence may come in parts."""

    def __init__(self) -> None:
        self._held = ""
        self._in_string = False

    def feed(self, text: str) -> str:
        """What of ``text``, and of what was held back before it, may be printed now."""
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
            found = _SEQUENCE.search(text, position)
            if unfinished and (found is None or unfinished.start() <= found.start()):
                shown.append(text[position : unfinished.start()])
                if len(text) - unfinished.start() <= _LONGEST:
                    self._held = text[unfinished.start() :]
                break
            if found is None:
                shown.append(text[position:])
                break
            shown.append(text[position : found.start()])
            position = found.end()
            sequence = found.group()
            allowed = _allowed(sequence) if len(sequence) <= _LONGEST else ""
            if allowed is None:
                self._in_string = True
            else:
                shown.append(allowed)
        return "".join(shown)


@lru_cache(maxsize=1024)
def _allowed(sequence: str) -> str | None:
    """What of one sequence may be printed; None where it begins a string. Programs use few different ones."""
    found = _SEQUENCE.match(sequence)
    assert found is not None
    if found["string"]:
        return None
    if found["escape"] == "c":
        return _CLEARED
    return sequence if _draws(found) else ""


def _draws(found: re.Match[str]) -> bool:
    if final := found["final"]:
        if found.group().startswith("\x9b") or len(found["numbers"]) > 256:
            return False
        if found["middle"]:
            return not found["private"] and found["middle"] + final in _WITH_MIDDLE
        return _is_plain(final, found["private"], [int(n) for n in re.split("[:;]", found["numbers"]) if n])
    if escape := found["escape"]:
        return _ESCAPES.fullmatch(escape) is not None
    return found.group() in ("\x0e", "\x0f")


def _is_plain(final: str, private: str, numbers: list[int]) -> bool:
    if private:
        allowed = _DRAWING_MODES if final == "h" else _DRAWING_MODES | _ANSWERING_MODES
        return private == "?" and final in _DRAWS_PRIVATELY and (final in "JK" or allowed.issuperset(numbers))
    if final in "hl":
        return _INSERT.issuperset(numbers)
    if final == "J":
        return 3 not in numbers  # the lines that have scrolled away are the reader's own
    if final == "T":
        return len(numbers) <= 1  # more of them are xterm's tracking of the mouse
    if final == "b":
        return max(numbers, default=1) <= _MOST_REPEATS
    return final in _DRAWS
