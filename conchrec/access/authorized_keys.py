"""Parses lines of authorized_keys (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"). Pure: no files, no clock.

The options ``from`` and ``expiry-time`` are enforced. Any other option is an error: a restriction that is
not enforced would allow what the administrator wanted to forbid. Certificates, DSA keys and short RSA keys
are errors too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from conchrec.access.patterns import address_of, is_within, parse_network
from conchrec.errors import ConfigError, ConfigErrors, RemoteViolation
from conchrec.ssh.certificate import KEY_TYPES, MAX_RSA_BITS, MIN_RSA_BITS, plain_type
from conchrec.ssh.wire import Reader
from conchrec.text import one_line

MAX_COMMENT = 256

_SPACE = re.compile("[ \t]+")
_KEY_TYPE = re.compile(r"(sk-)?(ssh|ecdsa)-[A-Za-z0-9@.-]+")
_OPTION = re.compile(r'(?P<name>[A-Za-z0-9-]+)(?:="(?P<value>(?:[^"\\]|\\.)*)")?')
_V4_PATTERN = re.compile(r"[0-9.*?]+")
_V6_PATTERN = re.compile(r"[0-9a-f:.*?]+")
_TIMES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizedKey:
    """A key with which a user may log in.

    ``blob`` is the plain public key as on the wire. ``sources`` is the list of ``from=``, None without one
    (an empty list matches no address). ``expires`` is aware; from then on the key is rejected. ``line``
    counts from 1.
    """

    blob: bytes
    comment: str = ""
    sources: tuple[str, ...] | None = None
    expires: datetime | None = None
    line: int = 1


class _Problem(ValueError):
    """A line is invalid; the text is for the administrator."""


def parse_authorized_keys(text: str, path: str) -> tuple[AuthorizedKey, ...]:
    """All keys of a file (or of a single line). ``path`` is where the problems are reported.

    Raises ConfigErrors with every problem and its line.
    """
    keys: list[AuthorizedKey] = []
    problems: list[ConfigError] = []
    # Not splitlines(): that ends lines at characters which are part of a comment for sshd.
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        try:
            keys.append(_parse_line(line, number))
        except _Problem as problem:
            problems.append(ConfigError(path, str(problem), number))
            if line.startswith("-----"):
                break  # the next lines belong to the same PEM block
    if problems:
        raise ConfigErrors(path, problems)
    return tuple(keys)


def _parse_line(line: str, number: int) -> AuthorizedKey:
    """``[option[="value"],…] type base64 [comment]``"""
    if line.startswith("-----"):
        kind = "a private key" if "PRIVATE KEY" in line else "a key in another format than OpenSSH's"
        raise _Problem(
            f"this is {kind}; write the public key, as ssh-keygen -y prints it (ssh-ed25519 AAAA… comment)"
        )
    sources: tuple[str, ...] | None = None
    expires: datetime | None = None
    if not _KEY_TYPE.fullmatch(_SPACE.split(line, 1)[0]):
        sources, expires, line = _options(line)
    words = _SPACE.split(line, 2)
    if len(words) < 2 or not _KEY_TYPE.fullmatch(words[0]):
        raise _Problem("invalid public key: write it like ssh-ed25519 AAAA… comment")
    kind, encoded, comment = words[0], words[1], words[2] if len(words) > 2 else ""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _Problem("invalid public key: not base64; copy the line again") from error
    check_plain_key(kind.encode(), blob)
    comment = one_line(comment, MAX_COMMENT)
    return AuthorizedKey(blob=blob, comment=comment, sources=sources, expires=expires, line=number)


def check_plain_key(kind: bytes, blob: bytes) -> None:
    """Check that ``blob`` is a complete plain public key of the type ``kind``, and one that may be used.

    Raises ValueError, whose text is for the administrator.
    """
    type_name = one_line(kind, 64)
    if plain_type(kind) != kind:
        raise _Problem(
            "this is a certificate; remove the line (a certificate of the user CA needs none), or write the"
            " plain public key"
        )
    if kind == b"ssh-dss":
        raise _Problem("DSA keys are not supported; use an ed25519 key")
    if kind not in KEY_TYPES:
        raise _Problem(f"keys of the type {type_name} are not supported; use an ed25519 key")
    try:
        r = Reader(blob)
        actual = r.string()
        if actual != kind:
            raise _Problem(
                f"invalid public key: the line begins with {type_name}, but the key has another type"
            )
        if kind == b"ssh-rsa":
            _check_rsa(r)
        elif b"ed25519" in kind:
            if len(r.string()) != 32:
                raise _Problem("invalid public key: an ed25519 key must have 32 bytes")
        else:
            _check_ecdsa(r, kind)
        if kind.startswith(b"sk-"):
            r.string()
        r.end()
    except RemoteViolation as error:
        raise _Problem("invalid public key: the key is incomplete; copy the line again") from error


def _check_rsa(r: Reader) -> None:
    exponent, modulus = r.mpint(), r.mpint()
    if modulus <= 0 or exponent < 3 or exponent % 2 == 0:
        raise _Problem("invalid public key: the key is damaged; copy the line again")
    bits = modulus.bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        raise _Problem(
            f"an RSA key of {bits} bits is not accepted: it must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits"
        )


def _check_ecdsa(r: Reader, kind: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec  # slow to import

    curves: dict[bytes, ec.EllipticCurve] = {
        b"nistp256": ec.SECP256R1(),
        b"nistp384": ec.SECP384R1(),
        b"nistp521": ec.SECP521R1(),
    }
    name = r.string()
    curve = curves.get(name)
    if curve is None or name not in kind:
        raise _Problem("invalid public key: the curve does not match the key type")
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(curve, r.string())
    except ValueError as error:
        raise _Problem("invalid public key: the key is damaged; copy the line again") from error


# --- options


def _options(line: str) -> tuple[tuple[str, ...] | None, datetime | None, str]:
    """The sources and the expiry time from the options of a line, and the rest of the line."""
    sources: tuple[str, ...] | None = None
    expires: datetime | None = None
    at = 0
    while True:
        match = _OPTION.match(line, at)
        if match is None:
            raise _Problem(
                'invalid public key: the line must begin with a key type or with options (from="…",'
                'expiry-time="…")'
            )
        name, value = match["name"].lower(), match["value"]
        if name == "from":
            if sources is not None:
                raise _Problem("the option from is listed twice")
            sources = _sources(_value(name, value))
        elif name == "expiry-time":
            moment = _moment(_value(name, value))
            expires = moment if expires is None else min(expires, moment)
        else:
            advice = ". To restrict commands, use roles.*.options.commands" if name == "command" else ""
            raise _Problem(
                f"the option {name} is not supported; remove it. Only from= and expiry-time= are{advice}"
            )
        at = match.end()
        rest = line[at:]
        if rest.startswith(","):
            at += 1
        elif rest[:1] in (" ", "\t"):
            return sources, expires, rest.strip(" \t")
        else:
            raise _Problem(f"the option {name} is incomplete, or no key follows it")


def _value(name: str, value: str | None) -> str:
    if value is None:
        raise _Problem(f'the option {name} needs a value in quotes: {name}="…"')
    return value.replace('\\"', '"')


def _moment(text: str) -> datetime:
    """``YYYYMMDD[HHMM[SS]][Z]``; in this machine's time zone where there is no Z."""
    digits = text.removesuffix("Z")
    try:
        if not re.fullmatch("[0-9]+", digits):
            raise ValueError
        moment = datetime.strptime(digits, _TIMES[len(digits)])
    except (KeyError, ValueError) as error:
        raise _Problem(f"invalid expiry-time {text!r}: write it like YYYYMMDD[HHMM[SS]][Z]") from error
    return (moment.replace(tzinfo=timezone.utc) if text.endswith("Z") else moment).astimezone(timezone.utc)


