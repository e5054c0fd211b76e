"""Bytes from outside as text for a header, a manifest or the audit log: of a limited size, and never
shortened unnoticed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from conchrec.text import decode_text

#: The most bytes of a command line or of a subsystem's name.
COMMAND_MOST = 16 * 1024
#: The most bytes of the value of one environment variable, and of all of a session.
VARIABLE_MOST = 4 * 1024
VARIABLES_MOST = 16 * 1024
#: The most bytes of the name of a variable or a terminal.
NAME_MOST = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptText:
    """The first bytes, decoded, in ``text``; bytes that are not UTF-8 are written as ``\\xNN``.

    ``size`` counts the original bytes. ``sha256`` is their digest in hexadecimal where ``text`` was cut or is
    not the exact text; else it is empty.
    """

    text: str
    size: int
    sha256: str = ""
    is_cut: bool = False


def keep(data: bytes, most: int) -> KeptText:
    """Keep at most ``most`` bytes of ``data``."""
    is_cut = len(data) > most
    head = data[:most]
    try:
        text = head.decode("utf-8")
        exact = not is_cut
    except UnicodeDecodeError:
        text = decode_text(head)
        exact = False
    digest = "" if exact else hashlib.sha256(data).hexdigest()
    return KeptText(text=text, size=len(data), sha256=digest, is_cut=is_cut)
