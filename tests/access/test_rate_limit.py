"""Counting guesses: delays that grow, that nothing goes around, and that a restart does not end."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from conchrec.access import rate_limit as module
from conchrec.access.rate_limit import (
    DELAYS,
    FORGOTTEN_SECONDS,
    FREE_OF_ADDRESS,
    FREE_OF_USER,
    LONGEST_WAIT,
    MOST_COUNTS,
    SAVE_SECONDS,
    Guess,
    Guesses,
    TooManyGuesses,
)

HOME = "192.0.2.1"
BEGAN = 1_700_000_000.0


class Disk:
    """Threads that work at once, or when they are let."""

    def __init__(self) -> None:
        self.held: list[Callable[[], object]] | None = None
        self.writes = 0

    def __call__(self, work: Callable[[], None]) -> Deferred[None]:
        self.writes += 1
        if self.held is None:
            return maybeDeferred(work)
        done: Deferred[None] = Deferred()
        self.held.append(lambda: maybeDeferred(work).chainDeferred(done))
        return done

    def release(self) -> None:
        held, self.held = self.held or [], None
        for work in held:
            work()


class Time(Clock):
    """Twisted's Clock, with the hour that it is."""

    def now(self) -> datetime:
        return datetime.fromtimestamp(BEGAN + self.seconds(), timezone.utc)


def begun(path: Path, clock: Time | None = None, disk: Disk | None = None) -> Guesses:
    clock = clock or Time()
    return Guesses(
        path / "guesses.json", users=("joe", "ann"), now=clock.now, clock=clock, in_thread=disk or Disk()
    )


def wrong(guesses: Guesses, count: int, clock: Time, user: str = "joe", source: str = HOME) -> None:
    """So many wrong guesses, each as soon as it may be."""
    for _ in range(count):
        clock.advance(guesses.wait(user, source))
        assert guesses.begin(user, source) == 0


def test_increases_delay_after_free_attempts(tmp_path: Path) -> None:
    clock = Time()
    guesses = begun(tmp_path, clock)
    waits = []
    for _ in range(FREE_OF_USER + len(DELAYS) + 2):
        waits.append(guesses.wait("joe", HOME))
        wrong(guesses, 1, clock)
    assert waits == [0.0] * (FREE_OF_USER + 1) + list(DELAYS) + [DELAYS[-1]]


def test_reduces_delay_as_time_passes(tmp_path: Path) -> None:
    clock = Time()
    guesses = begun(tmp_path, clock)
    wrong(guesses, FREE_OF_USER + 4, clock)
    assert guesses.wait("joe", HOME) == 8
    clock.advance(5)
    assert guesses.begin("joe", HOME) == 3


def test_counts_simultaneous_attempts(tmp_path: Path) -> None:
    clock = Time()
    guesses = begun(tmp_path, clock)
    waits, refused = [], 0
    for number in range(200):
        try:
            # From everywhere: the address has no say.
            waits.append(guesses.begin("joe", f"198.51.{number}.1"))
        except TooManyGuesses:
            refused += 1
    # As far as one after the other would get in that time.
    expected = [0.0] * (FREE_OF_USER + 1)
    while expected[-1] + DELAYS[len(expected) - FREE_OF_USER - 1] <= LONGEST_WAIT:
        expected.append(expected[-1] + DELAYS[len(expected) - FREE_OF_USER - 1])
    assert waits == expected
    assert refused == 200 - len(expected)


def test_does_not_count_refused_attempts(tmp_path: Path) -> None:
    clock = Time()
    guesses = begun(tmp_path, clock)
    wrong(guesses, FREE_OF_USER + 7, clock)
    assert guesses.wait("joe", HOME) == 60
    for _ in range(50):
        with pytest.raises(TooManyGuesses) as caught:
            guesses.begin("joe", HOME)
    assert "60 seconds" in caught.value.public
    assert guesses.wait("joe", HOME) == 60


def test_limits_address_over_all_users(tmp_path: Path) -> None:
    clock = Time()
    guesses = begun(tmp_path, clock)
    for number in range(FREE_OF_ADDRESS + 3):
        wrong(guesses, 1, clock, f"user{number}")
    assert guesses.wait("another", HOME) == DELAYS[2]
    assert guesses.wait("another", "192.0.2.2") == 0


@pytest.mark.parametrize(
    ("first", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        # Of IPv4 in IPv6's clothes it is not one /64.
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("unknown", "unknown", True),
    ],
)
def test_groups_addresses_by_network(tmp_path: Path, first: str, other: str, same: bool) -> None:
    clock = Time()
    guesses = begun(tmp_path, clock)
    for number in range(FREE_OF_ADDRESS + 1):
        wrong(guesses, 1, clock, f"user{number}", first)
    assert (guesses.wait("another", other) > 0) is same


