"""A command's stdin: read to its end, bounded, and nothing kept for a command that does not read."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from conchrec.proxy.commands.request import CommandRefused, Stdin


def results(reading: Deferred[bytes]) -> list[object]:
    found: list[object] = []
    reading.addBoth(lambda result: found.append(result.value if isinstance(result, Failure) else result))
    return found


@pytest.mark.parametrize("pieces", [[b"a key"], [b"a", b" ", b"key"], [b"", b"a key"]])
def test_all_of_it(pieces: list[bytes]) -> None:
    stdin = Stdin()
    found = results(stdin.read(5))
    for piece in pieces:
        stdin.data(piece)
    assert found == []
    stdin.eof()
    assert found == [b"a key"]


def test_one_that_has_ended_already() -> None:
    stdin = Stdin()
    stdin.data(b"before anybody asks")
    stdin.eof()
    assert results(stdin.read(5)) == [b""]


def test_too_much() -> None:
    stdin = Stdin()
    found = results(stdin.read(2048))
    stdin.data(bytes(2048))
    stdin.data(b"x")
    (error,) = found
    assert isinstance(error, CommandRefused)
    assert error.public == "standard input is too long: at most 2 KiB"
    stdin.data(b"more")
    stdin.eof()
    assert len(found) == 1


def test_a_reader_who_goes_away() -> None:
    stdin = Stdin()
    reading = stdin.read(5)
    found = results(reading)
    reading.cancel()
    (error,) = found
    assert isinstance(error, CancelledError)
    stdin.data(b"a longer text")
    stdin.eof()
    assert len(found) == 1
