"""Turns credentials into an Identity, or rejects them. Pure: time and the user's address are arguments.

Signatures are verified elsewhere: here the *offer* of a key gets the same answer as its proof, and changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone

from conchrec.access.authorized_keys import AuthorizedKey, check_plain_key, matches_source
from conchrec.access.certificate_grant import PROXY_ONLY
from conchrec.access.certificate_permits import withheld
from conchrec.ca.revocation import Revoked
from conchrec.errors import AccessDenied, CertificateRejected, RemoteViolation
from conchrec.model import Identity
from conchrec.reasons import ReasonCode
from conchrec.ssh.certificate import (
    Certificate,
    certificate_type,
    decode,
    fingerprint,
    key_type_of,
    option_text,
    plain_type,
)
from conchrec.ssh.certificate_checks import check_user
from conchrec.text import one_line, quote

__all__ = ["Credentials", "Locked", "fingerprint"]

FORCE_COMMAND = "force-command"

#: The public key algorithms with which an RSA key may be used. ``ssh-rsa`` is SHA-1.
_RSA = (b"rsa-sha2-512", b"rsa-sha2-256")


class Locked(AccessDenied):
    """The credential is valid, but the user is locked; ``detail`` says so, for the user."""

    default_code = ReasonCode.USER_LOCKED


class Credentials:
    """The users, and the credentials with which they may log in.

    ``users`` has all users with their keys (maybe none), ``roles`` their roles. ``authorities`` returns the
    wire blobs of the CAs whose user certificates are accepted, ``revoked`` what is revoked, and ``locked``
    why a user is locked (empty: not locked). ``passwords`` are the users who have a password.
    """

    def __init__(
        self,
        *,
        users: Mapping[str, Sequence[AuthorizedKey]],
        authorities: Callable[[], Collection[bytes]],
        roles: Mapping[str, tuple[str, ...]] | None = None,
        revoked: Callable[[], Revoked] = Revoked,
        locked: Callable[[str], str] = lambda user: "",
        passwords: Collection[str] = (),
    ) -> None:
        self._users = users
        self._roles = roles or {}
        self._authorities = authorities
        self._revoked = revoked
        self._locked = locked
        self._passwords = passwords

    def identity(self, user: str, algorithm: bytes, blob: bytes, source: str, now: datetime) -> Identity:
        """The identity of ``user`` with this key or certificate, from the address ``source``.

        ``algorithm`` is the public key algorithm of the request. Raises AccessDenied, whose public text is
        always the same; Locked where only a lock forbids the login.
        """
        identity = self._unlocked(user, algorithm, blob, source, now)
        self._check_lock(user)
        return identity

    def _unlocked(self, user: str, algorithm: bytes, blob: bytes, source: str, now: datetime) -> Identity:
        try:
            key_type = key_type_of(blob)
            _check_algorithm(algorithm, key_type)
            if user not in self._users:
                raise _denied(ReasonCode.USER_UNKNOWN, "no such user")
            is_certificate = plain_type(key_type) != key_type
            identity = (self._by_certificate if is_certificate else self._by_key)(user, blob, source, now)
            self._check_not_revoked(identity)
            return identity
        except CertificateRejected as error:
            raise _denied(error.code, error.detail or error.public) from error
        except RemoteViolation as error:
            raise _denied(ReasonCode.KEY_MALFORMED, f"malformed key: {error.public}") from error

    def lists(self, user: str, key: bytes) -> bool:
        """Whether this is one of the user's keys in the configuration."""
        return any(line.blob == key for line in self._users.get(user, ()))

    def by_password(self, user: str) -> Identity:
        """The identity of a user whose password was verified. Raises AccessDenied and Locked."""
        if user not in self._users or user not in self._passwords:
            raise _denied(ReasonCode.USER_UNKNOWN, "no such user, or the user no longer has a password")
        identity = Identity(user=user, method="keyboard-interactive", roles=self._roles.get(user, ()))
        self._check_not_revoked(identity)
        self._check_lock(user)
        return identity

    def renewed_identity(self, identity: Identity, source: str, now: datetime) -> Identity:
        """The identity that a logged-in user would get now with the same credential, with the current roles.

        Called after a reload. Raises AccessDenied, whose public text says why the connection must end.
        """
        user = identity.user
        if revoked := self._revoked().why(identity):
            raise AccessDenied(revoked, code=revoked.code)
        if user not in self._users:
            raise AccessDenied(
                f"the user {user} was removed from the configuration", code=ReasonCode.USER_REMOVED
            )
        if identity.certificate is not None:
            current = self._again(self._by_certificate, identity, identity.certificate, source, now)
        elif identity.key:
            current = self._again(self._by_key, identity, identity.key, source, now)
        elif user not in self._passwords:
            raise AccessDenied(f"the password of {user} was removed", code=ReasonCode.PASSWORD_REMOVED)
        else:
            current = replace(identity, roles=self._roles.get(user, ()))
        if locked := self._locked(user):
            raise AccessDenied(locked, code=ReasonCode.USER_LOCKED)
        return replace(current, method=identity.method, second_factor=identity.second_factor)

    def _again(
        self,
        check: Callable[[str, bytes, str, datetime], Identity],
        identity: Identity,
        blob: bytes,
        source: str,
        now: datetime,
    ) -> Identity:
        try:
            return check(identity.user, blob, source, now)
        except (AccessDenied, RemoteViolation) as error:
            kind = "certificate" if identity.by_certificate else "key"
            raise AccessDenied(
                f"your {kind} is no longer accepted: {error.detail or error.public}",
                code=ReasonCode.CREDENTIAL_INVALID,
            ) from error

    def _check_not_revoked(self, identity: Identity) -> None:
        if revoked := self._revoked().why(identity):
            raise _denied(revoked.code, revoked)

    def _check_lock(self, user: str) -> None:
        if locked := self._locked(user):
            raise Locked("Permission denied", locked)

    def acceptable(self, user: str, algorithm: bytes, blob: bytes, source: str, now: datetime) -> bool:
        """Whether ``identity`` would succeed without a lock. Never raises.

        An offer proves nothing: only a user who has signed reads about the lock.
        """
        try:
            self._unlocked(user, algorithm, blob, source, now)
        except AccessDenied:
            return False
        return True

    def identity_of_inner_login(
        self, identity: Identity, algorithm: bytes, blob: bytes, source: str, now: datetime
    ) -> Identity | None:
        """The identity of an inner login by the same user; None where the credential is not the user's.

        The user name of the inner connection does not count: it is the login at the target. Never raises.
        """
        try:
            inner = self.identity(identity.user, algorithm, blob, source, now)
        except AccessDenied:
            return None
        # The inner login must not lose a force-command of the outer one.
        return inner if inner.force_command == identity.force_command else None

    def _by_key(self, user: str, blob: bytes, source: str, now: datetime) -> Identity:
        lines = [line for line in self._users[user] if line.blob == blob]
        if not lines:
            raise _denied(ReasonCode.KEY_UNKNOWN, f"{fingerprint(blob)} is not a key of {user}")
        lines = [line for line in lines if line.expires is None or now < line.expires]
        if not lines:
            raise _denied(ReasonCode.KEY_EXPIRED, f"{fingerprint(blob)} of {user} has expired (expiry-time)")
        lines = [line for line in lines if line.sources is None or matches_source(line.sources, source)]
        if not lines:
            detail = f"{fingerprint(blob)} of {user} cannot be used from {source} (option from)"
            raise _denied(ReasonCode.KEY_SOURCE_NOT_ALLOWED, detail)
        return Identity(
            user=user,
            method="publickey",
            roles=self._roles.get(user, ()),
            key=blob,
            expires=_latest(lines),
            pinned=any(line.sources is not None for line in lines),
        )

    def _by_certificate(self, user: str, blob: bytes, source: str, now: datetime) -> Identity:
        certificate = decode(blob)
        try:
            check_plain_key(plain_type(certificate.algorithm), certificate.public_key)
        except ValueError as error:
            raise _denied(ReasonCode.KEY_UNUSABLE, f"key in the certificate: {error}") from error
        check_user(
            certificate,
            authorities=self._authorities(),
            now=now,
            source=source,
            revoked=self._revoked().has,
            known_options=(PROXY_ONLY, FORCE_COMMAND),
        )
        if certificate.key_id != user:
            detail = f"the certificate names the user {quote(certificate.key_id, 64)}, not {user}"
            raise _denied(ReasonCode.CERTIFICATE_OF_OTHER_USER, detail)
        return Identity(
            user=user,
            method="publickey",
            roles=self._roles.get(user, ()),
            key=certificate.public_key,
            certificate=blob,
            expires=certificate.expires,
            pinned="source-address" in certificate.critical_options,
            force_command=_force_command(certificate),
            withheld=withheld(certificate.extensions.keys()),
        )


