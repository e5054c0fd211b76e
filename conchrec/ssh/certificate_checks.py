"""Checks whether a certificate is accepted, and for whom (PROTOCOL.certkeys).

``cryptography`` does not check these rules. The checks are: type, authority, signature, validity period,
principals, revocation and critical options.
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
    """Return False: the default where nothing is revoked."""
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
    """Check that a user certificate is valid for a login from the address ``source``.

    The caller checks the principals. ``known_options`` are the critical options that the caller enforces.
    ``verify-required`` is enforced where the signature of the login is verified. Raises
    CertificateRejected.
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
    """Check that a host certificate is valid for the host ``name``.

    ``name`` is a host name in lower case, or an address, without a port. Principals are compared exactly; a
    certificate without principals matches no host. Raises CertificateRejected.
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
    """Make the checks that user and host certificates share."""
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
        # A certificate instead of the CA's plain key (CVE-2025-49825).
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
    """Return whether a principal is the host ``name``; addresses are compared by value."""
    if principal.lower() == name.lower():
        return True
    try:
        return ipaddress.ip_address(principal) == ipaddress.ip_address(name)
    except ValueError:
        return False


def _is_source_allowed(value: bytes, source: str) -> bool:
    """Return whether the option ``source-address`` contains the address ``source``.

    Its value is a list of CIDR networks, separated by commas.
    """
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
    """Return the error for a certificate that is not accepted."""
    return CertificateRejected(f"the certificate is not accepted: {problem}", code=code)
