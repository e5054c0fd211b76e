"""The input of a terminal that may be recorded: what the terminal has shown of it, and commands."""

from __future__ import annotations

from dataclasses import replace

from conchrec.recording.capture.echoed_input import EchoFilter, HiddenInput, ShownInput
from conchrec.recording.capture.event_writer import EventWriter
from conchrec.recording.capture.shell_commands import CommandDetector, CommandStart
from conchrec.recording.format import asciicast
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.manifest import ShellCommand
from conchrec.recording.terminal.current_line import ShownLine
from conchrec.text import escape

COMMANDS_LISTED = 1000
"""The commands of a shell session that the manifest lists."""


class CommandList:
    """The commands of a shell session, for the manifest."""

    __slots__ = ("_listed", "left_out")

    def __init__(self) -> None:
        self._listed: list[ShellCommand] = []
        #: The number of commands beyond COMMANDS_LISTED.
        self.left_out = 0

    @property
    def commands(self) -> tuple[ShellCommand, ...]:
        """The first COMMANDS_LISTED commands."""
        return tuple(self._listed)

    def start(self, time: float, text: str) -> None:
        """Add a command that was entered ``time`` seconds after the header."""
        if len(self._listed) < COMMANDS_LISTED:
            self._listed.append(ShellCommand(time=round(time, 3), text=escape(text)))
        else:
            self.left_out += 1

    def end(self, status: int) -> None:
        """The last command has ended, by a mark of its shell."""
        if self._listed:
            self._listed[-1] = replace(self._listed[-1], status=status)


class TerminalInput:
    """Records the input of one terminal: a marker for each command and, with ``keep_input``, the input that
    the terminal has shown."""

    __slots__ = ("_commands", "_coverage", "_echo", "_line", "_listed", "_writer")

    def __init__(
        self, writer: EventWriter, listed: CommandList, coverage: set[NotKept], *, keep_input: bool
    ) -> None:
        self._writer = writer
        self._listed = listed
        self._coverage = coverage
        self._line = ShownLine()
        self._commands = CommandDetector(self._line)
        self._echo = EchoFilter(self._line) if keep_input else None

    def typed(self, data: bytes) -> bool:
        """Add input. Returns True if this object records it (``keep_input``); False if the caller does."""
        self._commands.typed(data)
        if self._echo is None:
            return False
        self._note(self._echo.typed(data, self._writer.timeline.elapsed()))
        return True

    def shown(self, data: bytes) -> None:
        """Add output, which shows what was typed."""
        line = self._line
        end = data.find(b"\n")
        line.feed(data if end < 0 else data[:end])
        if self._echo is not None:
            self._note(self._echo.shown(self._writer.timeline.elapsed(), newline=end >= 0))
        for event in self._commands.shown(data):
            if isinstance(event, CommandStart):
                self._writer.marker(event.text)
                self._listed.start(self._writer.timeline.last, event.text)
            else:
                self._listed.end(event.status)
        if end >= 0:
            line.feed(data[end:])

    def end(self) -> None:
        """No more input follows."""
        if self._echo is not None:
            self._note(self._echo.end())

    def _note(self, typed: list[ShownInput | HiddenInput]) -> None:
        for part in typed:
            if isinstance(part, ShownInput):
                self._writer.event(asciicast.INPUT, part.text)
            else:
                self._coverage.add(NotKept.HIDDEN_INPUT)
                self._writer.marker("input that the terminal did not show: not recorded")
