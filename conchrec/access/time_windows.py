"""Time windows of roles: days and hours in a time zone. Pure; the current time is an argument."""

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
#: Outside of these a date with a time zone may overflow.
_FIRST_YEAR, _LAST_YEAR = "1970", "9000"
_EXAMPLE = "mon-fri 08:00-18:00 Europe/Berlin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time on ``days`` (0 is Monday) from ``begin`` to ``end``, in minutes after midnight in ``zone``.

    A window whose end is before its begin ends on the next day; its day is the one on which it begins.
    """

    text: str
    days: frozenset[int]
    begin: int
    end: int
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str) -> Window:
        """``mon-fri 08:00-18:00 Europe/Berlin``: days (default: all), hours (all) and time zone (UTC).

        Raises ValueError, whose text is for the administrator.
        """
        words = text.split()
        days = frozenset(range(7))
        begin, end, zone, has_times = 0, _DAY, "UTC", False
        if words and not _HOURS.fullmatch(words[0]) and (named := _days(words[0])) is not None:
            days = named
            words.pop(0)
            has_times = True
        if words and (hours := _HOURS.fullmatch(words[0])):
            begin = _minutes(text, hours[1], hours[2])
            end = _minutes(text, hours[3], hours[4])
            words.pop(0)
            has_times = True
        if words:
            zone = words.pop(0)
        if words or not text.strip():
            raise ValueError(f"invalid time window {text!r}: write it like {_EXAMPLE}")
        if begin in (end, _DAY):
            raise ValueError(f"invalid time window {text!r}: begin and end are equal; all day is 00:00-24:00")
        try:
            return cls(text=text, days=days, begin=begin, end=end, zone=zone_of(zone))
        except ValueError as error:
            problem = str(error) if has_times else "it has no times"
            raise ValueError(f"invalid time window {text!r}: {problem}; write it like {_EXAMPLE}") from None

    def holds(self, now: datetime) -> bool:
        """Whether ``now`` is in the window."""
        return any(begin <= now < end for begin, end in self._spans(now))

    def changes(self, now: datetime) -> datetime:
        """The first moment after ``now`` at which the window opens or closes."""
        moments = (moment for span in self._spans(now) for moment in span)
        return min(moment for moment in moments if moment > now)

    def _spans(self, now: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Begin and end of each occurrence, from the day before yesterday on, for more than a week."""
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
    """Whether ``now`` is in one of the windows. None means always, an empty list never."""
    return windows is None or any(window.holds(now) for window in windows)


def zone_of(name: str) -> ZoneInfo:
    """The time zone with this name. Raises ValueError, whose text is for the administrator."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError(f"unknown time zone {name!r}: use a name like Europe/Berlin or UTC") from None


def parse_moment(text: str) -> datetime:
    """``2026-12-31`` (its first moment), ``2026-12-31 18:00``, with an offset or a time zone (default: UTC).

    The result is aware. Raises ValueError, whose text is for the administrator.
    """
    match = _MOMENT.fullmatch(text.strip())
    if match is None or (match[3] and match[4]):
        raise ValueError(f"invalid time {text!r}: write it like 2026-12-31 18:00 Europe/Berlin")
    zone = zone_of(match[4]) if match[4] else timezone.utc
    offset = match[3] if match[3] and match[3] != "Z" else ""
    if not _FIRST_YEAR <= match[1][:4] <= _LAST_YEAR:
        raise ValueError(f"invalid time {text!r}: the year must be from {_FIRST_YEAR} to {_LAST_YEAR}")
    try:
        moment = datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00'}{offset}")
        return (moment if offset else moment.replace(tzinfo=zone)).astimezone(timezone.utc)
    except ValueError as error:
        raise ValueError(f"invalid time {text!r}: {error}") from None


def _days(text: str) -> frozenset[int] | None:
    """The days of ``mon-fri``, ``sat,sun``, ``fri-mon``; None where the text is not a list of days."""
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
        raise ValueError(f"invalid time window {text!r}: times must be from 00:00 to 24:00")
    return at
