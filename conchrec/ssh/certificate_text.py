"""A certificate as people read it: the lines of ``ssh-keygen -L``, with times in UTC.

What is in it may have been written by anybody: the lines are to be escaped before a terminal gets them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone

from conchrec.errors import RemoteViolation
from conchrec.ssh.certificate import FOREVER, Certificate, fingerprint, key_type_of, option_text, plain_type
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
    """Its fields, a line each; what has several values has a line for each, further in."""
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
    yield f"{name}: " if values else f"{name}: (none)"
    yield from (" " * 8 + value for value in values)


def _option_lines(
    options: Mapping[str, bytes], *, texts: tuple[str, ...], flags: tuple[str, ...]
) -> Iterator[str]:
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
    try:
        return option_text(value)
    except RemoteViolation:
        return None


def _format_validity(after: int, before: int) -> str:
    if before == FOREVER:
        return f"after {_format_time(after)}" if after else "forever"
    return (
        f"from {_format_time(after)} to {_format_time(before)}" if after else f"before {_format_time(before)}"
    )


def _format_time(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return f"{seconds} seconds after 1970"


def _short_type(blob: bytes) -> str:
    try:
        return short_key_type(key_type_of(blob))
    except RemoteViolation:
        return "UNKNOWN"


def short_key_type(key_type: bytes) -> str:
    """The name of a key type in the output of ssh-keygen: ``ED25519``, ``ECDSA-SK`` …"""
    words = one_line(key_type.partition(b"@")[0], 64).split("-")
    name = next((word for word in words if word not in ("sk", "ssh")), "unknown").upper()
    return f"{name}-SK" if words[0] == "sk" else name


def _signature_type(certificate: Certificate) -> str:
    try:
        return one_line(key_type_of(certificate.signature), 64)
    except RemoteViolation:
        return "unknown"
