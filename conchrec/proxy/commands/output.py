"""Where a command's answer goes while it goes on: the user's terminal, or a pipe on their side.

Whoever writes waits until the user has taken it, so that a slow reader fills nobody's memory.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from conchrec.clock import Clock, DelayedCall
from conchrec.ssh.channel_stream import Stream

#: Bytes that may wait for the user while more is written.
ENOUGH = 64 * 1024
#: Characters that somebody may have typed ahead.
TYPED = 1024
_LARGEST = 1000


class Console:
    """``size`` is the terminal's columns and rows; None without one."""

    def __init__(self, clock: Clock) -> None:
        self.size: tuple[int, int] | None = None
        self._clock = clock
        self._stream: Stream | None = None
        self._writer: Deferred[None] | None = None
        self._reader: Deferred[None] | None = None
        self._typed = ""
        self._changed = False

    def attach(self, stream: Stream) -> None:
        self._stream = stream

    # -- for the command

    def write(self, text: str) -> Deferred[None]:
        """Fires when most of it has gone, or nobody is there any more. One writer, who waits."""
        done: Deferred[None] = Deferred(lambda _: self._forget())
        assert self._stream is not None
        if self._stream.closed:
            done.callback(None)
            return done
        if self.size is not None:
            text = text.replace("\n", "\r\n")
        self._writer = done
        self._stream.write(text.encode("utf-8", "replace"))
        self.drained(self._stream.pending)
        return done

    def wait(self, seconds: float | None) -> Deferred[None]:
        """Fires after so many seconds, or when there is something typed, or another size. One reader."""
        waited: Deferred[None] = Deferred(lambda _: self._forget())
        self._reader = waited
        if self._typed or self._changed:
            self._wake()
        elif seconds is not None:
            call = self._clock.callLater(seconds, self._wake)
            waited.addBoth(lambda result: _ended(call, result))
        return waited

    def typed(self) -> str:
        """What was typed since this was asked last."""
        typed, self._typed = self._typed, ""
        return typed

    def resized(self) -> tuple[int, int] | None:
        """The size, where it is another one since this was asked last."""
        changed, self._changed = self._changed, False
        return self.size if changed else None

    # -- for the session

    def resize(self, columns: int, rows: int) -> None:
        """The user's client says how large the terminal is; one without a size has the usual one."""
        self.size = (min(columns, _LARGEST) or 80, min(rows, _LARGEST) or 24)
        self._changed = True
        self._wake()

    def keys(self, data: bytes) -> None:
        """Every key is ASCII; what nobody has asked for yet is kept up to a limit."""
        self._typed = (self._typed + data.decode("ascii", "ignore"))[:TYPED]
        self._wake()

    def drained(self, pending: int) -> None:
        """So many bytes still wait for the user."""
        if self._writer is not None and pending <= ENOUGH:
            writer, self._writer = self._writer, None
            writer.callback(None)

    def _wake(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.callback(None)

    def _forget(self) -> None:
        self._reader = self._writer = None


def _ended(call: DelayedCall, result: None) -> None:
    if call.active():
        call.cancel()
    return result