def test_clears_counts_after_correct_password(tmp_path: Path) -> None:
    """To its user all that there was, to the address this one: others behind it may be guessed at."""
    clock = Time()
    guesses = begun(tmp_path, clock)
    for number in range(FREE_OF_ADDRESS - 1):
        wrong(guesses, 1, clock, f"user{number}")
    wrong(guesses, FREE_OF_USER + 2, clock, source="192.0.2.9")
    clock.advance(guesses.wait("joe", HOME))
    assert guesses.begin("joe", HOME) == 0
    guesses.right("joe", HOME)
    assert guesses.wait("joe", HOME) == 0
    wrong(guesses, 2, clock, "user50")
    assert guesses.wait("another", HOME) == DELAYS[0]
    # joe's have begun again.
    wrong(guesses, FREE_OF_USER, clock, source="192.0.2.8")
    assert guesses.wait("joe", "192.0.2.8") == 0


def test_forgets_counts_after_an_hour(tmp_path: Path) -> None:
    clock = Time()
    guesses = begun(tmp_path, clock)
    wrong(guesses, 8, clock)
    clock.advance(FORGOTTEN_SECONDS + DELAYS[-1] + 1)
    wrong(guesses, FREE_OF_USER, clock)
    assert guesses.wait("joe", HOME) == 0


def test_limits_delay_when_clock_is_set_back(tmp_path: Path) -> None:
    """Nobody waits for a day that has been already."""
    clock = Time()
    guesses = begun(tmp_path, clock)
    clock.advance(86_400)
    wrong(guesses, FREE_OF_USER + 5, clock)
    clock.rightNow -= 80_000
    assert guesses.wait("joe", HOME) == DELAYS[-1]
    clock.advance(DELAYS[-1])
    assert guesses.begin("joe", HOME) == 0


def test_bounds_memory(tmp_path: Path) -> None:
    """Names without end, from addresses without end, do not push out those that there are."""
    clock = Time()
    guesses = begun(tmp_path, clock)
    wrong(guesses, FREE_OF_USER + 6, clock, "nobody", "192.0.2.2")
    wrong(guesses, FREE_OF_USER + 6, clock)
    for number in range(MOST_COUNTS + 5):
        guesses.begin(f"{number} {'x' * 400}", f"2001:db8:{number:x}::1")
    assert guesses.wait("joe", "203.0.113.1") == 30
    assert guesses.wait("nobody", "203.0.113.1") == 0
    clock.advance(SAVE_SECONDS)
    raw = (tmp_path / "guesses.json").read_bytes()
    saved = json.loads(raw)
    assert (len(saved["users"]), len(saved["addresses"])) == (MOST_COUNTS + 2, MOST_COUNTS)
    assert len(raw) < 3_000_000
    assert max(map(len, saved["users"])) == 64


def test_counts_codes_after_key_separately(tmp_path: Path) -> None:
    """Who guesses at joe's password, from anywhere, does not keep joe's key and code from working."""
    clock = Time()
    guesses = begun(tmp_path, clock)
    wrong(guesses, FREE_OF_USER + 6, clock)
    assert guesses.wait("joe", HOME) > 0
    assert guesses.wait("joe", HOME, Guess.CODE) == 0
    for _ in range(FREE_OF_USER + 5):
        clock.advance(guesses.wait("joe", HOME, Guess.CODE))
        guesses.begin("joe", HOME, Guess.CODE)
    assert guesses.wait("joe", "203.0.113.9", Guess.CODE) == DELAYS[4]
    clock.advance(SAVE_SECONDS)
    reopened = begun(tmp_path, clock)
    assert reopened.wait("joe", HOME, Guess.CODE) == DELAYS[4] - SAVE_SECONDS
    for _ in range(2):
        clock.advance(reopened.wait("joe", HOME, Guess.CODE))
        reopened.begin("joe", HOME, Guess.CODE)
    with pytest.raises(TooManyGuesses) as caught:
        reopened.begin("joe", HOME, Guess.CODE)
    assert "a key works" not in caught.value.public
    reopened.right("joe", HOME)
    assert reopened.wait("joe", HOME, Guess.CODE) > 0
    reopened.right("joe", HOME, Guess.CODE)
    assert reopened.wait("joe", HOME, Guess.CODE) == 0


def test_keeps_counts_of_users_added_by_reload(tmp_path: Path) -> None:
    clock = Time()
    guesses = begun(tmp_path, clock)
    guesses.keep(("joe", "tom"))
    wrong(guesses, FREE_OF_USER + 6, clock, "ann", "192.0.2.3")
    wrong(guesses, FREE_OF_USER + 6, clock, "tom", "192.0.2.2")
    for number in range(MOST_COUNTS + 5):
        guesses.begin(f"user{number}", f"2001:db8:{number:x}::1")
    assert guesses.wait("tom", "203.0.113.1") > 0
    assert guesses.wait("ann", "203.0.113.1") == 0


# --- the file


