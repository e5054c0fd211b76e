"""The commands of a shell session: where the shell tells, or where a prompt can be recognised. Pure.

A shell that tells sends OSC 133 (FinalTerm's, which iTerm2, VTE, kitty, WezTerm and others know): ``A``
before its prompt, ``B`` after it, ``C`` before a command's output, ``D;STATUS`` after; OSC 633 is VS Code's,
with the command itself in ``E``. Without them a prompt is what stands before the cursor when a person begins
to type, if it ends as prompts do, and the command what stands after it when the line ends.

Only what was shown is ever looked at, and of what was typed only whether there was an Enter: a password that
nobody sees is not seen here. All of it is a convenience. Somebody who does not want to be followed is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from conchrec.recording.line import ShownLine
from conchrec.recording.transcript import Transcript

LOOKED_AT = 4096
"""Of a larger piece of output only so much, at its end, is searched for what a shell tells."""
LONGEST = 1024
"""Letters of a command that are kept."""
_CAPTURED = 16 * 1024
_TELLS = re.compile(rb"\x1b\](133|633);([A-E])((?:;[^\x07\x1b]*)?)(?:\x07|\x1b\\)")
_UNFINISHED = re.compile(rb"\x1b(?:\](?:[0-9]{0,3}|(?:133|633);[^\x07\x1b]*\x1b?))?\Z")
#: A letter, or an arrow: somebody begins to type.
_BEGINS = re.compile(rb"[^\x00-\x1a\x1c-\x1f\x7f]")
#: Enter, ^C, ^D, ^Z, ^\\.
_ENDS = re.compile(rb"[\r\n\x03\x04\x1a\x1c]")
_PROMPT = re.compile(r".{0,200}[$#%>❯»➜λ] ?\Z")
#: PS2 of sh and bash, and what zsh says before its own.
_CONTINUATION = re.compile(
    r"(?:(?:[bd]?quote|heredoc|cmdsubst|subsh|cursh|pipe|cmd(?:and|or)|for|while|until|if|then|else|elif|case"
    r"|select|repeat|function|array|braceparam|math(?:subst)?) ?)*> ?\Z"
)
_SCREEN = re.compile(rb"\x1b\[\?(?:1049|1047|47)([hl])")
_VSCODE = re.compile(r"\\(x[0-9a-f]{2}|\\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A command was given."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The last one has ended, as its shell says."""

    status: int


Found = Begun | Ended


class Commands:
    """One terminal. ``line`` is fed by whoever calls, after ``shown``."""

    def __init__(self, line: ShownLine) -> None:
        self._line = line
        #: The prompt of the line that is being typed, empty where there is none; and the last that there was.
        self._prompt = ""
        self._last = ""
        #: A line has ended, or was given up, since the prompt was looked for.
        self._fresh = True
        self._enters = 0
        self._screen = False
        self._told = False
        self._rest = b""
        self._captured: bytearray | None = None
        self._given = ""
        self._runs = False

    def typed(self, data: bytes) -> None:
        """A person has typed something."""
        if self._told:
            return
        if self._fresh and _BEGINS.match(data):
            text, column = self._line.text()
            before = text[:column]
            if _PROMPT.match(before) and not _CONTINUATION.match(before):
                self._prompt = self._last = before
                self._enters = 0
            else:
                self._prompt = ""
            self._fresh = False
        if _ENDS.search(data):
            self._fresh = True
        if entered := data.count(b"\r") + data.count(b"\n"):
            self._enters = min(self._enters + entered, 1000)

    def shown(self, data: bytes) -> list[Found]:
        """Output. Call ``line.feed`` with the same afterwards."""
        looked = data if len(data) <= LOOKED_AT else data[-LOOKED_AT:]
        if self._rest or self._captured is not None or b"\x1b]" in looked or looked.endswith(b"\x1b"):
            found = self._tell(looked)
            if self._told:
                return found
        for change in _SCREEN.finditer(looked) if b"\x1b[?" in looked else ():
            self._screen = change[1] == b"h"
        if b"\n" not in data:
            return []
        found = self._entered(data) if self._enters else []
        self._fresh = True
        return found

    # --- by the prompt

    def _entered(self, data: bytes) -> list[Found]:
        found: list[Found] = []
        line = ShownLine()
        first, _, rest = data[:_CAPTURED].partition(b"\n")
        self._line.feed(first)
        text, _ = self._line.text()
        while True:
            self._enters -= 1
            prompt = self._prompt or self._last
            if prompt and not self._screen and text.startswith(prompt):
                command = text[len(prompt) :].strip()
                if command:
                    found.append(Begun(text=command[:LONGEST]))
            if not self._enters or b"\n" not in rest:
                break
            # Typed ahead: the next one is on a later line of this output, if it begins with the same prompt.
            first, _, rest = rest.partition(b"\n")
            line.feed(first)
            text, _ = line.text()
            line.feed(b"\n")
            if not (prompt and text.startswith(prompt)):
                self._enters += 1
        return found

    # --- by the shell itself

    def _tell(self, data: bytes) -> list[Found]:
        found: list[Found] = []
        data = self._rest + data
        at = 0
        for tells in _TELLS.finditer(data):
            self._capture(data[at : tells.start()])
            at = tells.end()
            self._told = True
            self._told_one(tells[1], tells[2], tells[3][1:].decode("utf-8", "replace"), found)
        rest = data[at:]
        unfinished = _UNFINISHED.search(rest)
        end = unfinished.start() if unfinished and len(rest) - unfinished.start() <= LOOKED_AT else len(rest)
        self._capture(rest[:end])
        self._rest = rest[end:]
        return found

    def _told_one(self, kind: bytes, what: bytes, argument: str, found: list[Found]) -> None:
        if what == b"A":
            self._captured = None
            self._given = ""
        elif what == b"B":
            self._captured = bytearray()
        elif what == b"E" and kind == b"633":
            self._given = _VSCODE.sub(_unescaped, argument.split(";")[0])
        elif what == b"C":
            shown = bytes(self._captured or b"")
            self._captured = None
            if command := (self._given or _plain(shown)).strip():
                found.append(Begun(text=command[:LONGEST]))
                self._runs = True
            self._given = ""
        elif what == b"D":
            if self._runs and re.fullmatch("[0-9]{1,3}", status := argument.split(";")[0]):
                found.append(Ended(status=int(status)))
            self._runs = False

    def _capture(self, data: bytes) -> None:
        if self._captured is not None and len(self._captured) < _CAPTURED:
            self._captured += data


def _plain(shown: bytes) -> str:
    transcript = Transcript()
    text = transcript.feed(shown.decode("utf-8", "replace")) + transcript.end()
    return text.rstrip("\n")


def _unescaped(escape: re.Match[str]) -> str:
    return "\\" if escape[1] == "\\" else chr(int(escape[1][1:], 16))
