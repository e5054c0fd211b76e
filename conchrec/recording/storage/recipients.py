"""Who may read what is encrypted, and the keys to it: age's own, or those of SSH. Pure; no files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Identities: TypeAlias = Sequence[object]
"""Private keys, as ``pyrage`` has them."""


def recipient(text: str) -> object:
    """Who may read: ``age1…`` or an SSH public key (ed25519 or RSA). ValueError where it is neither."""
    import pyrage

    try:
        if text.startswith("age1"):
            return pyrage.x25519.Recipient.from_str(text)
        return pyrage.ssh.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise ValueError(str(error)) from error


def identities(text: bytes) -> Identities:
    """The private keys of a file: of ``age-keygen``, or one of OpenSSH without a passphrase. ValueError."""
    import pyrage

    try:
        if b"PRIVATE KEY-----" in text:
            return (pyrage.ssh.Identity.from_buffer(text),)
        found = tuple(
            pyrage.x25519.Identity.from_str(line.strip())
            for line in text.decode("ascii").splitlines()
            if line.strip() and not line.startswith("#")
        )
    except (pyrage.IdentityError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    if not found:
        raise ValueError("the file has no key")
    return found
