"""When a role counts."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.access.time_windows import Window, is_open, parse_moment

UTC = timezone.utc


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("mon-fri 08:00-18:00", "2026-11-23 08:00", "2026-11-23 18:00"),
        ("mon-fri 08:00-18:00", "2026-11-27 17:59:59", "2026-11-28 12:00"),
        ("mon-fri 08:00-18:00 Europe/Berlin", "2026-11-23 07:00", "2026-11-23 17:30"),
        ("mon-fri 08:00-18:00 Europe/Berlin", "2026-07-20 06:00", "2026-07-20 16:30"),
        ("fri 22:00-06:00", "2026-11-28 05:59", "2026-11-27 05:59"),
        ("sat-mon", "2026-11-23 23:59", "2026-11-24 00:00"),
        ("sat,wed", "2026-11-25 00:00", "2026-11-26 00:00"),
        ("00:00-24:00", "2026-11-23 12:00", ""),
        ("20:00-24:00", "2026-11-23 23:59", "2026-11-24 00:00"),
        # The night in which the clock goes back: two hours have the name 02:30, and both are inside.
        ("sun 02:00-03:00 Europe/Berlin", "2026-10-25 00:30", "2026-10-25 02:00"),
        ("sun 02:00-03:00 Europe/Berlin", "2026-10-25 01:30", "2026-10-25 02:00"),
    ],
)
def test_holds_inside_window_only(window: str, inside: str, outside: str) -> None:
    parsed = Window.parse(window)
    assert parsed.holds(at(inside))
    assert not outside or not parsed.holds(at(outside))


@pytest.mark.parametrize(
    "text",
    ["", "mon-frei 08:00-18:00", "08:00", "08:00-08:00", "24:00-08:00", "08:61-09:00", "25:00-26:00",
     "mon 08:00-18:00 Nowhere/City", "mon 08:00-18:00 UTC more", "mon 08:00-18:00 ../etc/passwd"],
)  # fmt: skip
def test_rejects_invalid_window(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Window.parse(text)


def test_opens_always_for_none_and_never_for_empty_list() -> None:
    assert is_open(None, at("2026-11-23 12:00"))
    assert not is_open((), at("2026-11-23 12:00"))


WINDOWS = st.sampled_from(
    ["mon-fri 08:00-18:00 Europe/Berlin", "fri 22:00-06:00 America/New_York", "sun", "sat-mon 01:30-02:30",
     "sun 02:15-02:45 Europe/Berlin", "00:00-24:00"]
).map(Window.parse)  # fmt: skip
MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))


@given(WINDOWS, MOMENTS, st.floats(0, 1))
def test_changes_at_reported_moment_only(window: Window, now: datetime, part: float) -> None:
    change = window.changes(now)
    assert change > now
    between = now + (change - now) * part
    if between < change:
        assert window.holds(between) == window.holds(now)
    if window.text != "00:00-24:00":
        assert window.holds(change) != window.holds(change - timedelta(seconds=1))


def test_parses_times() -> None:
    assert parse_moment("2026-12-31") == at("2026-12-31 00:00")
    assert parse_moment("2026-12-31 18:00") == at("2026-12-31 18:00")
    assert parse_moment("2026-12-31T18:00:30Z") == at("2026-12-31 18:00:30")
    assert parse_moment("2026-12-31 18:00+02:00") == at("2026-12-31 16:00")
    assert parse_moment("2026-12-31 18:00 Europe/Berlin") == at("2026-12-31 17:00")


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2026-13-01", "2026-12-31 25:00", "2026-12-31 18:00 Nowhere",
     "2026-12-31 18:00Z Europe/Berlin", "0001-01-01 00:00+14:00"],
)  # fmt: skip
def test_rejects_invalid_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_moment(text)
