"""Password hashes and one-time codes: parses, creates and verifies them. Pure; the time is an argument.

A password is stored as its bcrypt hash. Codes are those of RFC 6238 in the form that every authenticator app
supports: HMAC-SHA-1, six digits, thirty seconds.
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

#: bcrypt ignores further bytes silently.
MAX_BYTES = 72
#: The cost of new hashes: 2^12 rounds take a fifth of a second on one core.
COST = 12
#: Limits for the cost of a hash. A lower one is quick to guess; a higher one lets a few logins use all CPUs.
LEAST_COST, MOST_COST = 10, 14
STEP_SECONDS = 30
DIGITS = 6
#: By how many steps the clock of a phone may be fast or slow (RFC 6238 section 5.2).
DRIFT = 1
#: Bytes of a secret. RFC 4226 section 4, R6: at least 128 bits, and 160 are recommended.
LEAST_SECRET, NEW_SECRET = 16, 20

# The last character of the salt has two bits only.
_HASH = re.compile(r"\$2b\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")


def parse_hash(text: str) -> bytes:
    """A bcrypt hash from the configuration. Raises ValueError, whose text never contains the hash."""
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError("invalid hash: must be a bcrypt hash of 60 characters ($2b$12$…)")
    if not LEAST_COST <= int(match[1]) <= MOST_COST:
        raise ValueError(f"invalid hash: the cost must be from {LEAST_COST} to {MOST_COST}")
    return text.encode()


def new_hash(password: str, cost: int = COST) -> str:
    """The hash of a new password. Blocks for a fraction of a second.

    Raises ValueError for an invalid password (its subclass UnicodeError where it is not valid text).
    """
    if not password:
        raise ValueError("invalid password: must not be empty")
    raw = _raw(password)
    if not password.isprintable():
        raise ValueError("invalid password: must not contain control characters")
    if raw is None:
        raise ValueError(f"invalid password: at most {MAX_BYTES} bytes, because bcrypt ignores further ones")
    return bcrypt.hashpw(raw, bcrypt.gensalt(cost)).decode()


def parse_secret(text: str) -> bytes:
    """A TOTP secret from base32, as apps show it: with or without spaces, hyphens and padding.

    Raises ValueError, whose text never contains the secret.
    """
    plain = "".join(text.split()).replace("-", "").rstrip("=").upper()
    try:
        secret = base64.b32decode(plain + "=" * (-len(plain) % 8))
    except (binascii.Error, ValueError):
        raise ValueError("invalid secret: must be base32 (letters, and digits from 2 to 7)") from None
    if len(secret) < LEAST_SECRET:
        raise ValueError(
            f"invalid secret: must have at least {LEAST_SECRET * 8} bits, which are 26 characters"
        )
    return secret


def new_secret() -> str:
    """A new random secret, in base32."""
    return base64.b32encode(secrets.token_bytes(NEW_SECRET)).decode()


def otpauth(secret: str, user: str, issuer: str) -> str:
    """The URI that a QR code gives an app. Parameters that have the default value are left out."""
    label = f"{quote(issuer, safe='')}:{quote(user, safe='')}"
    return f"otpauth://totp/{label}?secret={secret}&issuer={quote(issuer, safe='')}"


def step_at(seconds: float) -> int:
    """The number of the time step at ``seconds`` after 1970 (RFC 6238 section 4.2)."""
    return int(seconds // STEP_SECONDS)


def code_at(secret: bytes, step: int) -> str:
    """The code of a time step (RFC 4226 section 5.3)."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


def step_of(secret: bytes, code: str, seconds: float, after: int = -1) -> int | None:
    """The time step of a valid code, if it is later than the step ``after``; else None."""
    typed = "".join(code.split()).encode()
    valid = None
    for step in range(step_at(seconds) - DRIFT, step_at(seconds) + DRIFT + 1):
        if hmac.compare_digest(code_at(secret, step).encode(), typed) and step > after:
            valid = step
    return valid


class Passwords:
    """The password ``hashes`` and the TOTP ``secrets`` of all users; a user may have one, both or none.

    ``salt`` decides for which unknown names the proxy asks for a code. It is secret, and should stay the
    same.
    """

    def __init__(self, hashes: Mapping[str, bytes], secrets: Mapping[str, bytes], salt: bytes) -> None:
        self._hashes = dict(hashes)
        self._secrets = dict(secrets)
        self._salt = salt
        self._most = max(map(_cost, self._hashes.values()), default=COST)
        #: The number of users with both a password and a code.
        self._both = len(self._hashes.keys() & self._secrets.keys())

    @property
    def are_there(self) -> bool:
        """Whether any user has a password."""
        return bool(self._hashes)

    def of(self, user: str) -> tuple[bytes | None, bytes | None]:
        """The hash and the secret of a user; None for each that the user does not have."""
        return self._hashes.get(user), self._secrets.get(user)

    def asks_code(self, user: str) -> bool:
        """Whether the proxy asks this name for a code.

        If some users with a password have codes and some do not, it asks about half of the other names,
        always the same ones: so the questions do not reveal which users exist.
        """
        if user in self._hashes:
            return user in self._secrets
        if self._both in (0, len(self._hashes)):
            return bool(self._both)
        return hmac.digest(self._salt, user.encode(), "sha256")[0] < 128

    def is_right(self, user: str, password: str) -> bool:
        """Whether this is the user's password. Blocks for a fraction of a second.

        It takes the same time for an unknown name, for an invalid password, and for a hash with a lower
        cost.
        """
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
        """Why the password was not accepted, for the audit."""
        return "wrong password" if user in self._hashes else "no such user with a password"

    def has_code(self, user: str) -> bool:
        """Whether the user has a TOTP secret."""
        return user in self._secrets


def _raw(password: str) -> bytes | None:
    """The bytes that are hashed; None for an invalid password.

    They are the same however the text is typed: normalization form C (RFC 8265 section 4.2).
    """
    raw = unicodedata.normalize("NFC", password).encode()
    return raw if 0 < len(raw) <= MAX_BYTES and 0 not in raw else None


def _cost(hashed: bytes) -> int:
    return int(hashed[4:6])


def _dummy(cost: int) -> bytes:
    """A hash with this cost that no password has."""
    return b"$2b$%02d$" % cost + b"." * 53
