"""Limits how often something happens: so many at once, and then so many in a second.

Values without a clock: the caller passes the time, in seconds from a clock that is never set back, and
decides what follows when nothing is left. Similar, but not token buckets: ``access.rate_limit`` (each wrong
password delays the next attempt longer than the one before it), ``ssh.fair_turns`` (processor time is shared
with those that wait, and nothing is earned while nobody waits), and counters of what is in use now.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` tokens at once after a rest, and then ``per_second``."""

    burst: float
    per_second: float
    most_debt: float = math.inf
    """The most tokens that a bucket can owe. What is charged beyond that is not counted."""


class TokenBucket:
    """Tokens that are spent and earned. Full at first. ``rate`` may be replaced."""

    __slots__ = ("_filled_at", "_level", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._level = float(rate.burst)
        self._filled_at = 0.0

    def fill(self, now: float) -> float:
        """Add what was earned since the last call, and return the number of tokens; negative where tokens are
        owed."""
        rate = self.rate
        level = self._level + (now - self._filled_at) * rate.per_second
        self._level = level = rate.burst if level > rate.burst else level
        self._filled_at = now
        return level

    def add(self, tokens: float) -> None:
        """Add tokens that were earned in another way than by time."""
        self._level = min(self._level + tokens, self.rate.burst)

    def charge(self, now: float, tokens: float = 1.0) -> float:
        """Spend tokens, also where they are missing. Return how many are left; negative where some are
        owed."""
        # As ``fill``, without the call: each message is charged.
        rate = self.rate
        level = self._level + (now - self._filled_at) * rate.per_second
        level = (rate.burst if level > rate.burst else level) - tokens
        self._level = level = -rate.most_debt if level < -rate.most_debt else level
        self._filled_at = now
        return level

    def take(self, now: float) -> bool:
        """Spend one token if there is one. Return whether there was."""
        is_left = self.fill(now) >= 1
        if is_left:
            self._level -= 1
        return is_left


class TokenBuckets(Generic[K]):
    """A bucket for each name, all of one rate. Beyond ``most`` names, those least recently charged are
    forgotten: their buckets are full again."""

    def __init__(self, rate: Rate, most: int) -> None:
        self._rate = rate
        self._most = most
        self._buckets: OrderedDict[K, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """The number of names that are remembered."""
        return len(self._buckets)

    def level(self, name: K, now: float) -> float:
        """Return the number of tokens that are left for a name; negative where some are owed."""
        bucket = self._buckets.get(name)
        return self._rate.burst if bucket is None else bucket.fill(now)

    def charge(self, name: K, now: float) -> float:
        """Spend a token of a name, also where it is missing. Return how many are left."""
        return self._recent(name).charge(now)

    def take(self, name: K, now: float) -> bool:
        """Spend a token of a name if there is one. Return whether there was."""
        return self._recent(name).take(now)

    def forget(self, name: K) -> None:
        """Fill the bucket of a name."""
        self._buckets.pop(name, None)

    def _recent(self, name: K) -> TokenBucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = TokenBucket(self._rate)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        return bucket
