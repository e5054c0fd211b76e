"""Who has guessed how often, and how long the next guess has to wait; a restart does not change it.

Guesses at passwords are counted by user and by address; those at codes that are asked for after a key was
proved by user, and apart: a stranger who guesses passwords keeps nobody from them. A guess counts as wrong
from its beginning and waits behind those that began before it, so many connections at once are no quicker
than one; only a right one is forgiven. A name counts the same whether somebody has it or not.

In memory, and in ``guesses.json`` in the state directory, which follows within a second. It also holds
which codes have been used.
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

#: Wrong guesses that cost nothing: people mistype, and many people may share one address.
FREE_OF_USER, FREE_OF_ADDRESS = 2, 10
#: Seconds before the next guess, after each wrong one beyond these. The last stays: 288 guesses a day.
DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
#: What has to wait longer is not kept waiting but refused, unseen: connections that wait are few, too.
LONGEST_WAIT = 30.0
#: After so long without a wrong guess all is forgotten: less often than once in 300 s nobody gets far.
FORGOTTEN_SECONDS = 3600.0
#: Of names that nobody has, and of addresses: some megabytes. Whoever makes up names without end pushes out
#: others of that kind; users that there are stay.
MOST_COUNTS = 10_000
#: No name of a user is longer.
LONGEST_NAME = 64
#: A burst of guesses is one write.
SAVE_SECONDS = 1.0


class Guess(enum.Enum):
    """At what."""

    PASSWORD = enum.auto()
    """And the code that may follow it."""
    CODE = enum.auto()
    """After a key was proved."""


class TooManyGuesses(AccessDenied):
    """This guess would have to wait too long. It was not looked at, and does not count."""

    default_code = ReasonCode.TOO_MANY_GUESSES

    def __init__(self, seconds: float, at: Guess) -> None:
        wait = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} seconds"
        way = " (a key works at once)" if at is Guess.PASSWORD else ""
        super().__init__(
            f"too many wrong answers: the next one is taken in {wait}{way}",
            f"too many wrong guesses; the next one is taken in {seconds:.0f} s",
        )


class _Counts:
    """For each name how many guesses were wrong, and when (in seconds since 1970) the next may be checked.
    In the order of the last guess. Those in ``kept`` are never pushed out."""

    def __init__(
        self, free: int, counts: Mapping[str, tuple[int, float]], kept: Collection[str] = ()
    ) -> None:
        self._free = free
        self._counts = OrderedDict(counts)
        self.kept = frozenset(kept)

    def due(self, name: str, now: float) -> float:
        """When the next guess may be checked."""
        wrong, due = self._counts.get(name, (0, now))
        if due > now + LONGEST_WAIT + DELAYS[-1]:
            # The clock was put back: the delay begins again, and ends.
            due = now + DELAYS[-1]
            self._counts[name] = wrong, due
        return due

    def add(self, name: str, at: float, now: float) -> None:
        """A guess that is checked at that time."""
        self._forget_old(now)
        wrong = self._counts.pop(name, (0, at))[0] + 1
        late = min(wrong - self._free, len(DELAYS))
        self._counts[name] = wrong, at + (DELAYS[late - 1] if late > 0 else 0.0)
        while len(self._counts) > MOST_COUNTS + len(self.kept):
            del self._counts[next(name for name in self._counts if name not in self.kept)]

    def take_back(self, name: str) -> None:
        """The guess was right; those before it were not."""
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
    """What the file holds: counts as in ``_Counts``, and the last time step whose code each user has used."""

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
        """Raises ValueError for what ``encode`` cannot have made."""
        fields = orjson.loads(raw)
        try:
            salt = bytes.fromhex(fields["salt"])
            users, addresses = _counts(fields["users"]), _counts(fields["addresses"])
            codes = _counts(fields.get("codes", {}))
            steps = {name: operator.index(step) for name, step in fields["steps"].items()}
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError("it does not hold what it should") from error
        if not salt:
            raise ValueError("its salt is empty")
        return cls(salt=salt, users=users, addresses=addresses, codes=codes, steps=steps)


def _counts(fields: dict[str, tuple[int, float]]) -> dict[str, tuple[int, float]]:
    return {name: (operator.index(wrong), float(due)) for name, (wrong, due) in fields.items()}


class Guesses:
    """See the module. ``users`` are those that there are; ``now`` is aware; ``in_thread`` runs what blocks.

    Reads the file at once; one that is not as we write it is said in the log, and all begins again.
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
        #: Changed since the last write began.
        self._changed = False
        self._waiting: list[Deferred[None]] = []
        saved = self._read()
        self._users = _Counts(FREE_OF_USER, saved.users, users)
        self._addresses = _Counts(FREE_OF_ADDRESS, saved.addresses)
        self._codes = _Counts(FREE_OF_USER, saved.codes, users)
        self._steps = saved.steps
        #: A secret of this file's own, made with it.
        self.salt = saved.salt

    # --- guesses

    def keep(self, users: Collection[str]) -> None:
        """Those that there are from now on."""
        self._users.kept = self._codes.kept = frozenset(users)

    def _counted(self, user: str, source: str, at: Guess) -> tuple[tuple[_Counts, str], ...]:
        if at is Guess.CODE:
            return ((self._codes, _name(user)),)
        return (self._users, _name(user)), (self._addresses, counted_as(source))

    def wait(self, user: str, source: str, at: Guess = Guess.PASSWORD) -> float:
        """How many seconds this guess of this user, from this address, would have to wait now."""
        now = self._now().timestamp()
        due = max(counts.due(name, now) for counts, name in self._counted(user, source, at))
        return max(0.0, due - now)

    def begin(self, user: str, source: str, at: Guess = Guess.PASSWORD) -> float:
        """A guess is made: the seconds after which it may be checked. It counts as wrong from now on, until
        ``right``. Raises TooManyGuesses where these would be more than LONGEST_WAIT; then it does not count.
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
        """The guess was right: the user's others are forgotten, the address's are not."""
        (mine, name), *others = self._counted(user, source, at)
        mine.forget(name)
        for counts, other in others:
            counts.take_back(other)
        self._touch()

    # --- codes

    def last_step(self, user: str) -> int:
        """The time step of the last code that this user has used; its code is not good any more, and
        neither are those before it."""
        return self._steps.get(user, -1)

    def use(self, user: str, step: int) -> Deferred[None]:
        """This code is used from now on. Fires when that is on the disk; fails with OSError."""
        current = step_at(self._now().timestamp())
        self._steps = {name: used for name, used in self._steps.items() if used >= current - DRIFT}
        self._steps[user] = step
        self._touch()
        return self.saved()

    # --- the file

    async def close(self) -> None:
        """Nobody guesses any more: write down what is not written yet."""
        with contextlib.suppress(OSError):  # the log has it
            await self.saved()

    def saved(self) -> Deferred[None]:
        """Fires when all that has happened so far is on the disk; fails with OSError."""
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
                "{path} can not be used, so wrong guesses are counted from 0: {error}",
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
            # It is tried again, and said once.
            self._changed = True
            if not self._failing:
                _log.failure("{path} can not be written", result, path=str(self._path))
            for one in waiting:
                one.errback(result)
        else:
            for one in waiting:
                one.callback(None)
        self._failing = isinstance(result, Failure)
        if self._waiting:
            self._write()
        elif self._changed:
            self._touch()


def _name(user: str) -> str:
    """Of what can be no user's name, the beginning will do."""
    return user[:LONGEST_NAME]


def counted_as(source: str) -> str:
    """As which an address counts: one of IPv4; of IPv6 the /64, which is what one customer has at least."""
    address = address_of(source)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return source if address is None else str(address)
