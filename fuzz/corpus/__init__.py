"""Keys, certificates and signatures of each type, made once by ssh-keygen, so that a seed means the same
inputs everywhere. Nobody has their private keys any more."""

from __future__ import annotations

import base64
from pathlib import Path


def certificates() -> list[bytes]:
    """Blobs: user certificates, and the fourth for a host."""
    return _lines("certificates")


def signatures() -> list[bytes]:
    """``string algorithm, string key or certificate, string data, string signature``, all of them good."""
    return _lines("signatures")


def _lines(name: str) -> list[bytes]:
    text = (Path(__file__).parent / name).read_bytes()
    return [base64.b64decode(line) for line in text.split()]
