"""When a role counts: days and hours in a time zone. Pure; the time is handed in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile("([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})")
_MOMENT = re.compile(
    "([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?))?"
    "(Z|[+-][0-9]{2}:[0-9]{2})?(?: (.+))?"
)
_DAY = 24 * 60
#: Farther away a day more or less may be no date.
_FIRST_YEAR, _LAST_YEAR = "1970", "9000"
_EXAMPLE = "mon-fri 08:00-18:00 Europe/Berlin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """On ``days`` (0 is Monday) from ``begin`` to ``end``, in minutes after midnight in ``zone``. One that
    ends before it begins ends on the next day; it belongs to the day on which it began."""

    text: str
    days: frozenset[int]
    begin: int
    end: int
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str) -> Window:
        """``mon-fri 08:00-18:00 Europe/Berlin``: days (else all), hours (else all), zone (else UTC).
        ValueError says what is wrong with it, for the administrator."""
        words = text.split()
        days = frozenset(range(7))
        begin, end, zone = 0, _DAY, "UTC"
        if words and not _HOURS.fullmatch(words[0]) and (found := _days(words[0])) is not None:
            days = found
            words.pop(0)
        if words and (hours := _HOURS.fullmatch(words[0])):
            begin = _minutes(text, hours[1], hours[2])
            end = _minutes(text, hours[3], hours[4])
            words.pop(0)
        if words:
            zone = words.pop(0)
        if words or not text.strip():
            raise ValueError(f"{text!r} is not like {_EXAMPLE}")
        if begin in (end, _DAY):
            raise ValueError(f"{text!r} ends when it begins; all day is 00:00-24:00")
        try:
            return cls(text=text, days=days, begin=begin, end=end, zone=zone_of(zone))
        except ValueError as error:
            raise ValueError(f"{error}, and not like {_EXAMPLE}") from None

    def holds(self, now: datetime) -> bool:
        return any(begin <= now < end for begin, end in self._spans(now))

    def changes(self, now: datetime) -> datetime:
        """The first moment after ``now`` at which it opens or closes, or closes and opens again."""
        moments = (moment for span in self._spans(now) for moment in span)
        return min(moment for moment in moments if moment > now)

    def _spans(self, now: datetime) -> Iterator[tuple[datetime, datetime]]:
        """From yesterday on, for more than a week."""
        today = now.astimezone(self.zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        for day in range(-2, 9):
            midnight = today + timedelta(days=day)
            if midnight.weekday() in self.days:
                end = self.end if self.end > self.begin else self.end + _DAY
                yield self._moment(midnight, self.begin), self._moment(midnight, end)

    def _moment(self, midnight: datetime, minutes: int) -> datetime:
        local = midnight + timedelta(minutes=minutes)
        return local.replace(tzinfo=self.zone).astimezone(timezone.utc)


def is_open(windows: Sequence[Window] | None, now: datetime) -> bool:
    """None is always, and an empty list never."""
    return windows is None or any(window.holds(now) for window in windows)


def zone_of(name: str) -> ZoneInfo:
    """ValueError where there is no such time zone."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError(f"{name!r} is not a time zone (Europe/Berlin)") from None


def parse_moment(text: str) -> datetime:
    """``2026-12-31``, ``2026-12-31 18:00``, with an offset or a time zone (else UTC), aware. A day alone is
    its beginning. ValueError says what is wrong with it, for the administrator."""
    found = _MOMENT.fullmatch(text.strip())
    if found is None or (found[3] and found[4]):
        raise ValueError(f"{text!r} is not a time (2026-12-31 18:00 Europe/Berlin)")
    zone = zone_of(found[4]) if found[4] else timezone.utc
    offset = found[3] if found[3] and found[3] != "Z" else ""
    if not _FIRST_YEAR <= found[1][:4] <= _LAST_YEAR:
        raise ValueError(f"{text!r} is too far in the past or in the future")
    try:
        moment = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}{offset}")
        return (moment if offset else moment.replace(tzinfo=zone)).astimezone(timezone.utc)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None


def _days(text: str) -> frozenset[int] | None:
    """``mon-fri``, ``sat,sun``, ``fri-mon``; None where it is something else."""
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            return None
        begin = DAYS.index(first)
        length = (DAYS.index(last) - begin) % 7 if dash else 0
        days |= {(begin + day) % 7 for day in range(length + 1)}
    return frozenset(days)


def _minutes(text: str, hours: str, minutes: str) -> int:
    at = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or at > _DAY:
        raise ValueError(f"{text!r} has no time between 00:00 and 24:00")
    return at
