"""The terminal that a command runs on, for full-screen output and keys. It is restored at the end."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import time
import tty
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import TextIO

from conchrec.recording.playback.frame import PictureShow, Show
from conchrec.recording.terminal.painter import ENTER, LEAVE

_READ = 1024
_ENDS = (signal.SIGTERM, signal.SIGHUP)


def play_pictures(show: PictureShow, out: TextIO) -> None:
    """Show pictures on a terminal until the show is over or the user ends it; the last picture stays."""
    with Terminal(out) as terminal:
        keys = ""
        while True:
            frame = show.advance(time.monotonic(), keys, terminal.resized())
            terminal.write(frame.text)
            if frame.over:
                break
            keys = terminal.wait(frame.wake)
    terminal.write(show.picture())


def terminal_size(terminal: int) -> tuple[int, int]:
    """Columns and rows of the terminal with this descriptor; 80 and 24 where it reports none."""
    columns, rows = os.get_terminal_size(terminal)
    return (columns, rows) if columns and rows else (80, 24)


def print_frames(show: Show, out: TextIO, wait: Callable[[float], None]) -> None:
    """Print a show to a terminal, file or pipe until it is over; keys are not read."""
    while True:
        frame = show.advance(time.monotonic())
        out.write(frame.text)
        if frame.over:
            return
        if frame.wake:
            out.flush()
            wait(frame.wake)


class Terminal:
    """A terminal in full-screen mode, as a context manager in the main thread.

    Keys are read where standard input is a terminal.
    """

    def __init__(self, out: TextIO) -> None:
        """``out`` is a terminal."""
        self._out = out.fileno()
        self._encoding = out.encoding
        self._in = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before = termios.tcgetattr(self._in) if self._in is not None else None
        self._changed = False
        self._stack = ExitStack()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, now."""
        return terminal_size(self._out)

    def resized(self) -> tuple[int, int] | None:
        """The size, if it may have changed, or the screen was overwritten, since the last call; else None."""
        changed, self._changed = self._changed, False
        return self.size if changed else None

    def write(self, text: str) -> None:
        """Write the text. Blocks while the terminal is slow."""
        data = memoryview(text.encode(self._encoding, "replace"))
        while data:
            data = data[os.write(self._out, data) :]

    def wait(self, seconds: float | None) -> str:
        """The keys that are typed within that time. Returns earlier after a signal, such as a new size."""
        sources = [self._woken] if self._in is None else [self._woken, self._in]
        ready, _, _ = select.select(sources, [], [], seconds)
        if self._woken in ready:
            self._woken.recv(_READ)
        if self._in is None or self._in not in ready:
            return ""
        # The end of standard input ends the show.
        return os.read(self._in, _READ).decode("utf-8", "ignore") or "q"

    # -- modes and signals

    def __enter__(self) -> Terminal:
        with self._stack:
            self._woken, waker = socket.socketpair()
            for end in (self._woken, waker):
                end.setblocking(False)
                self._stack.callback(end.close)
            self._stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(waker.fileno()))
            for number in _ENDS:
                self._on(number, self._end)
            self._on(signal.SIGWINCH, self._resize)
            self._on(signal.SIGTSTP, self._stop)
            self._on(signal.SIGCONT, self._begin)
            self._stack.callback(self._leave)
            self._begin()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _on(self, number: signal.Signals, handler: signal.Handlers | object) -> None:
        self._stack.callback(signal.signal, number, signal.signal(number, handler))  # type: ignore[arg-type]

    def _begin(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Enter full-screen mode; also after a stop, when other programs may have written here."""
        signal.signal(signal.SIGTSTP, self._stop)
        if self._in is not None:
            tty.setcbreak(self._in, termios.TCSANOW)
        self._changed = True
        self.write(ENTER)

    def _leave(self) -> None:
        if self._in is not None and self._before is not None:
            # Keys, and answers of the terminal, that were not read must not reach the shell.
            termios.tcsetattr(self._in, termios.TCSAFLUSH, self._before)
        self.write(LEAVE)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)

    def _resize(self, number: int, frame: FrameType | None) -> None:
        self._changed = True

    def _end(self, number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)