def _sources(text: str) -> tuple[str, ...]:
    """The entries of ``from=``. Raises _Problem."""
    entries = tuple(part.strip().lower() for part in text.split(","))
    for entry in entries:
        _check_source(entry.removeprefix("!"))
    return entries


def _check_source(part: str) -> None:
    """Raises _Problem unless it is an address, a network, or an address with wildcards.

    Names are not accepted: the owner of an address decides which name it has.
    """
    if "*" in part or "?" in part:
        if _V4_PATTERN.fullmatch(part) or (":" in part and _V6_PATTERN.fullmatch(part)):
            return
    elif address_of(part) is not None:
        return
    elif "/" in part:
        try:
            parse_network(part)
        except ValueError as error:
            raise _Problem(f"option from: {error}") from error
        return
    raise _Problem(f"option from: {part!r} is not an IP address or a network; host names are not supported")


def matches_source(sources: Sequence[str], source: str) -> bool:
    """Whether ``from=`` with these entries allows the address ``source``, as in sshd.

    One entry has to match, and none that begins with ``!`` may. An empty list matches no address.
    """
    address = address_of(source)
    if address is None:
        return False
    is_listed = False
    for entry in sources:
        pattern = entry.removeprefix("!")
        if "*" in pattern or "?" in pattern:
            matches = re.fullmatch(_wild(pattern), str(address)) is not None
        else:
            matches = is_within(address, parse_network(_plain(pattern)))
        if matches and entry.startswith("!"):
            return False
        is_listed = is_listed or matches
    return is_listed


def _wild(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def _plain(pattern: str) -> str:
    """The entry; an IPv4-mapped address, or one with a scope, in its plain form."""
    address = address_of(pattern)
    return pattern if address is None else str(address)
