"""Lines of authorized_keys (sshd(8), "AUTHORIZED_KEYS FILE FORMAT") as values. Pure: no files, no clock.

Of the options ``from`` and ``expiry-time`` are obeyed; any other is a problem, for one that restricts
and is not obeyed would open what it was to close. Certificates, DSA and short RSA keys are no keys here.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from cryptography.hazmat.primitives.asymmetric import ec

from conchrec.access.patterns import address_of, is_within, parse_network
from conchrec.errors import ConfigError, RemoteViolation
from conchrec.ssh.certificate import KEY_TYPES, MAX_RSA_BITS, MIN_RSA_BITS, plain_type
from conchrec.ssh.wire import Reader
from conchrec.text import one_line
from conchrec.yaml_cursor import ConfigErrors

MAX_COMMENT = 256

_CURVES: dict[bytes, ec.EllipticCurve] = {
    b"nistp256": ec.SECP256R1(),
    b"nistp384": ec.SECP384R1(),
    b"nistp521": ec.SECP521R1(),
}
_SPACE = re.compile("[ \t]+")
_KEY_TYPE = re.compile(r"(sk-)?(ssh|ecdsa)-[A-Za-z0-9@.-]+")
_OPTION = re.compile(r'(?P<name>[A-Za-z0-9-]+)(?:="(?P<value>(?:[^"\\]|\\.)*)")?')
_V4_PATTERN = re.compile(r"[0-9.*?]+")
_V6_PATTERN = re.compile(r"[0-9a-f:.*?]+")
_TIMES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizedKey:
    """A key that may log in.

    ``blob`` is the plain public key as on the wire. ``sources`` is the list of ``from=``, None where
    there is none (an empty list matches nobody). ``expires`` is aware; from then on the key is no key.
    ``line`` counts from 1.
    """

    blob: bytes
    comment: str = ""
    sources: tuple[str, ...] | None = None
    expires: datetime | None = None
    line: int = 1


class _Problem(ValueError):
    """What is wrong with a line, for the administrator."""


def parse_authorized_keys(text: str, path: str) -> tuple[AuthorizedKey, ...]:
    """All keys of a file (or of a single line). ``path`` is what the problems are said to be in.

    Raises ConfigErrors with every problem and its line.
    """
    keys: list[AuthorizedKey] = []
    problems: list[ConfigError] = []
    # Not splitlines(): that ends lines at characters which sshd takes for part of a comment.
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        try:
            keys.append(_key(line, number))
        except _Problem as problem:
            problems.append(ConfigError(path, str(problem), number))
            if line.startswith("-----"):
                break  # what follows is the inside of the same thing
    if problems:
        raise ConfigErrors(path, problems)
    return tuple(keys)


def _key(line: str, number: int) -> AuthorizedKey:
    """``[option[="value"],…] type base64 [comment]``"""
    if line.startswith("-----"):
        kind = "a private key" if "PRIVATE KEY" in line else "not OpenSSH's format"
        raise _Problem(f"that is {kind}; public keys are wanted, one a line (ssh-keygen -y prints them)")
    sources: tuple[str, ...] | None = None
    expires: datetime | None = None
    if not _KEY_TYPE.fullmatch(_SPACE.split(line, 1)[0]):
        sources, expires, line = _options(line)
    words = _SPACE.split(line, 2)
    if len(words) < 2 or not _KEY_TYPE.fullmatch(words[0]):
        raise _Problem("that is no public key (ssh-ed25519 AAAA… comment)")
    kind, encoded, comment = words[0], words[1], words[2] if len(words) > 2 else ""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _Problem("the key is cut short or mistyped: it is not base64") from error
    check_plain_key(kind.encode(), blob)
    shown = one_line(comment, MAX_COMMENT)
    return AuthorizedKey(blob=blob, comment=shown, sources=sources, expires=expires, line=number)


def check_plain_key(kind: bytes, blob: bytes) -> None:
    """Is this a whole plain public key of the type ``kind``, and one that may be used?

    Raises ValueError, with a text for the administrator.
    """
    shown = one_line(kind, 64)
    if plain_type(kind) != kind:
        raise _Problem("that is a certificate; its user needs no line here, or the line of the plain key")
    if kind == b"ssh-dss":
        raise _Problem("DSA keys are not taken")
    if kind not in KEY_TYPES:
        raise _Problem(f"keys of the type {shown} are not known here")
    try:
        r = Reader(blob)
        named = r.string()
        if named != kind:
            raise _Problem(f"the line says {shown} and the key says otherwise")
        if kind == b"ssh-rsa":
            _check_rsa(r)
        elif b"ed25519" in kind:
            if len(r.string()) != 32:
                raise _Problem("the key is malformed: it is not 32 bytes long")
        else:
            _check_ecdsa(r, kind)
        if kind.startswith(b"sk-"):
            r.string()
        r.end()
    except RemoteViolation as error:
        raise _Problem("the key is cut short or mistyped") from error


def _check_rsa(r: Reader) -> None:
    exponent, modulus = r.mpint(), r.mpint()
    if modulus <= 0 or exponent < 3 or exponent % 2 == 0:
        raise _Problem("the key is malformed: its numbers make no RSA key")
    bits = modulus.bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise _Problem(f"an RSA key of {bits} bits is not taken ({MIN_RSA_BITS} to {MAX_RSA_BITS} are)")


def _check_ecdsa(r: Reader, kind: bytes) -> None:
    name = r.string()
    curve = _CURVES.get(name)
    if curve is None or name not in kind:
        raise _Problem("the key is malformed: it is on another curve than it says")
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(curve, r.string())
    except ValueError as error:
        raise _Problem("the key is malformed: its point is not on the curve") from error


# --- options


def _options(line: str) -> tuple[tuple[str, ...] | None, datetime | None, str]:
    """The options that a line begins with, and what follows them."""
    sources: tuple[str, ...] | None = None
    expires: datetime | None = None
    at = 0
    while True:
        match = _OPTION.match(line, at)
        if match is None:
            raise _Problem('that is no public key, and no option of one (from="…",expiry-time="…")')
        name, value = match["name"].lower(), match["value"]
        if name == "from":
            if sources is not None:
                raise _Problem("from= is there twice")
            sources = _sources(_value(name, value))
        elif name == "expiry-time":
            moment = _moment(_value(name, value))
            expires = moment if expires is None else min(expires, moment)
        else:
            raise _Problem(f"the option {name} is not obeyed here (from and expiry-time are)")
        at = match.end()
        rest = line[at:]
        if rest.startswith(","):
            at += 1
        elif rest[:1] in (" ", "\t"):
            return sources, expires, rest.strip(" \t")
        else:
            raise _Problem(f"the option {name} is cut short, or no key follows it")


def _value(name: str, value: str | None) -> str:
    if value is None:
        raise _Problem(f'the option {name} has to have a value in quotes ({name}="…")')
    return value.replace('\\"', '"')


def _moment(text: str) -> datetime:
    """``YYYYMMDD[HHMM[SS]][Z]``; in this machine's time zone where there is no Z."""
    digits = text.removesuffix("Z")
    try:
        if not re.fullmatch("[0-9]+", digits):
            raise ValueError
        moment = datetime.strptime(digits, _TIMES[len(digits)])
    except (KeyError, ValueError) as error:
        raise _Problem(f"expiry-time={text!r} is not YYYYMMDD[HHMM[SS]][Z]") from error
    return (moment.replace(tzinfo=timezone.utc) if text.endswith("Z") else moment).astimezone(timezone.utc)


