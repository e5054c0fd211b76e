"""Counts wrong passwords and codes, and delays further attempts; the counts survive a restart.

Attempts at passwords are counted by user and by address. Attempts at codes after a key are counted by user,
separately: a stranger who guesses passwords cannot delay them. An attempt counts as wrong from its
beginning, and waits for those that began earlier, so that many connections at once are not quicker than one.
A correct password or code clears the count. Unknown names are counted like known ones.

The counts are in memory, and in ``guesses.json`` in the state directory, which is written within a second.
That file also has the codes that were used.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import operator
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import orjson
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.access.passwords import DRIFT, step_at
from conchrec.access.patterns import address_of
from conchrec.clock import Clock, DelayedCall
from conchrec.errors import AccessDenied
from conchrec.files import write_atomic
from conchrec.reasons import ReasonCode

_log = Logger()

#: Wrong attempts without a delay: people mistype, and many people may share one address.
FREE_OF_USER, FREE_OF_ADDRESS = 2, 10
#: Seconds before the next attempt, after each further wrong one. The last delay repeats: 288 attempts a day.
DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
#: An attempt that would have to wait longer is refused without a check: waiting connections are limited too.
LONGEST_WAIT = 30.0
#: The counts are cleared after so long without a wrong attempt.
FORGOTTEN_SECONDS = 3600.0
#: The most counts of unknown names, and of addresses: some megabytes. Endless new names replace other unknown
#: names; the counts of existing users stay.
MOST_COUNTS = 10_000
#: Names of users are not longer.
LONGEST_NAME = 64
#: The file is written at most once in so many seconds.
SAVE_SECONDS = 1.0


class Guess(enum.Enum):
    """The kind of an attempt."""

    PASSWORD = enum.auto()
    """A password, and the code that may follow it."""
    CODE = enum.auto()
    """A code after a key."""


class TooManyGuesses(AccessDenied):
    """The attempt would have to wait too long. It was not checked, and does not count."""

    default_code = ReasonCode.TOO_MANY_GUESSES

    def __init__(self, seconds: float, at: Guess) -> None:
        """``seconds`` is the time until the next attempt is possible."""
        wait = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} seconds"
        hint = ", or log in with a key now" if at is Guess.PASSWORD else ""
        super().__init__(
            f"too many wrong answers: try again in {wait}{hint}",
            f"too many wrong passwords or codes; the next attempt is possible in {seconds:.0f} s",
        )


class _Counts:
    """The number of wrong attempts of each name, and when (in seconds since 1970) the next may be checked.

    In the order of the last attempt. The names in ``kept`` are never removed to make room.
    """

    def __init__(
        self, free: int, counts: Mapping[str, tuple[int, float]], kept: Collection[str] = ()
    ) -> None:
        self._free = free
        self._counts = OrderedDict(counts)
        self.kept = frozenset(kept)

    def due(self, name: str, now: float) -> float:
        """When the next attempt may be checked."""
        wrong, due = self._counts.get(name, (0, now))
        if due > now + LONGEST_WAIT + DELAYS[-1]:
            # The clock was set back: the delay begins again.
            due = now + DELAYS[-1]
            self._counts[name] = wrong, due
        return due

    def add(self, name: str, at: float, now: float) -> None:
        """Count an attempt that is checked at the time ``at``."""
        self._forget_old(now)
        wrong = self._counts.pop(name, (0, at))[0] + 1
        late = min(wrong - self._free, len(DELAYS))
        self._counts[name] = wrong, at + (DELAYS[late - 1] if late > 0 else 0.0)
        while len(self._counts) > MOST_COUNTS + len(self.kept):
            del self._counts[next(name for name in self._counts if name not in self.kept)]

    def take_back(self, name: str) -> None:
        """Remove the last attempt from the count: it was correct."""
        if name in self._counts:
            wrong, due = self._counts[name]
            self._counts[name] = wrong - 1, due

    def forget(self, name: str) -> None:
        self._counts.pop(name, None)

    def remembered(self, now: float) -> dict[str, tuple[int, float]]:
        self._forget_old(now)
        return dict(self._counts)

    def _forget_old(self, now: float) -> None:
        while self._counts and now - next(iter(self._counts.values()))[1] > FORGOTTEN_SECONDS:
            self._counts.popitem(last=False)


@dataclass(slots=True, kw_only=True)
class _Saved:
    """The contents of the file: counts as in ``_Counts``, and the time step of the last code of each user."""

    salt: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    users: dict[str, tuple[int, float]] = field(default_factory=dict)
    addresses: dict[str, tuple[int, float]] = field(default_factory=dict)
    codes: dict[str, tuple[int, float]] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        fields = {
            "salt": self.salt.hex(),
            "users": self.users,
            "addresses": self.addresses,
            "codes": self.codes,
            "steps": self.steps,
        }
        return orjson.dumps(fields, option=orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def decode(cls, raw: bytes) -> _Saved:
        """The contents of the file. Raises ValueError for anything that ``encode`` does not return."""
        fields = orjson.loads(raw)
        try:
            salt = bytes.fromhex(fields["salt"])
            users, addresses = _counts(fields["users"]), _counts(fields["addresses"])
            codes = _counts(fields.get("codes", {}))
            steps = {name: operator.index(step) for name, step in fields["steps"].items()}
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError("a field is missing or has the wrong type") from error
        if not salt:
            raise ValueError("its salt is empty")
        return cls(salt=salt, users=users, addresses=addresses, codes=codes, steps=steps)


def _counts(fields: dict[str, tuple[int, float]]) -> dict[str, tuple[int, float]]:
    return {name: (operator.index(wrong), float(due)) for name, (wrong, due) in fields.items()}


class Guesses:
    """The counts of wrong attempts, and the used codes.

    ``users`` are the existing users; ``now`` returns an aware time; ``in_thread`` runs blocking work. The
    constructor reads the file; a damaged file is logged, and the counts begin at 0.
    """

    def __init__(
        self,
        path: Path,
        *,
        users: Collection[str],
        now: Callable[[], datetime],
        clock: Clock,
        in_thread: Callable[[Callable[[], None]], Deferred[None]],
    ) -> None:
        self._path = path
        self._now = now
        self._clock = clock
        self._in_thread = in_thread
        self._timer: DelayedCall | None = None
        self._writing = False
        self._failing = False
        #: Whether something has changed since the last write began.
        self._changed = False
        self._waiting: list[Deferred[None]] = []
        saved = self._read()
        self._users = _Counts(FREE_OF_USER, saved.users, users)
        self._addresses = _Counts(FREE_OF_ADDRESS, saved.addresses)
        self._codes = _Counts(FREE_OF_USER, saved.codes, users)
        self._steps = saved.steps
        #: A random secret, created with the file.
        self.salt = saved.salt

    # --- guesses

    def keep(self, users: Collection[str]) -> None:
        """Set the existing users, after a reload."""
        self._users.kept = self._codes.kept = frozenset(users)

    def _counted(self, user: str, source: str, at: Guess) -> tuple[tuple[_Counts, str], ...]:
        if at is Guess.CODE:
            return ((self._codes, _name(user)),)
        return (self._users, _name(user)), (self._addresses, counted_as(source))

    def wait(self, user: str, source: str, at: Guess = Guess.PASSWORD) -> float:
        """The seconds that an attempt of this user from this address would have to wait now."""
        now = self._now().timestamp()
        due = max(counts.due(name, now) for counts, name in self._counted(user, source, at))
        return max(0.0, due - now)

    def begin(self, user: str, source: str, at: Guess = Guess.PASSWORD) -> float:
        """Count an attempt as wrong, until ``right``, and return the seconds after which it may be checked.

        Raises TooManyGuesses, and does not count it, if these would be more than LONGEST_WAIT.
        """
        seconds = self.wait(user, source, at)
        if seconds > LONGEST_WAIT:
            raise TooManyGuesses(seconds, at)
        now = self._now().timestamp()
        for counts, name in self._counted(user, source, at):
            counts.add(name, now + seconds, now)
        self._touch()
        return seconds

    def right(self, user: str, source: str, at: Guess = Guess.PASSWORD) -> None:
        """The attempt was correct: clear the count of the user, and remove one attempt of the address."""
        (mine, name), *others = self._counted(user, source, at)
        mine.forget(name)
        for counts, other in others:
            counts.take_back(other)
        self._touch()

    # --- codes

    def last_step(self, user: str) -> int:
        """The time step of the last code that this user has used: that code and earlier ones are rejected."""
        return self._steps.get(user, -1)

    def use(self, user: str, step: int) -> Deferred[None]:
        """Mark the code as used. Fires when that is on the disk; fails with OSError."""
        current = step_at(self._now().timestamp())
        self._steps = {name: used for name, used in self._steps.items() if used >= current - DRIFT}
        self._steps[user] = step
        self._touch()
        return self.saved()

    # --- the file

    async def close(self) -> None:
        """Write what was not written yet, at the end of the service."""
        with contextlib.suppress(OSError):  # it was logged
            await self.saved()

    def saved(self) -> Deferred[None]:
        """Fires when all changes so far are on the disk; fails with OSError."""
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if not self._writing:
            self._write()
        return done

    def _read(self) -> _Saved:
        try:
            return _Saved.decode(self._path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            _log.error(
                "{path} is damaged, so wrong passwords are counted from 0 again: {error}",
                path=str(self._path),
                error=str(error),
            )
        self._touch()
        return _Saved()

    def _touch(self) -> None:
        self._changed = True
        if self._timer is None and not self._writing:
            self._timer = self._clock.callLater(SAVE_SECONDS, self._write)

    def _write(self) -> None:
        if self._timer is not None:
            if self._timer.active():
                self._timer.cancel()
            self._timer = None
        self._changed, self._writing = False, True
        waiting, self._waiting = self._waiting, []
        now = self._now().timestamp()
        contents = _Saved(
            salt=self.salt,
            users=self._users.remembered(now),
            addresses=self._addresses.remembered(now),
            codes=self._codes.remembered(now),
            steps=self._steps,
        ).encode()
        writing = self._in_thread(lambda: write_atomic(self._path, contents, 0o600))
        writing.addBoth(self._written, waiting)

    def _written(self, result: Failure | None, waiting: list[Deferred[None]]) -> None:
        self._writing = False
        if isinstance(result, Failure):
            # Another write is tried later; the failure is logged once.
            self._changed = True
            if not self._failing:
                _log.failure("cannot write {path}", result, path=str(self._path))
            for deferred in waiting:
                deferred.errback(result)
        else:
            for deferred in waiting:
                deferred.callback(None)
        self._failing = isinstance(result, Failure)
        if self._waiting:
            self._write()
        elif self._changed:
            self._touch()


def _name(user: str) -> str:
    """The name under which a user is counted; a name that is too long is cut."""
    return user[:LONGEST_NAME]


def counted_as(source: str) -> str:
    """The name under which an address is counted: an IPv4 address, or the /64 network of an IPv6 address.

    Every customer of a provider has at least a /64.
    """
    address = address_of(source)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return source if address is None else str(address)