def test_keeps_counts_over_restart(tmp_path: Path) -> None:
    clock = Time()
    guesses = begun(tmp_path, clock)
    wrong(guesses, FREE_OF_USER + 4, clock)
    clock.advance(SAVE_SECONDS)
    reopened = begun(tmp_path, clock)
    assert reopened.wait("joe", HOME) == 8 - SAVE_SECONDS
    assert reopened.salt == guesses.salt
    wrong(reopened, 1, clock)
    assert reopened.wait("joe", HOME) == 15


def test_writes_private_file(tmp_path: Path) -> None:
    clock = Time()
    wrong(begun(tmp_path, clock), 1, clock)
    clock.advance(SAVE_SECONDS)
    assert (tmp_path / "guesses.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["guesses.json"]


def test_writes_burst_once(tmp_path: Path) -> None:
    clock, disk = Time(), Disk()
    guesses = begun(tmp_path, clock, disk)
    disk.held = []
    for number in range(100):
        guesses.begin(f"user{number}", f"192.0.{number}.1")
    assert disk.writes == 0
    clock.advance(SAVE_SECONDS)
    for number in range(100):
        guesses.begin(f"user{number}", f"192.0.{number}.2")
    clock.advance(10)
    assert disk.writes == 1  # one at a time
    disk.release()
    clock.advance(SAVE_SECONDS)
    assert disk.writes == 2
    assert json.loads((tmp_path / "guesses.json").read_bytes())["users"]["user0"][0] == 2
    clock.advance(100)
    assert disk.writes == 2


def test_reports_saved_state_only(tmp_path: Path) -> None:
    """A write that is under way does not have it yet."""
    clock, disk = Time(), Disk()
    guesses = begun(tmp_path, clock, disk)
    disk.held = []
    guesses.begin("joe", HOME)
    clock.advance(SAVE_SECONDS)
    done: list[None] = []
    guesses.use("joe", 56_666_666).addCallback(done.append)
    assert disk.writes == 1
    disk.release()
    assert (done, disk.writes) == ([None], 2)
    assert begun(tmp_path, clock).last_step("joe") == 56_666_666


def test_forgets_expired_codes(tmp_path: Path) -> None:
    clock = Time()
    guesses = begun(tmp_path, clock)
    step = int(BEGAN) // 30
    guesses.use("joe", step)
    clock.advance(30)
    guesses.use("ann", step + 1)
    assert (guesses.last_step("joe"), guesses.last_step("ann")) == (step, step + 1)
    clock.advance(60)
    guesses.use("ann", step + 3)
    assert (guesses.last_step("joe"), guesses.last_step("ann")) == (-1, step + 3)


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\x00",
        b"null",
        b"[" * 5000,
        b'{"salt": "", "users": {}, "addresses": {}, "codes": {}, "steps": {}}',
        b'{"salt": "xy", "users": {}, "addresses": {}, "codes": {}, "steps": {}}',
        b'{"salt": "00", "users": [], "addresses": {}, "codes": {}, "steps": {}}',
        b'{"salt": "00", "users": {}, "addresses": {}, "codes": [], "steps": {}}',
        b'{"salt": "00", "users": {"joe": 3}, "addresses": {}, "codes": {}, "steps": {}}',
        b'{"salt": "00", "users": {"joe": ["3", 4]}, "addresses": {}, "codes": {}, "steps": {}}',
        b'{"salt": "00", "users": {"joe": [3, null]}, "addresses": {}, "codes": {}, "steps": {}}',
        b'{"salt": "00", "users": {}, "addresses": {}, "codes": {}, "steps": {"joe": "1"}}',
    ],
)
def test_reports_and_replaces_damaged_file(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "guesses.json"
    path.write_bytes(contents)
    clock = Time()
    with capturedLogs() as heard:
        guesses = begun(tmp_path, clock)
    (event,) = heard
    assert event["path"] == str(path)
    assert guesses.wait("joe", HOME) == 0
    clock.advance(SAVE_SECONDS)
    assert begun(tmp_path, clock).salt == guesses.salt


def test_keeps_counts_in_memory_on_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts stay in memory, are said to be unsaved once, and are written when there is room."""
    clock, full = Time(), True

    def write(path: Path, contents: bytes, mode: int) -> None:
        if full:
            raise OSError(28, "No space left on device")
        path.write_bytes(contents)

    monkeypatch.setattr(module, "write_atomic", write)
    with capturedLogs() as heard:
        guesses = begun(tmp_path, clock)
        wrong(guesses, FREE_OF_USER + 4, clock)
        failed: list[object] = []
        guesses.use("joe", 56_666_666).addErrback(lambda failure: failed.append(failure.type))
        clock.pump([SAVE_SECONDS] * 5)
    assert failed == [OSError]
    assert len(heard) == 1
    assert guesses.wait("joe", HOME) > 0
    full = False
    clock.advance(SAVE_SECONDS)
    assert json.loads((tmp_path / "guesses.json").read_bytes())["users"]["joe"][0] == FREE_OF_USER + 4
