"""The console of a command: it waits for the client to read, and for keys."""

from __future__ import annotations

from typing import cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from conchrec.proxy.commands.output import ENOUGH, TYPED, Console
from conchrec.ssh.channel_stream import Stream


class Sink:
    """The part of a Stream that a Console uses: bytes wait until ``takes``."""

    def __init__(self, console: Console) -> None:
        self.written = b""
        self.pending = 0
        self.closed = False
        self._console = console

    def write(self, data: bytes) -> None:
        self.written += data
        self.pending += len(data)

    def takes(self, size: int) -> None:
        self.pending -= size
        self._console.drained(self.pending)


class Terminal:
    def __init__(self) -> None:
        self.clock = Clock()
        self.console = Console(self.clock)
        self.sink = Sink(self.console)
        self.console.attach(cast(Stream, self.sink))


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def fired(deferred: Deferred[None]) -> list[object]:
    results: list[object] = []
    deferred.addBoth(lambda result: results.append(result.value if isinstance(result, Failure) else result))
    return results


def test_write_fires_at_once_when_little_waits(terminal: Terminal) -> None:
    assert fired(terminal.console.write("ü\n")) == [None]
    assert terminal.sink.written == b"\xc3\xbc\n"


def test_write_waits_until_client_reads(terminal: Terminal) -> None:
    done = fired(terminal.console.write("x" * (ENOUGH + 10)))
    terminal.sink.takes(9)
    assert done == []
    terminal.sink.takes(1)
    assert done == [None]


def test_write_does_nothing_when_channel_is_closed(terminal: Terminal) -> None:
    terminal.sink.closed = True
    assert fired(terminal.console.write("x" * ENOUGH * 2)) == [None]
    assert terminal.sink.written == b""


def test_writes_carriage_returns_on_terminal(terminal: Terminal) -> None:
    terminal.console.resize(0, 5000)
    assert terminal.console.size == (80, 1000)
    fired(terminal.console.write("one\ntwo \ud800"))
    assert terminal.sink.written == b"one\r\ntwo ?"


def test_wait_ends_after_timeout(terminal: Terminal) -> None:
    done = fired(terminal.console.wait(2))
    terminal.clock.advance(1)
    assert done == []
    terminal.clock.advance(1)
    assert done == [None]


def test_wait_ends_on_key_or_new_size(terminal: Terminal) -> None:
    for key in (b"a", b""):
        done = fired(terminal.console.wait(None))
        assert done == []
        if key:
            terminal.console.keys(key)
        else:
            terminal.console.resize(100, 30)
        assert done == [None]
        assert fired(terminal.console.wait(None)) == [None], "until typed or resized was called"
        assert (terminal.console.typed(), terminal.console.resized()) in (("a", None), ("", (100, 30)))
        assert (terminal.console.typed(), terminal.console.resized()) == ("", None)
    assert terminal.clock.getDelayedCalls() == []


def test_keeps_limited_number_of_typed_keys(terminal: Terminal) -> None:
    terminal.console.keys(b"a" * TYPED)
    terminal.console.keys(b"b" * TYPED)
    assert terminal.console.typed() == "a" * TYPED


def test_forgets_waits_that_are_cancelled(terminal: Terminal) -> None:
    for waiting in (terminal.console.wait(5), terminal.console.write("x" * ENOUGH * 2)):
        done = fired(waiting)
        waiting.cancel()
        (error,) = done
        assert isinstance(error, CancelledError)
    terminal.console.keys(b"a")
    terminal.sink.takes(ENOUGH * 2)
    assert terminal.clock.getDelayedCalls() == []
