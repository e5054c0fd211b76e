"""Formats a certificate for people: the lines that ``ssh-keygen -L`` prints, with times in UTC.

The values can contain any characters: escape the lines before you print them to a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone

from conchrec.errors import RemoteViolation
from conchrec.ssh.certificate import (
    FOREVER,
    KEY_TYPES,
    Certificate,
    fingerprint,
    key_type_of,
    option_text,
    plain_type,
)
from conchrec.text import one_line

_TEXT_OPTIONS = ("force-command", "source-address")
_FLAG_OPTIONS = ("verify-required",)
_FLAG_EXTENSIONS = (
    "no-touch-required",
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
)


def listing(certificate: Certificate) -> tuple[str, ...]:
    """Return the fields of a certificate, one per line.

    Several values of one field are indented below its name.
    """
    c = certificate
    kind = c.kind.name.lower()
    options = tuple(_option_lines(c.critical_options, texts=_TEXT_OPTIONS, flags=_FLAG_OPTIONS))
    extensions = tuple(_option_lines(c.extensions, texts=(), flags=_FLAG_EXTENSIONS))
    lines = [
        f"Type: {c.algorithm.decode()} {kind} certificate",
        f"Public key: {short_key_type(plain_type(c.algorithm))}-CERT {fingerprint(c.public_key)}",
        f"Signing CA: {_short_type(c.authority)} {fingerprint(c.authority)} (using {_signature_type(c)})",
        f'Key ID: "{c.key_id}"',
        f"Serial: {c.serial}",
        f"Valid: {_format_validity(c.valid_after, c.valid_before)}",
        *_list_lines("Principals", c.principals),
        *_list_lines("Critical Options", options),
        *_list_lines("Extensions", extensions),
    ]
    return tuple(" " * 8 + line for line in lines)


def _list_lines(name: str, values: tuple[str, ...]) -> Iterator[str]:
    """Yield a field with several values: its name, then one indented line for each value."""
    yield f"{name}: " if values else f"{name}: (none)"
    yield from (" " * 8 + value for value in values)


def _option_lines(
    options: Mapping[str, bytes], *, texts: tuple[str, ...], flags: tuple[str, ...]
) -> Iterator[str]:
    """Yield a line for each option. Options outside of ``texts`` and ``flags`` are marked as unknown."""
    for name, value in options.items():
        if name in flags and not value:
            yield name
        elif name in texts and (text := _option_value(value)) is not None:
            yield f"{name} {text}"
        elif not value:
            yield f"{name} UNKNOWN FLAG OPTION"
        else:
            yield f"{name} UNKNOWN OPTION: {value.hex()} (len {len(value)})"


def _option_value(value: bytes) -> str | None:
    """Return the string in the value of an option, or None if the value is not a string."""
    try:
        return option_text(value)
    except RemoteViolation:
        return None


def _format_validity(after: int, before: int) -> str:
    """Format a validity period in the words of ssh-keygen."""
    if before == FOREVER:
        return f"after {_format_time(after)}" if after else "forever"
    return (
        f"from {_format_time(after)} to {_format_time(before)}" if after else f"before {_format_time(before)}"
    )


def _format_time(seconds: int) -> str:
    """Format seconds since 1970 as a UTC time."""
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return f"{seconds} seconds after 1970"


def _short_type(blob: bytes) -> str:
    """Return the short key type of a key blob, or ``UNKNOWN`` if it is malformed."""
    try:
        return short_key_type(key_type_of(blob))
    except RemoteViolation:
        return "UNKNOWN"


def short_key_type(key_type: bytes) -> str:
    """Return a key type as ssh-keygen prints it: ``ED25519``, ``ECDSA-SK`` …

    The type is the word of the peer that presents the key, so one that we do not know is ``unknown``.
    """
    if key_type not in KEY_TYPES:
        return "unknown"
    words = one_line(key_type.partition(b"@")[0], 64).split("-")
    name = next((word for word in words if word not in ("sk", "ssh")), "unknown").upper()
    return f"{name}-SK" if words[0] == "sk" else name


def _signature_type(certificate: Certificate) -> str:
    """Return the algorithm of the certificate's signature."""
    try:
        return one_line(key_type_of(certificate.signature), 64)
    except RemoteViolation:
        return "unknown"
