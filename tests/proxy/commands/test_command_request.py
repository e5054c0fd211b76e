"""The standard input of a command."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from conchrec.proxy.commands.command_request import CommandRefused, Stdin


def outcome(reading: Deferred[bytes]) -> list[object]:
    outcomes: list[object] = []
    reading.addBoth(lambda result: outcomes.append(result.value if isinstance(result, Failure) else result))
    return outcomes


@pytest.mark.parametrize("pieces", [[b"a key"], [b"a", b" ", b"key"], [b"", b"a key"]])
def test_reads_all_input(pieces: list[bytes]) -> None:
    stdin = Stdin()
    outcomes = outcome(stdin.read(5))
    for piece in pieces:
        stdin.data(piece)
    assert outcomes == []
    stdin.eof()
    assert outcomes == [b"a key"]


def test_reads_nothing_when_input_has_ended() -> None:
    stdin = Stdin()
    stdin.data(b"before anybody asks")
    stdin.eof()
    assert outcome(stdin.read(5)) == [b""]


def test_rejects_input_above_limit() -> None:
    stdin = Stdin()
    outcomes = outcome(stdin.read(2048))
    stdin.data(bytes(2048))
    stdin.data(b"x")
    (error,) = outcomes
    assert isinstance(error, CommandRefused)
    assert error.public == "standard input is too long: at most 2 KiB"
    stdin.data(b"more")
    stdin.eof()
    assert len(outcomes) == 1


def test_forgets_reader_that_is_cancelled() -> None:
    stdin = Stdin()
    reading = stdin.read(5)
    outcomes = outcome(reading)
    reading.cancel()
    (error,) = outcomes
    assert isinstance(error, CancelledError)
    stdin.data(b"a longer text")
    stdin.eof()
    assert len(outcomes) == 1
