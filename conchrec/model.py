"""The vocabulary that every layer shares: frozen values, no behaviour beyond printing themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from conchrec.provenance import NOTHING_KNOWN, Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A host and port as the user asked for it.

    ``host`` is a lower-case name or a bare IP address (no brackets); ``port`` is 1..65535.
    """

    host: str
    port: int = 22

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a user has proved to be.

    ``method`` is the SSH authentication method (``publickey``, ``keyboard-interactive``).
    ``key`` is the wire blob of the plain public key that was proved, empty without one;
    ``certificate`` the wire blob of the certificate, where one was used. ``expires`` ends the
    identity (a certificate's validity, an ``expiry-time`` option); ``pinned``: it is not good from everywhere
    (``source-address``, ``from``). ``force_command`` is what runs whatever is asked for, empty without one.
    ``second_factor`` is what was proved besides: ``totp``, ``sk`` (a touch of a hardware key), or nothing.
    ``withheld`` are the extensions (``permit-pty`` …) that the certificate would need for what it does not
    permit; empty without a certificate.
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
    #: It follows from the certificate.
    withheld: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def by_certificate(self) -> bool:
        return self.certificate is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """The facts of one session channel, known when it opens.

    ``sid`` names the recording and sorts by time; ``cid`` is the user's connection; ``address`` the
    user's own address and port as text; ``started`` is aware, in UTC.
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
