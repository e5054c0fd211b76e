"""The name of a session: sorts by time, unique across processes, safe as a file name.

26 characters of Crockford's base 32 in lower case: 58 bits of microseconds since 1970, so that text
order is time order, then 72 random bits, so that no two processes need to talk to each other. The
alphabet has neither a dot nor a slash: a path is built from this and from nothing else.
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
    """A name that nobody has yet, for a session that begins at ``now`` (aware, 1970 or later)."""
    micros = max((now - _EPOCH) // _MICROSECOND, 0)
    return _encoded(micros << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS))


def _encoded(value: int) -> str:
    return "".join(ALPHABET[value >> shift & 31] for shift in range(5 * (LENGTH - 1), -1, -5))


def first_at(moment: datetime) -> str:
    """The first name of all that could be given at this moment (aware, 1970 or later)."""
    return _encoded(((moment - _EPOCH) // _MICROSECOND) << _RANDOM_BITS)


def time_of(sid: str) -> datetime:
    """When the session began, in UTC. ValueError where ``sid`` is not a session id at all."""
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
    """True where ``text`` has the form of a session id, and so may become part of a path."""
    try:
        time_of(text)
    except ValueError:
        return False
    return True
