"""Which of what is typed may be kept: what the target's terminal shows while it is typed. Pure.

Passwords are typed with echo off. The proxy cannot see that switch; it sees whether what is typed comes
back. So what is typed is held until the line on the screen has it, where the cursor was when it was typed,
and is dropped where something else comes there, where the line ends, or after a while. Keys that draw
nothing (Enter, arrows, control keys) are kept, unless they come among letters that are still held.

How sure that is: nothing is kept that was not also shown on the screen, and so is in the recording anyway;
but for such keys, and for how many of them there were. Of programs that draw the whole screen, and of
shells that draw their line again at every key, less is kept than was typed: when in doubt it is dropped.

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
"""Letters that are compared at a time; only when all of them were shown, the next ones are."""
_RUNS = 64
"""Runs of letters, with keys between them, that are compared at a time."""
#: A run of letters, or a key that draws none: control characters, and the sequences of arrows and the like.
_KEYS = re.compile(
    "\x1b(?:\\[[0-9;?<]*[ -/]*[@-~]|O[@-~]|[ -~])?|[\x00-\x1a\x1c-\x1f\x7f-\x9f]|[^\x00-\x1f\x7f-\x9f]+"
)
_DRAWS = re.compile("[^\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """This was typed, and was shown."""

    text: str


@dataclass(frozen=True, slots=True)
class HiddenInput:
    """Something was typed, and was not shown: it is not kept, nor how long it was."""


Found = Kept | HiddenInput


@dataclass(slots=True)
class _Run:
    """Letters that were typed one after another, and the keys after them that draw nothing."""

    letters: str
    keys: list[str] = field(default_factory=list)


class Echo:
    """One terminal. ``line`` is fed by the caller, before ``shown``. Times are in seconds."""

    def __init__(self, line: ShownLine) -> None:
        self._line = line
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._held: deque[_Run] = deque()
        self._size = 0
        self._since = 0.0
        self._column = 0

    def typed(self, data: bytes, now: float) -> list[Found]:
        """What of it can be told at once."""
        found = self._late(now)
        kept: list[str] = []
        typed = self._decoder.decode(data)
        for match in _KEYS.finditer(typed):
            key = match.group()
            if len(key) == 2 and key.startswith("\x1b"):
                continue  # Alt and a letter: it draws nothing, and the letter may be one of a password
            if not self._held and not _DRAWS.match(key):
                kept.append(key)
                continue
            self._hold(key, now)
            if self._size > HELD_AT_MOST:
                # The rest of the same paste goes, too: its beginning is not known any more.
                self._hold(typed[-1:], now)
                found += [*_kept(kept), *self._drop()]
                kept = []
                break
        return found + _kept(kept)

    def shown(self, now: float, *, newline: bool) -> list[Found]:
        """``line`` was fed with output; ``newline``: that ended the line, and it is not yet fed with that."""
        found = self._late(now)
        if not self._held:
            return found
        found += _kept(self._seen())
        if newline and self._held:
            # The line is over: what comes now is no echo of what was typed on it.
            found += self._drop()
        return found

    def end(self) -> list[Found]:
        """Nothing more comes."""
        return self._drop() if self._held else []

    def _hold(self, key: str, now: float) -> None:
        if not self._held:
            self._since = now
            self._column = self._line.column
        if not _DRAWS.match(key):
            self._held[-1].keys.append(key)
        elif not self._held or self._held[-1].keys:
            self._held.append(_Run(key))
        else:
            self._held[-1].letters += key
        self._size += len(key)

    def _seen(self) -> list[str]:
        """What of what is held stands where the cursor was: it counts where all of it, or all that is there,
        is the same."""
        kept: list[str] = []
        while self._held:
            first = [run.letters for _, run in zip(range(_RUNS), self._held, strict=False)]
            wanted = "".join(first)[:_WINDOW]
            shown = self._line.letters(self._column, len(wanted))
            if not shown or not wanted.startswith(shown):
                break
            kept += self._first(len(shown))
            self._column += len(shown)
            if len(shown) < len(wanted):
                break
        return kept

    def _first(self, count: int) -> list[str]:
        """Take so many of the letters that are held, with the keys right after them."""
        taken = []
        while count:
            run = self._held[0]
            letters, run.letters = run.letters[:count], run.letters[count:]
            count -= len(letters)
            taken.append(letters)
            if not run.letters:
                taken += run.keys
                self._held.popleft()
        self._size -= sum(map(len, taken))
        return taken

    def _late(self, now: float) -> list[Found]:
        return self._drop() if self._held and now - self._since > HELD_SECONDS else []

    def _drop(self) -> list[Found]:
        """The letters go; an Enter after them stays."""
        last = self._held[-1].keys[-1] if self._held[-1].keys else ""
        self._held.clear()
        self._size = 0
        found: list[Found] = [HiddenInput()]
        if last in ("\r", "\n"):
            found.append(Kept(text=last))
        return found


def _kept(texts: list[str]) -> list[Found]:
    text = "".join(texts)
    return [Kept(text=text)] if text else []
