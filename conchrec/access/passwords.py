"""Passwords and codes: what is one, and is it the right one? Pure; the time is handed in.

A password is kept as its bcrypt hash. A code is that of RFC 6238 in the one form that every authenticator
app has: HMAC-SHA-1, six digits, thirty seconds.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
import unicodedata
from collections.abc import Mapping
from urllib.parse import quote

import bcrypt

#: bcrypt looks at no more, and silently.
MAX_BYTES = 72
#: Of new hashes: 2^12 rounds are a fifth of a second of one core.
COST = 12
#: Of any hash. Less is quick to guess, more lets a few logins keep the machine busy.
LEAST_COST, MOST_COST = 10, 14
STEP_SECONDS = 30
DIGITS = 6
#: Clocks of phones and ours may be apart by so many steps, either way (RFC 6238 section 5.2).
DRIFT = 1
#: RFC 4226 section 4, R6: what is shared has 128 bits at least, and better 160.
LEAST_SECRET, NEW_SECRET = 16, 20

# The last character of the salt has two bits only.
_HASH = re.compile(r"\$2b\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


def parse_hash(text: str) -> bytes:
    """A bcrypt hash as it is written. Raises ValueError, which never has the text in it."""
    found = _HASH.fullmatch(text)
    if found is None:
        raise ValueError("is not a bcrypt hash of 60 characters ($2b$12$…)")
    if not LEAST_COST <= int(found[1]) <= MOST_COST:
        raise ValueError(f"is a bcrypt hash whose cost is not from {LEAST_COST} to {MOST_COST}")
    return text.encode()


def new_hash(password: str, cost: int = COST) -> str:
    """The hash of a new password. Blocks for a moment. Raises ValueError where it cannot be one
    (UnicodeError, which is one, where it is no text)."""
    if not password:
        raise ValueError("an empty password is none")
    raw = _raw(password)
    if not password.isprintable():
        raise ValueError("a password has no control characters")
    if raw is None:
        raise ValueError(f"a password has {MAX_BYTES} bytes at most: bcrypt would not look at the rest")
    return bcrypt.hashpw(raw, bcrypt.gensalt(cost)).decode()


def parse_secret(text: str) -> bytes:
    """A TOTP secret from base32, as apps show it: in groups or not, padded or not. Raises ValueError, which
    never has the text in it."""
    plain = "".join(text.split()).replace("-", "").rstrip("=").upper()
    try:
        secret = base64.b32decode(plain + "=" * (-len(plain) % 8))
    except (binascii.Error, ValueError):
        raise ValueError("is not base32 (letters, and digits from 2 to 7)") from None
    if len(secret) < LEAST_SECRET:
        raise ValueError(f"is too short: {LEAST_SECRET * 8} bits at least, which are 26 characters")
    return secret


def new_secret() -> str:
    """In base32."""
    return base64.b32encode(secrets.token_bytes(NEW_SECRET)).decode()


def otpauth(secret: str, user: str, issuer: str) -> str:
    """What a QR code tells an app; for what is left out the defaults are ours."""
    label = f"{quote(issuer, safe='')}:{quote(user, safe='')}"
    return f"otpauth://totp/{label}?secret={secret}&issuer={quote(issuer, safe='')}"


def step_at(seconds: float) -> int:
    """The time step, ``seconds`` after 1970 (RFC 6238 section 4.2)."""
    return int(seconds // STEP_SECONDS)


def code_at(secret: bytes, step: int) -> str:
    """The code of a time step (RFC 4226 section 5.3)."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


def step_of(secret: bytes, code: str, seconds: float, after: int = -1) -> int | None:
    """The time step of a code that is good now, and belongs to a step later than ``after``; else None."""
    typed = "".join(code.split()).encode()
    found = None
    for step in range(step_at(seconds) - DRIFT, step_at(seconds) + DRIFT + 1):
        if hmac.compare_digest(code_at(secret, step).encode(), typed) and step > after:
            found = step
    return found


class Passwords:
    """Everybody's ``hashes``, and the TOTP ``secrets`` of those who have one, with a password or without.

    ``salt`` decides which of the names that nobody has are asked for a code; outsiders do not know it, and
    it should stay the same.
    """

    def __init__(self, hashes: Mapping[str, bytes], secrets: Mapping[str, bytes], salt: bytes) -> None:
        self._hashes = dict(hashes)
        self._secrets = dict(secrets)
        self._salt = salt
        self._most = max(map(_cost, self._hashes.values()), default=COST)
        #: How many of those with a password have a code, too.
        self._both = len(self._hashes.keys() & self._secrets.keys())

    @property
    def are_there(self) -> bool:
        """Has anybody a password?"""
        return bool(self._hashes)

    def of(self, user: str) -> tuple[bytes | None, bytes | None]:
        """The hash and the secret; None for what the user does not have."""
        return self._hashes.get(user), self._secrets.get(user)

    def asks_code(self, user: str) -> bool:
        """Is this name asked for a code? Of the names without a password about half are, and always the
        same ones, where it is so with some of the others: the questions do not tell who there is."""
        if user in self._hashes:
            return user in self._secrets
        if self._both in (0, len(self._hashes)):
            return bool(self._both)
        return hmac.digest(self._salt, user.encode(), "sha256")[0] < 128

    def is_right(self, user: str, password: str) -> bool:
        """Blocks, for a fraction of a second and always for the same: also for a name that nobody has, for
        a password that can be none, and for a hash that costs less than others."""
        raw = _raw(password)
        hashed = self._hashes.get(user, _dummy(self._most))
        same = hmac.compare_digest(bcrypt.hashpw(raw or b"", hashed), hashed)
        # 2^c + (2^c + 2^(c+1) + … + 2^(m-1)) = 2^m
        for cost in range(_cost(hashed), self._most):
            bcrypt.hashpw(raw or b"", _dummy(cost))
        return same and raw is not None and user in self._hashes

    def step_of(self, user: str, code: str, seconds: float, after: int) -> int | None:
        """``step_of`` with the secret of a user who has one."""
        return step_of(self._secrets[user], code, seconds, after)

    def why_not(self, user: str) -> str:
        """For the audit: why the password was not right."""
        return "wrong password" if user in self._hashes else "there is no such user with a password"

    def has_code(self, user: str) -> bool:
        return user in self._secrets


def _raw(password: str) -> bytes | None:
    """What is hashed; None for what can be no password. One text, however it is typed (RFC 8265 section
    4.2: normalization form C)."""
    raw = unicodedata.normalize("NFC", password).encode()
    return raw if 0 < len(raw) <= MAX_BYTES and 0 not in raw else None


def _cost(hashed: bytes) -> int:
    return int(hashed[4:6])


def _dummy(cost: int) -> bytes:
    """The hash of nothing."""
    return b"$2b$%02d$" % cost + b"." * 53
