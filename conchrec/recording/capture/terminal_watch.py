"""What a person does at a terminal, as far as the screen tells: input that was shown, and commands."""

from __future__ import annotations

from dataclasses import replace

from conchrec.recording.capture.echoed_input import Echo, HiddenInput, Kept
from conchrec.recording.capture.event_writer import EventWriter
from conchrec.recording.capture.shell_commands import Commands, CommandStart
from conchrec.recording.format import asciicast
from conchrec.recording.format.coverage import NotKept
from conchrec.recording.format.manifest import ShellCommand
from conchrec.recording.terminal.current_line import ShownLine
from conchrec.text import escape

COMMANDS_LISTED = 1000
"""Commands of a shell session that the manifest lists."""


class CommandList:
    """The commands of a shell session, for the manifest."""

    __slots__ = ("_listed", "left_out")

    def __init__(self) -> None:
        self._listed: list[ShellCommand] = []
        #: How many there were beyond COMMANDS_LISTED.
        self.left_out = 0

    @property
    def commands(self) -> tuple[ShellCommand, ...]:
        """The first COMMANDS_LISTED."""
        return tuple(self._listed)

    def begun(self, time: float, text: str) -> None:
        """A command was given, ``time`` seconds after the header."""
        if len(self._listed) < COMMANDS_LISTED:
            self._listed.append(ShellCommand(time=round(time, 3), text=escape(text)))
        else:
            self.left_out += 1

    def ended(self, status: int) -> None:
        """The last one has ended, as its shell says."""
        if self._listed:
            self._listed[-1] = replace(self._listed[-1], status=status)


class TerminalWatch:
    """Watches one terminal: writes a marker for each command, and where ``keep_input`` is set the input that
    the terminal has shown."""

    __slots__ = ("_commands", "_coverage", "_echo", "_line", "_listed", "_writer")

    def __init__(
        self, writer: EventWriter, listed: CommandList, coverage: set[NotKept], *, keep_input: bool
    ) -> None:
        self._writer = writer
        self._listed = listed
        self._coverage = coverage
        self._line = ShownLine()
        self._commands = Commands(self._line)
        self._echo = Echo(self._line) if keep_input else None

    def typed(self, data: bytes) -> bool:
        """What a person types; returns whether the terminal decides what of it is kept."""
        self._commands.typed(data)
        if self._echo is None:
            return False
        self._note(self._echo.typed(data, self._writer.timeline.elapsed()))
        return True

    def shown(self, data: bytes) -> None:
        """Output, which tells what was typed."""
        line = self._line
        end = data.find(b"\n")
        line.feed(data if end < 0 else data[:end])
        if self._echo is not None:
            self._note(self._echo.shown(self._writer.timeline.elapsed(), newline=end >= 0))
        for found in self._commands.shown(data):
            if isinstance(found, CommandStart):
                self._writer.marker(found.text)
                self._listed.begun(self._writer.timeline.last, found.text)
            else:
                self._listed.ended(found.status)
        if end >= 0:
            line.feed(data[end:])

    def end(self) -> None:
        """Nothing more comes."""
        if self._echo is not None:
            self._note(self._echo.end())

    def _note(self, typed: list[Kept | HiddenInput]) -> None:
        for part in typed:
            if isinstance(part, Kept):
                self._writer.event(asciicast.INPUT, part.text)
            else:
                self._coverage.add(NotKept.HIDDEN_INPUT)
                self._writer.marker("input that the terminal did not show: not recorded")
