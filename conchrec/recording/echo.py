"""Which of what is typed may be kept: what the target's terminal shows while it is typed. Pure.

Passwords are typed with echo off. The proxy can not see that switch; it sees whether what is typed comes
back. So what is typed is held until the line on the screen has it, where the cursor was when it was typed,
and is dropped where something else comes there, where the line ends, or after a while. Keys that draw
nothing (Enter, arrows, control keys) are kept, unless they come among letters that are still held.

How sure that is: nothing is kept that was not also shown on the screen, and so is in the recording anyway;
but for such keys, and for how many of them there were. Of programs that draw the whole screen, and of
shells that draw their line anew at every key, less is kept than was typed: when in doubt it is dropped.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from dataclasses import dataclass

from conchrec.recording.line import ShownLine

HELD_SECONDS = 1.0
HELD_AT_MOST = 4096
#: A letter, or a key that draws none: control characters, and the sequences of arrows and the like.
_KEYS = re.compile(
    "\x1b(?:\\[[0-9;?<]*[ -/]*[@-~]|O[@-~]|[ -~])?|[\x00-\x1a\x1c-\x1f\x7f-\x9f]|[^\x00-\x1f\x7f-\x9f]+"
)
_DRAWS = re.compile("[^\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """This was typed, and was shown."""

    text: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something was typed, and was not shown: it is not kept, nor how long it was."""


Found = Kept | Dropped


class Echo:
    """One terminal. ``line`` is fed by whoever calls, after ``shown``. Times are in seconds."""

    def __init__(self, line: ShownLine) -> None:
        self._line = line
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._since = 0.0
        self._column = 0

    def typed(self, data: bytes, now: float) -> list[Found]:
        """What of it can be told at once."""
        found = self._late(now)
        for key in _KEYS.findall(self._decoder.decode(data)):
            if len(key) == 2 and key.startswith("\x1b"):
                continue  # Alt and a letter: it draws nothing, and the letter may be one of a password
            if not self._held and not _DRAWS.match(key):
                found.append(Kept(text=key))
                continue
            if not self._held:
                self._since = now
                self._column = self._line.text()[1]
            self._held += key
        if len(self._held) > HELD_AT_MOST:
            found += self._drop()
        return found

    def shown(self, data: bytes, now: float) -> list[Found]:
        """Output. Call ``line.feed`` with the same afterwards."""
        found = self._late(now)
        if not self._held:
            return found
        first, newline, _ = data[: 4 * HELD_AT_MOST].partition(b"\n")
        after = ShownLine()
        after.copy(self._line)
        after.feed(first)
        text, _ = after.text()
        found += self._seen(text[self._column :])
        if newline and self._held:
            # The line is over: what comes now is no echo of what was typed on it.
            found += self._drop()
        return found

    def end(self) -> list[Found]:
        """Nothing more comes."""
        return self._drop() if self._held else []

    def _seen(self, shown: str) -> list[Found]:
        """``shown`` stands where the cursor was. It counts where all of it, or all that is held, is there."""
        letters = [key for key in _KEYS.findall(self._held) if _DRAWS.match(key)]
        wanted = "".join(letters)
        same = 0
        while same < min(len(wanted), len(shown)) and wanted[same] == shown[same]:
            same += 1
        if not same or same not in (len(wanted), len(shown)):
            return []
        kept, left = self._first(same)
        self._held = left
        self._column += same
        return [Kept(text=kept)]

    def _first(self, count: int) -> tuple[str, str]:
        """What is held up to this many letters, with the keys right after them, and the rest."""
        at = 0
        for key in _KEYS.finditer(self._held):
            if _DRAWS.match(key.group()):
                taken = min(count, len(key.group()))
                count -= taken
                if taken < len(key.group()):
                    return self._held[: key.start() + taken], self._held[key.start() + taken :]
            at = key.end()
        return self._held[:at], self._held[at:]

    def _late(self, now: float) -> list[Found]:
        return self._drop() if self._held and now - self._since > HELD_SECONDS else []

    def _drop(self) -> list[Found]:
        """The letters go; an Enter among them stays."""
        held, self._held = self._held, ""
        found: list[Found] = [Dropped()]
        if held.endswith(("\r", "\n")):
            found.append(Kept(text=held[-1]))
        return found
