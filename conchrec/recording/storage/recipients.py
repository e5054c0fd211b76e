"""The recipients of encrypted recordings, and their private keys: those of age, or those of SSH. Opens no
files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Identities: TypeAlias = Sequence[object]
"""Private keys: objects of ``pyrage``."""


def parse_recipient(text: str) -> object:
    """Read a recipient: ``age1…`` or an SSH public key (ed25519 or RSA). Raises ValueError."""
    import pyrage

    try:
        if text.startswith("age1"):
            return pyrage.x25519.Recipient.from_str(text)
        return pyrage.ssh.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise ValueError(str(error)) from error


def parse_identities(text: bytes) -> Identities:
    """Read the private keys of a file of ``age-keygen``, or one key of OpenSSH without a passphrase. Raises
    ValueError."""
    import pyrage

    try:
        if b"PRIVATE KEY-----" in text:
            return (pyrage.ssh.Identity.from_buffer(text),)
        keys = tuple(
            pyrage.x25519.Identity.from_str(line.strip())
            for line in text.decode("ascii").splitlines()
            if line.strip() and not line.startswith("#")
        )
    except (pyrage.IdentityError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    if not keys:
        raise ValueError("the file has no key")
    return keys
