"""The output and the keys of a command that runs for some time, on the user's terminal or pipe.

A command waits until the user's client has accepted what it wrote, so that a slow client fills no memory.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from conchrec.clock import Clock, DelayedCall
from conchrec.ssh.channel_stream import Stream

#: Bytes that may wait for the client while a command continues to write.
ENOUGH = 64 * 1024
#: The most typed characters that wait for the command.
TYPED = 1024
#: The most columns, and rows, that a terminal counts.
_LARGEST = 1000


class Console:
    """The console of one command. ``size`` is the terminal's columns and rows; None without a terminal."""

    def __init__(self, clock: Clock) -> None:
        self.size: tuple[int, int] | None = None
        self._clock = clock
        self._stream: Stream | None = None
        self._writer: Deferred[None] | None = None
        self._reader: Deferred[None] | None = None
        self._typed = ""
        self._changed = False

    def attach(self, stream: Stream) -> None:
        """Write to this channel from now on."""
        self._stream = stream

    # -- for the command

    def write(self, text: str) -> Deferred[None]:
        """Write text. Fires when at most ENOUGH bytes wait, or the channel is closed. For one writer."""
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
        """Fires after so many seconds, or when keys or a new size have come. For one reader."""
        waited: Deferred[None] = Deferred(lambda _: self._forget())
        self._reader = waited
        if self._typed or self._changed:
            self._wake()
        elif seconds is not None:
            call = self._clock.callLater(seconds, self._wake)
            waited.addBoth(lambda result: _ended(call, result))
        return waited

    def typed(self) -> str:
        """Return the keys since the last call."""
        typed, self._typed = self._typed, ""
        return typed

    def resized(self) -> tuple[int, int] | None:
        """Return the size if it has changed since the last call, else None."""
        changed, self._changed = self._changed, False
        return self.size if changed else None

    # -- for the session

    def resize(self, columns: int, rows: int) -> None:
        """Store the size of the terminal; a size of 0 becomes 80 columns, or 24 rows."""
        self.size = (min(columns, _LARGEST) or 80, min(rows, _LARGEST) or 24)
        self._changed = True
        self._wake()

    def keys(self, data: bytes) -> None:
        """Store what the user has typed, up to a limit. Only ASCII has a meaning for a command."""
        self._typed = (self._typed + data.decode("ascii", "ignore"))[:TYPED]
        self._wake()

    def drained(self, pending: int) -> None:
        """Let the command write more, if at most ENOUGH of the ``pending`` bytes wait for the client."""
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
