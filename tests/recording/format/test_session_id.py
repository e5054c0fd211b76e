from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.format.session_id import is_session_id, new_session_id, time_of

moments = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(timezone.utc))


@given(moments)
def test_contains_its_time(moment: datetime) -> None:
    assert time_of(new_session_id(moment)) == moment


@given(moments, moments)
def test_sorts_by_time(first: datetime, second: datetime) -> None:
    if first != second:
        assert (new_session_id(first) < new_session_id(second)) == (first < second)


def test_accepts_any_time_zone() -> None:
    there = timezone(timedelta(hours=-7))
    moment = datetime(2026, 11, 23, 22, 0, 0, 5, tzinfo=there)
    assert time_of(new_session_id(moment)) == moment


def test_is_unique() -> None:
    now = datetime(2026, 11, 23, tzinfo=timezone.utc)
    assert len({new_session_id(now) for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "../../../../etc/passwd...", "a/b", "0" * 25, "0" * 27, "A" * 26, "0" * 25 + "\0",
     "0" * 25 + "\n", "0" * 25 + "l", "z" * 26, "é" * 26, "0" * 25 + "/", "x" * 300],
)  # fmt: skip
def test_is_safe_as_a_file_name(text: str) -> None:
    assert not is_session_id(text)
    with pytest.raises(ValueError, match="session id"):
        time_of(text)


def test_names_session_with_a_clock_before_1970() -> None:
    assert is_session_id(new_session_id(datetime(1960, 1, 1, tzinfo=timezone.utc)))
