"""The terminal that a command runs on, for pictures and keys: as it was afterwards, whatever happens."""

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


def look(show: PictureShow, out: TextIO) -> None:
    """Until it is over, or the reviewer has seen enough; the last picture stays. ``out`` is a terminal."""
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
    """Columns and rows of the terminal with this descriptor; the usual ones where it does not say."""
    columns, rows = os.get_terminal_size(terminal)
    return (columns, rows) if columns and rows else (80, 24)


def print_frames(show: Show, out: TextIO, wait: Callable[[float], None]) -> None:
    """Print a show until it is over, wherever ``out`` leads; without keys."""
    while True:
        frame = show.advance(time.monotonic())
        out.write(frame.text)
        if frame.over:
            return
        if frame.wake:
            out.flush()
            wait(frame.wake)


class Terminal:
    """Use it with ``with``, in the main thread. Without a terminal on standard input there are no keys."""

    def __init__(self, out: TextIO) -> None:
        self._out = out.fileno()
        self._encoding = out.encoding
        self._in = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before = termios.tcgetattr(self._in) if self._in is not None else None
        self._changed = False
        self._stack = ExitStack()

    @property
    def size(self) -> tuple[int, int]:
        """As of ``terminal_size``."""
        return terminal_size(self._out)

    def resized(self) -> tuple[int, int] | None:
        """The size, where it may be another one, or the picture gone, since this was asked last."""
        changed, self._changed = self._changed, False
        return self.size if changed else None

    def write(self, text: str) -> None:
        """Waits for a terminal that is slow."""
        data = memoryview(text.encode(self._encoding, "replace"))
        while data:
            data = data[os.write(self._out, data) :]

    def wait(self, seconds: float | None) -> str:
        """What is typed within that time; less of it where the size changes."""
        there = [self._woken] if self._in is None else [self._woken, self._in]
        ready, _, _ = select.select(there, [], [], seconds)
        if self._woken in ready:
            self._woken.recv(_READ)
        if self._in is None or self._in not in ready:
            return ""
        # Nobody is there any more.
        return os.read(self._in, _READ).decode("utf-8", "ignore") or "q"

    # -- as it was

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
        """Also after a stop: others have written here meanwhile."""
        signal.signal(signal.SIGTSTP, self._stop)
        if self._in is not None:
            tty.setcbreak(self._in, termios.TCSANOW)
        self._changed = True
        self.write(ENTER)

    def _leave(self) -> None:
        if self._in is not None and self._before is not None:
            # What was typed, or answered, and not read is not for the shell.
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