def _sources(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in text.split(","))
    for part in found:
        _check_source(part.removeprefix("!"))
    return found


def _check_source(part: str) -> None:
    """An address, a network, or an address with wildcards. A name is none: whoever has an address
    decides which name it has."""
    if "*" in part or "?" in part:
        if _V4_PATTERN.fullmatch(part) or (":" in part and _V6_PATTERN.fullmatch(part)):
            return
    elif address_of(part) is not None:
        return
    elif "/" in part:
        try:
            parse_network(part)
        except ValueError as error:
            raise _Problem(f"from=: {error}") from error
        return
    raise _Problem(f"from=: {part!r} is not an address or a network (names are not looked up)")


def matches_source(sources: Sequence[str], source: str) -> bool:
    """Is the address ``source`` one of these, as sshd reads ``from=``?

    One entry has to match, and none that begins with ``!`` may. No entries match nobody.
    """
    address = address_of(source)
    if address is None:
        return False
    found = False
    for entry in sources:
        pattern = entry.removeprefix("!")
        if "*" in pattern or "?" in pattern:
            matches = re.fullmatch(_wild(pattern), str(address)) is not None
        else:
            matches = is_within(address, parse_network(_plain(pattern)))
        if matches and entry.startswith("!"):
            return False
        found = found or matches
    return found


def _wild(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def _plain(pattern: str) -> str:
    """An address in IPv6's clothes or with a scope is compared without them."""
    address = address_of(pattern)
    return pattern if address is None else str(address)
