"""Detects the commands of a shell session: by marks of the shell, or by its prompt.

A shell with marks sends OSC 133 (FinalTerm; iTerm2, VTE, kitty, WezTerm and others know it): ``A`` before its
prompt, ``B`` after it, ``C`` before the output of a command, ``D;STATUS`` after it. OSC 633 is that of VS
Code, with the command itself in ``E``. Without marks, the prompt is what stands before the cursor when a
person begins to type, if it ends as prompts do, and the command is what stands after it when the line ends.

Only shown text is read, and of the input only whether there was an Enter: a password that is not shown is not
seen here. The detection is a convenience; a user who wants to avoid it can do so.

Each byte is examined a fixed number of times, however long the line, the prompt or the sequence is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from conchrec.recording.terminal.current_line import ShownLine
from conchrec.recording.terminal.transcript import Transcript

LOOKED_AT = 4096
"""The bytes at the end of a large piece of output that are searched for marks of the shell."""
LONGEST = 1024
"""The letters of a command that are kept."""
_CAPTURED = 16 * 1024
_LINES_AHEAD = 32
"""The lines of one piece of output that are searched for commands that were typed ahead."""
_MARK = re.compile(rb"\x1b\](133|633);")
_MARK_END = re.compile(rb"[\x07\x1b]")
_PERHAPS_MARK = re.compile(rb"\x1b(?:\][0-9]{0,3})?\Z")
_LONGEST_MARK = 4096
#: A letter, or an arrow: somebody begins to type.
_BEGINS = re.compile(rb"[^\x00-\x1a\x1c-\x1f\x7f]")
#: Enter, ^C, ^D, ^Z, ^\\.
_ENDS = re.compile(rb"[\r\n\x03\x04\x1a\x1c]")
_PROMPT = re.compile(r".*[$#%>❯»➜λ] ?\Z")
_LONGEST_PROMPT = 202
#: PS2 of sh and bash, and the words that zsh shows before its own.
_CONTINUATION = re.compile(
    r"(?:(?:[bd]?quote|heredoc|cmdsubst|subsh|cursh|pipe|cmd(?:and|or)|for|while|until|if|then|else|elif|case"
    r"|select|repeat|function|array|braceparam|math(?:subst)?) ?)*> ?\Z"
)
_SCREEN = re.compile(rb"\x1b\[\?(?:1049|1047|47)([hl])")
_VSCODE = re.compile(r"\\(x[0-9a-f]{2}|\\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandStart:
    """A command was entered."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEnd:
    """The last command has ended, by a mark of its shell."""

    status: int


CommandEvent = CommandStart | CommandEnd


