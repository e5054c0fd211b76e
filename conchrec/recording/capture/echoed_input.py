"""Decides which of the user's input may be recorded: only what the target's terminal shows while it is typed.

Passwords are typed with echo off. The proxy cannot see that setting; it sees whether the input comes back. So
input is held until it is drawn on the line, at the position of the cursor when it was typed. It is dropped
where something else is drawn there, where the line ends, or after some time. Keys that draw nothing (Enter,
arrows, control keys) are recorded, unless they come among letters that are still held.

Nothing is recorded that was not also shown on the screen, and so is in the recording anyway, except for such
keys and their number. Of programs that draw the whole screen, and of shells that draw their line again at
every key, less is recorded than was typed: in doubt, input is dropped.

Each piece of output is compared with a limited number of letters, however much is held: see ``_WINDOW``.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections import deque
from dataclasses import dataclass, field

from conchrec.recording.terminal.current_line import ShownLine

HELD_SECONDS = 1.0
HELD_AT_MOST = 4096
_WINDOW = 256
"""The letters that are compared at a time. The next ones are compared when all of these were shown."""
_RUNS = 64
"""The runs of letters, with keys between them, that are compared at a time."""
#: A run of letters, or a key that draws nothing: control characters, and the sequences of arrows and the
#: like.
_KEYS = re.compile(
    "\x1b(?:\\[[0-9;?<]*[ -/]*[@-~]|O[@-~]|[ -~])?|[\x00-\x1a\x1c-\x1f\x7f-\x9f]|[^\x00-\x1f\x7f-\x9f]+"
)
_DRAWS = re.compile("[^\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownInput:
    """Input that was shown."""

    text: str


@dataclass(frozen=True, slots=True)
class HiddenInput:
    """Input that was not shown. Neither the input nor its length is recorded."""


EchoResult = ShownInput | HiddenInput


@dataclass(slots=True)
class _Run:
    """Letters that were typed one after another, and the keys after them that draw nothing."""

    letters: str
    keys: list[str] = field(default_factory=list)


class EchoFilter:
    """The input of one terminal. The caller feeds ``line`` before it calls ``shown``. Times are in
    seconds."""

    def __init__(self, line: ShownLine) -> None:
        self._line = line
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._held: deque[_Run] = deque()
        self._size = 0
        self._since = 0.0
        self._column = 0

    def typed(self, data: bytes, now: float) -> list[EchoResult]:
        """Add input. Returns what is known of it at once."""
        results = self._drop_late(now)
        kept: list[str] = []
        typed = self._decoder.decode(data)
        for match in _KEYS.finditer(typed):
            key = match.group()
            if len(key) == 2 and key.startswith("\x1b"):
                continue  # Alt and a letter: it draws nothing, and the letter may be part of a password
            if not self._held and not _DRAWS.match(key):
                kept.append(key)
                continue
            self._hold(key, now)
            if self._size > HELD_AT_MOST:
                # The rest of the same paste is dropped too: its beginning is not known any more.
                self._hold(typed[-1:], now)
                results += [*_shown_input(kept), *self._drop()]
                kept = []
                break
        return results + _shown_input(kept)

    def shown(self, now: float, *, newline: bool) -> list[EchoResult]:
        """Compare the held input with ``line``, after output was fed to it. ``newline``: the output ended the
        line, and the rest of it is fed later."""
        results = self._drop_late(now)
        if not self._held:
            return results
        results += _shown_input(self._match_shown())
        if newline and self._held:
            # The line has ended: later output is not the echo of what was typed on it.
            results += self._drop()
        return results

    def end(self) -> list[EchoResult]:
        """No more input follows. Returns what is known of the held input."""
        return self._drop() if self._held else []

    def _hold(self, key: str, now: float) -> None:
        if not self._held:
            self._since = now
            self._column = self._line.column
            self._line.mark()
        if not _DRAWS.match(key):
            self._held[-1].keys.append(key)
        elif not self._held or self._held[-1].keys:
            self._held.append(_Run(key))
        else:
            self._held[-1].letters += key
        self._size += len(key)

    def _match_shown(self) -> list[str]:
        """Return the held letters that were drawn where the cursor was. They count where all of them, or all
        that was drawn there, are the same."""
        kept: list[str] = []
        while self._held:
            first = [run.letters for _, run in zip(range(_RUNS), self._held, strict=False)]
            expected = "".join(first)[:_WINDOW]
            shown = self._line.new_letters(self._column, len(expected))
            if not shown or not expected.startswith(shown):
                break
            kept += self._take_letters(len(shown))
            self._column += len(shown)
            if len(shown) < len(expected):
                break
        return kept

    def _take_letters(self, count: int) -> list[str]:
        """Remove so many of the held letters, with the keys right after them, and return them."""
        texts = []
        while count:
            run = self._held[0]
            letters, run.letters = run.letters[:count], run.letters[count:]
            count -= len(letters)
            texts.append(letters)
            if not run.letters:
                texts += run.keys
                self._held.popleft()
        self._size -= sum(map(len, texts))
        return texts

    def _drop_late(self, now: float) -> list[EchoResult]:
        return self._drop() if self._held and now - self._since > HELD_SECONDS else []

    def _drop(self) -> list[EchoResult]:
        """Drop the letters. An Enter after them is kept."""
        last = self._held[-1].keys[-1] if self._held[-1].keys else ""
        self._held.clear()
        self._size = 0
        results: list[EchoResult] = [HiddenInput()]
        if last in ("\r", "\n"):
            results.append(ShownInput(text=last))
        return results


def _shown_input(texts: list[str]) -> list[EchoResult]:
    text = "".join(texts)
    return [ShownInput(text=text)] if text else []
