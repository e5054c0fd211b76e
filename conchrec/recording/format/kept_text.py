"""Foreign bytes as text that a header, a manifest or the audit holds: of a bounded size, and never lossy in
silence.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from conchrec.text import decode_text

#: A command line or a subsystem's name, in bytes.
COMMAND_MOST = 16 * 1024
#: One environment variable's value, and all of a session together, in bytes.
VARIABLE_MOST = 4 * 1024
VARIABLES_MOST = 16 * 1024
#: Names of variables, and of terminals.
NAME_MOST = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptText:
    """``text`` are the first bytes, decoded; what is not UTF-8 is written as ``\\xNN``.

    ``size`` counts the original bytes. ``sha256`` is their digest (hexadecimal) where ``text`` alone does not
    give them back: because it was cut, or was not UTF-8. Else it is empty.
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
