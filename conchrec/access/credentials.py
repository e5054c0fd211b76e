"""Credentials become an Identity, or do not. Pure: the clock and the user's address are handed in.

Whether a signature is good is not asked here: an *offer* of a key gets the same answer as its proof,
and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone

from conchrec.access.authorized_keys import AuthorizedKey, check_plain_key, matches_source
from conchrec.access.certificate_contents import PROXY_ONLY
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

#: By which public key algorithms an RSA key may be used. ``ssh-rsa`` is SHA-1.
_RSA = (b"rsa-sha2-512", b"rsa-sha2-256")


class Locked(AccessDenied):
    """What was proved is good, and the user is locked; ``detail`` says so, for them to read."""

    default_code = ReasonCode.USER_LOCKED


class Credentials:
    """Who may log in with what.

    ``users`` are all that there are, each with the keys that are theirs (perhaps none); ``roles``
    their roles; ``authorities`` gives the wire blobs of the CAs whose user certificates count, and
    ``revoked`` what of all that counts no longer. ``locked`` says why a user must not log in now,
    ``passwords`` are the users who have one.
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
        """Who logs in as ``user`` with this key or certificate from the address ``source``.

        ``algorithm`` is the public key algorithm of the request. Raises AccessDenied, whose public
        text is always the same one; Locked where all else is good.
        """
        identity = self._unlocked(user, algorithm, blob, source, now)
        self._check_lock(user)
        return identity

    def _unlocked(self, user: str, algorithm: bytes, blob: bytes, source: str, now: datetime) -> Identity:
        try:
            key_type = key_type_of(blob)
            _check_algorithm(algorithm, key_type)
            if user not in self._users:
                raise _denied(ReasonCode.USER_UNKNOWN, "there is no such user")
            certified = plain_type(key_type) != key_type
            identity = (self._by_certificate if certified else self._by_key)(user, blob, source, now)
            self._check_not_revoked(identity)
            return identity
        except CertificateRejected as error:
            raise _denied(error.code, error.detail or error.public) from error
        except RemoteViolation as error:
            raise _denied(ReasonCode.KEY_MALFORMED, f"a malformed key: {error.public}") from error

    def lists(self, user: str, key: bytes) -> bool:
        """Is this one of the user's keys in the configuration?"""
        return any(line.blob == key for line in self._users.get(user, ()))

    def by_password(self, user: str) -> Identity:
        """Whoever has proved to know this user's password. Raises AccessDenied, Locked like ``identity``."""
        if user not in self._users or user not in self._passwords:
            raise _denied(ReasonCode.USER_UNKNOWN, "there is no such user, or no password any more")
        identity = Identity(user=user, method="keyboard-interactive", roles=self._roles.get(user, ()))
        self._check_not_revoked(identity)
        self._check_lock(user)
        return identity

    def still(self, identity: Identity, source: str, now: datetime) -> Identity:
        """Somebody who has logged in, as they would be if they came now with the same: with the roles of now,
        and all that binds them. Raises AccessDenied, whose public text says why they must go."""
        user = identity.user
        if revoked := self._revoked().why(identity):
            raise AccessDenied(revoked, code=revoked.code)
        if user not in self._users:
            raise AccessDenied(f"there is no user {user} any more", code=ReasonCode.USER_REMOVED)
        if identity.certificate is not None:
            now_is = self._again(self._by_certificate, identity, identity.certificate, source, now)
        elif identity.key:
            now_is = self._again(self._by_key, identity, identity.key, source, now)
        elif user not in self._passwords:
            raise AccessDenied(f"{user} has no password any more", code=ReasonCode.PASSWORD_REMOVED)
        else:
            now_is = replace(identity, roles=self._roles.get(user, ()))
        if locked := self._locked(user):
            raise AccessDenied(locked, code=ReasonCode.USER_LOCKED)
        return replace(now_is, method=identity.method, second_factor=identity.second_factor)

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
            what = "certificate" if identity.by_certificate else "key"
            raise AccessDenied(
                f"your {what} is not good any more: {error.detail or error.public}",
                code=ReasonCode.CREDENTIAL_INVALID,
            ) from error

    def _check_not_revoked(self, identity: Identity) -> None:
        if revoked := self._revoked().why(identity):
            raise _denied(revoked.code, revoked)

    def _check_lock(self, user: str) -> None:
        if locked := self._locked(user):
            raise Locked("Permission denied", locked)

    def acceptable(self, user: str, algorithm: bytes, blob: bytes, source: str, now: datetime) -> bool:
        """Would ``identity`` name one, were it not for a lock? Never raises.

        An offer proves nothing: who has signed is told of the lock.
        """
        try:
            self._unlocked(user, algorithm, blob, source, now)
        except AccessDenied:
            return False
        return True

    def own(
        self, identity: Identity, algorithm: bytes, blob: bytes, source: str, now: datetime
    ) -> Identity | None:
        """The very user who has logged in outside, by this key or certificate; None where it is not theirs.
        Never raises.

        The user name of the inner connection has no say: it is the login at the target.
        """
        try:
            inner = self.identity(identity.user, algorithm, blob, source, now)
        except AccessDenied:
            return None
        # What binds the one must not be lost in the other.
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
            detail = f"{fingerprint(blob)} of {user} is not for logins from {source} (from)"
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
            raise _denied(ReasonCode.KEY_UNUSABLE, f"the key in the certificate: {error}") from error
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
    """What its bearer is bound to. One that is empty, or no text, binds to nothing that could be run."""
    if FORCE_COMMAND not in certificate.critical_options:
        return ""
    command = option_text(certificate.critical_options[FORCE_COMMAND])
    if not command.strip():
        raise _denied(ReasonCode.FORCE_COMMAND_EMPTY, "the certificate's force-command is empty")
    return command


def _check_algorithm(algorithm: bytes, key_type: bytes) -> None:
    plain = plain_type(key_type)
    wanted: tuple[bytes, ...] = _RSA if plain == b"ssh-rsa" else (plain,)
    if plain != key_type:
        wanted = tuple(map(certificate_type, wanted))
    if algorithm not in wanted:
        detail = (
            f"the algorithm {one_line(algorithm, 64)} is not for a key of the type {one_line(key_type, 64)}"
        )
        raise _denied(ReasonCode.KEY_ALGORITHM_MISMATCH, detail)


def _latest(lines: Sequence[AuthorizedKey]) -> datetime | None:
    if any(line.expires is None for line in lines):
        return None
    return max(line.expires or datetime.min.replace(tzinfo=timezone.utc) for line in lines)


def _denied(code: ReasonCode, detail: str) -> AccessDenied:
    return AccessDenied("Permission denied", detail, code=code)
