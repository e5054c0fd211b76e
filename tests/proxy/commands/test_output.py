"""The console of a command: it waits for the client to read, and for keys."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from conchrec.proxy.commands.output import ENOUGH, TYPED, Console
from conchrec.ssh import messages as m
from conchrec.ssh.channel_stream import MAX_PACKET, Stream
from conchrec.ssh.messages import parse_string
from conchrec.ssh.wire import uint32
from tests.support.loop import Handler, Loop, Receiver


class Terminal:
    """A console on a channel whose other end reads when the test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.console = Console(self.clock)
        handler, self._client = Handler(), Receiver()
        self._loop = Loop(Handler(), handler)
        self._channel = self._loop.left.open(b"session", self._client, window=0, max_packet=MAX_PACKET)
        self._loop.pump()
        self._stream = Stream.accept(handler.openings[0], self)
        self.console.attach(self._stream)
        self._loop.pump()

    @property
    def written(self) -> bytes:
        """All bytes that the command has written: lets the client read them."""
        self.read(self._stream.pending)
        messages = [item for item in self._client.heard if item[0] == m.CHANNEL_DATA]
        return b"".join(parse_string(body) for _, body in messages)

    def read(self, size: int) -> None:
        """Let the client read this many bytes."""
        self._channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(size))
        self._loop.pump()

    def close(self) -> None:
        self._channel.send(m.CHANNEL_CLOSE)
        self._loop.pump()

    # --- StreamHandler

    def stream_opened(self) -> None:
        raise AssertionError("this test does not expect the call")

    def stream_refused(self, code: int, text: bytes) -> None:
        raise AssertionError("this test does not expect the call")

    def stream_data(self, data: bytes) -> None:
        raise AssertionError("this test does not expect the call")

    def stream_eof(self) -> None:
        raise AssertionError("this test does not expect the call")

    def stream_request(self, request: m.ChannelRequest) -> bool:
        raise AssertionError("this test does not expect the call")

    def stream_drained(self, pending: int) -> None:
        self.console.drained(pending)

    def stream_closed(self) -> None:
        """Do nothing: the session would cancel the command."""


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def fired(deferred: Deferred[None]) -> list[object]:
    results: list[object] = []
    deferred.addBoth(lambda result: results.append(result.value if isinstance(result, Failure) else result))
    return results


def test_write_fires_at_once_when_little_waits(terminal: Terminal) -> None:
    assert fired(terminal.console.write("ü\n")) == [None]
    assert terminal.written == b"\xc3\xbc\n"


def test_write_waits_until_client_reads(terminal: Terminal) -> None:
    done = fired(terminal.console.write("x" * (ENOUGH + 10)))
    terminal.read(9)
    assert done == []
    terminal.read(1)
    assert done == [None]


def test_write_does_nothing_when_channel_is_closed(terminal: Terminal) -> None:
    terminal.close()
    assert fired(terminal.console.write("x" * ENOUGH * 2)) == [None]
    assert terminal.written == b""


def test_writes_carriage_returns_on_terminal(terminal: Terminal) -> None:
    terminal.console.resize(0, 5000)
    assert terminal.console.size == (80, 1000)
    fired(terminal.console.write("one\ntwo \ud800"))
    assert terminal.written == b"one\r\ntwo ?"


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
    terminal.read(ENOUGH * 2)
    assert terminal.clock.getDelayedCalls() == []