class CommandDetector:
    """Detects the commands of one terminal.

    Before ``shown(data)`` the caller feeds ``line`` with ``data`` up to the first newline; after it, with the
    rest.
    """

    def __init__(self, line: ShownLine) -> None:
        self._line = line
        #: The prompt of the line that is being typed, empty without one; and the last prompt.
        self._prompt = ""
        self._last = ""
        #: A line has ended, or was cancelled, since the last search for a prompt.
        self._fresh = True
        self._enters = 0
        self._is_alternate_screen = False
        self._has_marks = False
        #: Output that may be the beginning of a mark; the kind and the contents of a mark that has begun.
        self._rest = b""
        self._kind = b""
        self._mark: bytearray | None = None
        self._captured: bytearray | None = None
        self._given_command = ""
        self._is_running = False

    def typed(self, data: bytes) -> None:
        """A person has typed something."""
        if self._has_marks:
            return
        if self._fresh and _BEGINS.match(data):
            before = self._line.before_cursor(_LONGEST_PROMPT) or ""
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

    def shown(self, data: bytes) -> list[CommandEvent]:
        """Read output, whose first line is in ``line`` already."""
        searched = data if len(data) <= LOOKED_AT else data[-LOOKED_AT:]
        within = self._rest or self._mark is not None or self._captured is not None
        if within or b"\x1b]" in searched or searched.endswith(b"\x1b"):
            events = self._read_marks(searched)
            if self._has_marks:
                return events
        for change in _SCREEN.finditer(searched) if b"\x1b[?" in searched else ():
            self._is_alternate_screen = change[1] == b"h"
        if b"\n" not in data:
            return []
        events = self._commands_at_newline(data[:_CAPTURED]) if self._enters else []
        self._fresh = True
        return events

    # --- by the prompt

    def _commands_at_newline(self, data: bytes) -> list[CommandEvent]:
        """Return the command of the line that has ended, and of those that were typed ahead."""
        self._enters -= 1
        prompt = self._prompt or self._last
        if not prompt:
            return []
        events = self._command_of(self._line, prompt)
        # Typed ahead: the next one is on a later line of this output, if it begins with the same prompt.
        sign = prompt.rstrip()[-1].encode()
        begin, searched = data.find(b"\n") + 1, 0
        while begin and self._enters and searched < _LINES_AHEAD:
            end = data.find(b"\n", begin)
            if end < 0:
                break
            # Most lines of output have no such letter, and are skipped.
            if data.find(sign, begin, end) >= 0:
                searched += 1
                line = ShownLine()
                line.feed(data[begin:end])
                if line.letters(0, len(prompt)) == prompt:
                    self._enters -= 1
                    events += self._command_of(line, prompt)
            begin = end + 1
        return events

    def _command_of(self, line: ShownLine, prompt: str) -> list[CommandEvent]:
        text = line.letters(0, len(prompt) + LONGEST)
        if self._is_alternate_screen or not text.startswith(prompt):
            return []
        command = text[len(prompt) :].strip()
        return [CommandStart(text=command)] if command else []

    # --- by the shell itself

    def _read_marks(self, data: bytes) -> list[CommandEvent]:
        events: list[CommandEvent] = []
        data, self._rest = self._rest + data, b""
        at = 0
        while at < len(data):
            at = self._within_mark(data, at, events) if self._mark is not None else self._to_mark(data, at)
        return events

    def _to_mark(self, data: bytes, at: int) -> int:
        """Read up to the next mark of the shell, where there is one."""
        if begins := _MARK.search(data, at):
            self._capture(data[at : begins.start()])
            self._kind, self._mark = begins[1], bytearray()
            return begins.end()
        perhaps = _PERHAPS_MARK.search(data, at)
        end = perhaps.start() if perhaps else len(data)
        self._capture(data[at:end])
        self._rest = data[end:]
        return len(data)

    def _within_mark(self, data: bytes, at: int, events: list[CommandEvent]) -> int:
        """Read a mark, which ends with BEL, or with ESC and a backslash."""
        assert self._mark is not None
        ends = _MARK_END.search(data, at)
        end = ends.start() if ends else len(data)
        self._mark += data[at:end]
        if len(self._mark) > _LONGEST_MARK:
            self._drop_mark()
        elif ends and ends[0] == b"\x1b" and end + 1 == len(data):
            self._rest = data[end:]
            return len(data)
        elif ends and (ends[0] == b"\x07" or data[end + 1 : end + 2] == b"\\"):
            mark, self._mark = bytes(self._mark), None
            if mark[:1] in (b"A", b"B", b"C", b"D", b"E") and mark[1:2] in (b"", b";"):
                self._has_marks = True
                self._handle_mark(self._kind, mark[:1], mark[2:].decode("utf-8", "replace"), events)
            return end + (1 if ends[0] == b"\x07" else 2)
        elif ends:
            self._drop_mark()
        return end

    def _drop_mark(self) -> None:
        """What began like a mark is normal output."""
        assert self._mark is not None
        mark, self._mark = self._mark, None
        self._capture(b"\x1b]" + self._kind + b";" + bytes(mark))

    def _handle_mark(self, kind: bytes, what: bytes, argument: str, events: list[CommandEvent]) -> None:
        if what == b"A":
            self._captured = None
            self._given_command = ""
        elif what == b"B":
            self._captured = bytearray()
        elif what == b"E" and kind == b"633":
            self._given_command = _VSCODE.sub(_unescaped, argument.split(";")[0])
        elif what == b"C":
            shown = bytes(self._captured or b"")
            self._captured = None
            if command := (self._given_command or _plain_text(shown)).strip():
                events.append(CommandStart(text=command[:LONGEST]))
                self._is_running = True
            self._given_command = ""
        elif what == b"D":
            if self._is_running and re.fullmatch("[0-9]{1,3}", status := argument.split(";")[0]):
                events.append(CommandEnd(status=int(status)))
            self._is_running = False

    def _capture(self, data: bytes) -> None:
        if self._captured is not None and len(self._captured) < _CAPTURED:
            self._captured += data


def _plain_text(shown: bytes) -> str:
    transcript = Transcript()
    text = transcript.feed(shown.decode("utf-8", "replace")) + transcript.end()
    return text.rstrip("\n")


def _unescaped(escape: re.Match[str]) -> str:
    return "\\" if escape[1] == "\\" else chr(int(escape[1][1:], 16))
