"""Checks the host keys of targets.

A target is trusted by a host certificate of a trusted CA that names it, or else by a line in known_hosts
(sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). For a certificate of an unknown CA, the plain key in it is looked
up in known_hosts. The check is synchronous, because all trusted keys are in memory.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from twisted.logger import Logger

from conchrec.errors import CertificateRejected, HostKeyRejected, RemoteViolation, without_traceback
from conchrec.model import Target
from conchrec.reasons import ReasonCode
from conchrec.ssh.certificate import CERTIFICATE, Certificate, decode, fingerprint, key_type_of
from conchrec.ssh.certificate_checks import check_host
from conchrec.ssh.certificate_text import short_key_type
from conchrec.ssh.known_hosts import KnownHost, KnownHosts
from conchrec.text import one_line, quote

_log = Logger()

_RSA = (b"rsa-sha2-512", b"rsa-sha2-256")
#: The accepted host key algorithms, strongest first. Certificates have the same names with a suffix.
PLAIN = (
    b"ssh-ed25519",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    *_RSA,
)
#: The algorithms for older targets, with SHA-1.
OLD = (b"ssh-rsa", b"ssh-dss")
CERTIFIED = tuple(name + CERTIFICATE for name in PLAIN)
#: The maximum length of a certificate's key id in texts, in characters. The target has chosen it.
MAX_KEY_ID = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedHostKey:
    """Why a host key was accepted.

    ``checked`` is False if the check is turned off and nothing confirms the key.
    """

    trust: str
    fingerprint: str
    algorithm: str
    checked: bool = True


class HostTrust:
    """The trusted host keys of targets.

    ``authorities`` are the wire blobs of the trusted CAs. ``revoked`` is called with each plain key, and
    with its certificate if it has one. ``check`` is False for ``proxy_checks_host_keys: no``.
    """

    def __init__(
        self,
        known_hosts: KnownHosts,
        *,
        authorities: Sequence[bytes],
        check: bool = True,
        revoked: Callable[[bytes, Certificate | None], bool] = lambda key, certificate: False,
    ) -> None:
        self._known = known_hosts
        self._revoked = revoked
        self._authorities = tuple(authorities)
        self._check = check

    def algorithms_for(self, target: Target, *, sha1: bool = False) -> tuple[bytes, ...]:
        """Return the host key algorithms to offer to a target, in order.

        Algorithms of trusted keys come first. Otherwise a target with one RSA line in known_hosts would
        present its Ed25519 key, which would look like a changed key. With ``sha1`` the algorithms for old
        hosts are included.
        """
        lines = self._known.lines_for(target)
        plain = (*PLAIN, *OLD) if sha1 else PLAIN
        pinned = {key_type_of(line.key) for line in lines if not line.marker}
        known = tuple(name for name in plain if (b"ssh-rsa" if name in _RSA else name) in pinned)
        ours = tuple(name + CERTIFICATE for name in known if name not in OLD)
        return tuple(dict.fromkeys((*ours, *known, *CERTIFIED, *plain)))

    def verify(self, target: Target, blob: bytes, now: datetime) -> AcceptedHostKey:
        """Check the key or certificate that the target presents. Raises HostKeyRejected."""
        lines = self._known.lines_for(target)
        rejected: CertificateRejected | None = None
        try:
            algorithm = key_type_of(blob)
            plain, certificate = blob, None
            if algorithm.endswith(CERTIFICATE):
                certificate = decode(blob)
                plain = certificate.public_key
        except RemoteViolation as error:
            malformed = f"{target} presented a malformed host key: {error.public}"
            raise HostKeyRejected(malformed, code=ReasonCode.HOST_KEY_MALFORMED) from error
        shown = fingerprint(plain)
        authority = certificate.authority if certificate is not None else b""
        for line in lines:
            if line.marker == "revoked" and line.key in (plain, authority):
                raise HostKeyRejected(
                    f"the host key of {target} is revoked ({shown}, {line.location})."
                    " Ask your administrator to replace it",
                    f"revoked at {line.location}",
                    code=ReasonCode.HOST_KEY_REVOKED,
                )
        if self._revoked(plain, certificate):
            raise HostKeyRejected(
                f"the host key of {target} is revoked ({shown}). Ask your administrator to replace it",
                "revoked by this proxy",
                code=ReasonCode.HOST_KEY_REVOKED,
            )
        if certificate is not None:
            try:
                trust = self._check_certificate(target, certificate, lines, now)
                return AcceptedHostKey(trust=trust, fingerprint=shown, algorithm=algorithm.decode())
            except CertificateRejected as error:
                rejected = without_traceback(error)
        known = [line for line in lines if not line.marker]
        for line in known:
            if hmac.compare_digest(line.key, plain):
                return AcceptedHostKey(
                    trust=f"known_hosts {line.location}", fingerprint=shown, algorithm=algorithm.decode()
                )
        if not self._check:
            return AcceptedHostKey(
                trust="not checked (proxy_checks_host_keys: no)",
                fingerprint=shown,
                algorithm=one_line(algorithm, 64),
                checked=False,
            )
        raise _rejection(target, plain, shown, known, rejected, certificate)

    def _check_certificate(
        self, target: Target, certificate: Certificate, lines: Sequence[KnownHost], now: datetime
    ) -> str:
        """Check a host certificate, and return the text that names its CA. Raises CertificateRejected."""
        named = {line.key: line for line in lines if line.marker == "cert-authority"}
        check_host(certificate, authorities=(*self._authorities, *named), name=target.host, now=now)
        if certificate.authority in self._authorities:
            authority = fingerprint(certificate.authority)
        else:
            authority = f"the authority at {named[certificate.authority].location}"
        return f"certificate {quote(certificate.key_id, MAX_KEY_ID)} by {authority}"


def _rejection(
    target: Target,
    plain: bytes,
    shown: str,
    known: Sequence[KnownHost],
    rejected: CertificateRejected | None,
    certificate: Certificate | None,
) -> HostKeyRejected:
    """Return the error for a host key that nothing confirms."""
    same_type = [line for line in known if key_type_of(line.key) == key_type_of(plain)]
    if known:
        line = (same_type or list(known))[0]
        return HostKeyRejected(
            f"the host key of {target} has changed: it presented {shown}, but {line.location} has"
            f" {fingerprint(line.key)}. Somebody may be intercepting the connection. If the key was replaced"
            " on purpose, ask your administrator to correct that line",
            f"{shown} is not at {line.location}",
            code=ReasonCode.HOST_KEY_CHANGED,
        )
    if certificate is not None and rejected is not None:
        return HostKeyRejected(
            f"{target} presented a host certificate that is not accepted:"
            f" {rejected.public.rpartition(': ')[2]}. Ask your administrator to sign a new one:"
            f" conchrec ca sign-host --host {target.host}",
            f"key id {quote(certificate.key_id, MAX_KEY_ID)}",
            code=ReasonCode.HOST_CERTIFICATE_REJECTED,
        )
    return HostKeyRejected(
        f"{target} presented a public key, expected a host certificate (ssh: handshake failed: remote host"
        " presented a public key, expected a host certificate). Ask your administrator to sign its host key"
        f" ({short_key_type(key_type_of(plain))} {shown}) or to add it to known_hosts. To sign it:"
        f" conchrec ca sign-host --host {target.host}",
        f"{shown} is in no known_hosts",
        code=ReasonCode.HOST_KEY_UNKNOWN,
    )
