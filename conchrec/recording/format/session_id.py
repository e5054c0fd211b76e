"""The session id: it sorts by time, is unique across processes, and is safe as a file name.

26 characters of Crockford's base 32 in lower case: 58 bits of microseconds since 1970, so that the order of
texts is the order of times, then 72 random bits, so that processes do not need to agree. The alphabet has
neither a dot nor a slash: paths are built from the session id alone.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta, timezone

LENGTH = 26
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {letter: value for value, letter in enumerate(ALPHABET)}
_RANDOM_BITS = 72
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def new_session_id(now: datetime) -> str:
    """Return a new id for a session that begins at ``now`` (aware, 1970 or later)."""
    micros = max((now - _EPOCH) // _MICROSECOND, 0)
    return _encoded(micros << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS))


def _encoded(value: int) -> str:
    return "".join(ALPHABET[value >> shift & 31] for shift in range(5 * (LENGTH - 1), -1, -5))


def first_at(moment: datetime) -> str:
    """Return the first of all ids that could be given at this moment (aware, 1970 or later)."""
    return _encoded(((moment - _EPOCH) // _MICROSECOND) << _RANDOM_BITS)


def time_of(sid: str) -> datetime:
    """Return when the session began, in UTC. Raises ValueError for an invalid session id."""
    if len(sid) != LENGTH or not _VALUES.keys() >= set(sid):
        raise ValueError("not a session id")
    value = 0
    for letter in sid:
        value = value << 5 | _VALUES[letter]
    try:
        return _EPOCH + timedelta(microseconds=value >> _RANDOM_BITS)
    except OverflowError:
        raise ValueError("not a session id") from None


def is_session_id(text: str) -> bool:
    """Return whether ``text`` has the form of a session id, and may become a part of a path."""
    try:
        time_of(text)
    except ValueError:
        return False
    return True
