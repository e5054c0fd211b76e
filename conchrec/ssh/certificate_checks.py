"""Which certificates are accepted, and for whom (PROTOCOL.certkeys).

``cryptography`` checks no policy; so each check has a place of its own here: type, authority, signature,
validity, principals, critical options.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection
from datetime import datetime

from conchrec.errors import CertificateRejected, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.certificate import (
    FOREVER,
    KEY_TYPES,
    Certificate,
    CertificateKind,
    is_valid_principal,
    key_type_of,
    option_text,
)
from conchrec.ssh.signatures import is_signed_by
from conchrec.text import quote

Revoked = Callable[[Certificate], bool]


def never_revoked(certificate: Certificate) -> bool:
    return False


def check_user(
    certificate: Certificate,
    *,
    authorities: Collection[bytes],
    now: datetime,
    source: str,
    revoked: Revoked = never_revoked,
    known_options: Collection[str] = (),
) -> None:
    """Is this a good user certificate for a login from ``source``? Who it is for, its caller asks.

    Raises CertificateRejected. ``verify-required`` is checked where the signature is
    (``requires_verification``). ``known_options`` are the critical options that the caller sees to.
    """
    _check(certificate, CertificateKind.USER, authorities, now, revoked)
    if not certificate.principals:
        raise _rejection(ReasonCode.CERTIFICATE_WITHOUT_PRINCIPAL, "it has no principal")
    for name, value in certificate.critical_options.items():
        if name == "source-address":
            if not _is_source_allowed(value, source):
                raise _rejection(
                    ReasonCode.CERTIFICATE_SOURCE_NOT_ALLOWED, f"it does not allow logins from {source}"
                )
        elif name != "verify-required" and name not in known_options:
            raise _rejection(
                ReasonCode.CERTIFICATE_OPTION_UNKNOWN,
                f"it has the unknown critical option {quote(name, 64)}",
            )


def check_host(
    certificate: Certificate,
    *,
    authorities: Collection[bytes],
    name: str,
    now: datetime,
    revoked: Revoked = never_revoked,
) -> None:
    """Is this a good certificate for the host ``name`` (lower case, or a bare address; no port)?

    Raises CertificateRejected. Principals are compared exactly: empty ones match no host here.
    """
    _check(certificate, CertificateKind.HOST, authorities, now, revoked)
    if certificate.critical_options:
        raise _rejection(
            ReasonCode.CERTIFICATE_OPTION_UNKNOWN, "a host certificate must not have critical options"
        )
    if not any(_is_same_host(principal, name) for principal in certificate.principals):
        names = ", ".join(certificate.principals[:4]) or "no host"
        raise _rejection(ReasonCode.CERTIFICATE_NAME_MISMATCH, f"it is for {names}, not for {name}")


def _check(
    certificate: Certificate,
    kind: CertificateKind,
    authorities: Collection[bytes],
    now: datetime,
    revoked: Revoked,
) -> None:
    if certificate.kind is not kind:
        raise _rejection(
            ReasonCode.CERTIFICATE_TYPE_WRONG,
            f"it is a {certificate.kind.name.lower()} certificate, not a {kind.name.lower()} certificate",
        )
    try:
        authority_type = key_type_of(certificate.authority)
    except RemoteViolation as error:
        raise _rejection(ReasonCode.CERTIFICATE_MALFORMED, "its CA key is malformed") from error
    if authority_type not in KEY_TYPES:
        # A certificate in the place of the authority's key (CVE-2025-49825).
        raise _rejection(ReasonCode.CERTIFICATE_MALFORMED, "its CA key is not a plain key")
    if certificate.authority not in authorities:
        raise _rejection(ReasonCode.CERTIFICATE_AUTHORITY_UNKNOWN, "its CA is not trusted")
    if not is_signed_by(certificate.authority, certificate.signed, certificate.signature):
        raise _rejection(ReasonCode.SIGNATURE_INVALID, "signature verification failed")
    seconds = now.timestamp()
    if seconds < certificate.valid_after:
        raise _rejection(ReasonCode.CERTIFICATE_NOT_YET_VALID, "it is not valid yet")
    if certificate.valid_before != FOREVER and seconds >= certificate.valid_before:
        raise _rejection(ReasonCode.CERTIFICATE_EXPIRED, "it has expired")
    if certificate.valid_after >= certificate.valid_before:
        raise _rejection(ReasonCode.VALIDITY_EMPTY, "its validity period is empty")
    if not all(map(is_valid_principal, certificate.principals)):
        raise _rejection(ReasonCode.CERTIFICATE_MALFORMED, "it has an invalid principal")
    if revoked(certificate):
        raise _rejection(ReasonCode.CERTIFICATE_REVOKED, "it is revoked")


def _is_same_host(principal: str, name: str) -> bool:
    if principal.lower() == name.lower():
        return True
    try:
        return ipaddress.ip_address(principal) == ipaddress.ip_address(name)
    except ValueError:
        return False


def _is_source_allowed(value: bytes, source: str) -> bool:
    """``source-address``: CIDR networks with commas between them."""
    try:
        address = ipaddress.ip_address(source)
        networks = [
            ipaddress.ip_network(network_text.strip(), strict=False)
            for network_text in option_text(value).split(",")
        ]
    except (ValueError, RemoteViolation):
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def _rejection(code: ReasonCode, problem: str) -> CertificateRejected:
    return CertificateRejected(f"the certificate is not accepted: {problem}", code=code)
