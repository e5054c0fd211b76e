"""Where a long answer goes: it waits for who reads, and for who types."""

from __future__ import annotations

from typing import cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from conchrec.proxy.commands.output import ENOUGH, TYPED, Console
from conchrec.ssh.channel_stream import Stream


class Sink:
    """The part of a Stream that is used: what is written waits until ``takes``."""

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


class There:
    def __init__(self) -> None:
        self.clock = Clock()
        self.console = Console(self.clock)
        self.sink = Sink(self.console)
        self.console.attach(cast(Stream, self.sink))


@pytest.fixture
def there() -> There:
    return There()


def fired(deferred: Deferred[None]) -> list[object]:
    found: list[object] = []
    deferred.addBoth(lambda result: found.append(result.value if isinstance(result, Failure) else result))
    return found


def test_little_does_not_wait(there: There) -> None:
    assert fired(there.console.write("ü\n")) == [None]
    assert there.sink.written == b"\xc3\xbc\n"


def test_much_waits_for_who_reads_it(there: There) -> None:
    done = fired(there.console.write("x" * (ENOUGH + 10)))
    there.sink.takes(9)
    assert done == []
    there.sink.takes(1)
    assert done == [None]


def test_nothing_is_written_to_nobody(there: There) -> None:
    there.sink.closed = True
    assert fired(there.console.write("x" * ENOUGH * 2)) == [None]
    assert there.sink.written == b""


def test_on_a_terminal_a_line_ends_with_a_return(there: There) -> None:
    there.console.resize(0, 5000)
    assert there.console.size == (80, 1000)
    fired(there.console.write("one\ntwo \ud800"))
    assert there.sink.written == b"one\r\ntwo ?"


def test_waiting_ends_with_the_time(there: There) -> None:
    done = fired(there.console.wait(2))
    there.clock.advance(1)
    assert done == []
    there.clock.advance(1)
    assert done == [None]


def test_waiting_ends_with_a_key_and_with_another_size(there: There) -> None:
    for key in (b"a", b""):
        done = fired(there.console.wait(None))
        assert done == []
        if key:
            there.console.keys(key)
        else:
            there.console.resize(100, 30)
        assert done == [None]
        assert fired(there.console.wait(None)) == [None], "until somebody has asked what it was"
        assert (there.console.typed(), there.console.resized()) in (("a", None), ("", (100, 30)))
        assert (there.console.typed(), there.console.resized()) == ("", None)
    assert there.clock.getDelayedCalls() == []


def test_typing_ahead_has_a_limit(there: There) -> None:
    there.console.keys(b"a" * TYPED)
    there.console.keys(b"b" * TYPED)
    assert there.console.typed() == "a" * TYPED


def test_who_goes_away_leaves_nothing(there: There) -> None:
    for waiting in (there.console.wait(5), there.console.write("x" * ENOUGH * 2)):
        done = fired(waiting)
        waiting.cancel()
        (error,) = done
        assert isinstance(error, CancelledError)
    there.console.keys(b"a")
    there.sink.takes(ENOUGH * 2)
    assert there.clock.getDelayedCalls() == []
