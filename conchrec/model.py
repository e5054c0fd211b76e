"""The values that every layer shares: targets, identities and sessions, and the text form of addresses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from conchrec.provenance import NOTHING_KNOWN, Provenance

#: The longest name that DNS allows.
MAX_HOST = 255
MAX_PORT = 65535
_HOST = re.compile(r"[A-Za-z0-9_:.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A host and port as the user requested it.

    ``host`` is a lower-case name or a bare IP address (no brackets); ``port`` is 1..65535.
    """

    host: str
    port: int = 22

    def __str__(self) -> str:
        return host_and_port(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A user who has logged in, and how.

    - ``method``: the SSH authentication method (``publickey``, ``keyboard-interactive``).
    - ``key``: the wire blob of the plain public key, empty without one.
    - ``certificate``: the wire blob of the certificate, if one was used.
    - ``expires``: when the identity ends (the validity of a certificate, an ``expiry-time`` option).
    - ``pinned``: the key or certificate is limited to some addresses (``source-address``, ``from``).
    - ``force_command``: the command that runs in place of any other, empty without one.
    - ``second_factor``: ``totp``, ``sk`` (a touch of a hardware key), or empty.
    - ``withheld``: the extensions (``permit-pty`` …) that the certificate lacks; empty without one.
    """

    user: str
    method: str
    roles: tuple[str, ...] = ()
    key: bytes = b""
    certificate: bytes | None = None
    expires: datetime | None = None
    pinned: bool = False
    force_command: str = ""
    second_factor: str = ""
    #: Not compared, because it follows from the certificate.
    withheld: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def by_certificate(self) -> bool:
        """Whether the user logged in with a certificate."""
        return self.certificate is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """The facts about a session channel that are known when it opens.

    ``sid`` is the id of the recording and sorts by time, ``cid`` that of the user's connection; ``address``
    is the user's own address and port as text; ``started`` is aware, in UTC.
    """

    sid: str
    cid: str
    user: str
    login: str
    target: Target
    address: str
    started: datetime
    roles: tuple[str, ...] = ()
    provenance: Provenance = NOTHING_KNOWN


def host_and_port(host: str, port: int) -> str:
    """``192.0.2.1:22``, ``[2001:db8::1]:22``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_host_and_port(text: str) -> Target | None:
    """The target of ``host``, ``host:port``, ``[v6]:port`` or ``v6``, with port 22 by default; else None."""
    host, port = text, "22"
    if bracketed := re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]+))?", text):
        host, port = bracketed[1], bracketed[2] or "22"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not _HOST.fullmatch(host) or not is_port(port):
        return None
    return Target(host=host.lower(), port=int(port))


def named_target(host: str, port: str) -> Target | None:
    """The target that a user names: a name or an address, with or without brackets and a final dot.

    None where it is invalid.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host.isascii() or not 0 < len(bare) <= MAX_HOST:
        return None
    target = parse_host_and_port(f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}")
    return None if target is None else Target(host=target.host.rstrip(".") or target.host, port=target.port)


def is_port(text: str, *, least: int = 1) -> bool:
    """Whether the text is the number of a port, from ``least`` on."""
    return re.fullmatch("[0-9]{1,5}", text) is not None and least <= int(text) <= MAX_PORT