def _force_command(certificate: Certificate) -> str:
    """The command that the certificate forces; empty without one. Raises AccessDenied for an empty one."""
    if FORCE_COMMAND not in certificate.critical_options:
        return ""
    command = option_text(certificate.critical_options[FORCE_COMMAND])
    if not command.strip():
        raise _denied(ReasonCode.FORCE_COMMAND_EMPTY, "the force-command of the certificate is empty")
    return command


def _check_algorithm(algorithm: bytes, key_type: bytes) -> None:
    plain = plain_type(key_type)
    algorithms: tuple[bytes, ...] = _RSA if plain == b"ssh-rsa" else (plain,)
    if plain != key_type:
        algorithms = tuple(map(certificate_type, algorithms))
    if algorithm not in algorithms:
        detail = f"the algorithm {one_line(algorithm, 64)} does not match a {one_line(key_type, 64)} key"
        raise _denied(ReasonCode.KEY_ALGORITHM_MISMATCH, detail)


def _latest(lines: Sequence[AuthorizedKey]) -> datetime | None:
    if any(line.expires is None for line in lines):
        return None
    return max(line.expires or datetime.min.replace(tzinfo=timezone.utc) for line in lines)


def _denied(code: ReasonCode, detail: str) -> AccessDenied:
    return AccessDenied("Permission denied", detail, code=code)
