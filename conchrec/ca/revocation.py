"""Revoked certificates, keys and users. The file is in the state directory; every process obeys it at once.

A serial number or a key id revokes certificates of our authorities. A key is revoked alone and in
certificates. A user is revoked for every login by any method, and for certificates with that name as key id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from conchrec.model import Identity
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.certificate import KEY_TYPES, Certificate, blob_of, decode, public_line
from conchrec.ssh.krl import Krl, RevokedCertificates, encode
from conchrec.state.state_file import StateFile

_FILE = "revocations.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """Everything that is revoked. ``keys`` are wire blobs of plain keys.

    ``version`` counts the changes; ``changed`` is the time of the last one, in seconds since 1970.
    """

    version: int = 0
    changed: int = 0
    serials: frozenset[int] = frozenset()
    key_ids: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    keys: frozenset[bytes] = frozenset()

    def has(self, certificate: Certificate) -> bool:
        """Whether a certificate of our authorities is revoked. Its signature was verified before."""
        return (
            certificate.serial in self.serials
            or certificate.key_id in self.key_ids
            or certificate.key_id in self.users
            or certificate.public_key in self.keys
        )

    def why(self, identity: Identity) -> Reason | None:
        """The reason for which a logged-in user is revoked, for the user; None where they are not."""
        if identity.user in self.users:
            return Reason(ReasonCode.USER_REVOKED, f"the user {identity.user} has been revoked")
        if identity.key and identity.key in self.keys:
            return Reason(ReasonCode.KEY_REVOKED, "your key has been revoked")
        if identity.certificate and self.has(decode(identity.certificate)):
            return Reason(ReasonCode.CERTIFICATE_REVOKED, "your certificate has been revoked")
        return None

    def with_(self, other: Revoked) -> Revoked:
        """The union of both."""
        return replace(
            self,
            serials=self.serials | other.serials,
            key_ids=self.key_ids | other.key_ids,
            users=self.users | other.users,
            keys=self.keys | other.keys,
        )

    def without(self, other: Revoked) -> Revoked:
        """The difference of both."""
        return replace(
            self,
            serials=self.serials - other.serials,
            key_ids=self.key_ids - other.key_ids,
            users=self.users - other.users,
            keys=self.keys - other.keys,
        )

    def krl(self, authorities: Iterable[bytes]) -> bytes:
        """The key revocation list for sshd's ``RevokedKeys`` and ``ssh-keygen -Q`` (PROTOCOL.krl).

        The bytes stay the same until something changes. ``authorities`` are ours: serial numbers and key
        ids in certificates of others are not revoked.
        """
        serials = tuple((serial, serial) for serial in sorted(self.serials))
        key_ids = tuple(sorted(self.key_ids | self.users))
        return encode(
            Krl(
                krl_version=self.version,
                generated=self.changed,
                comment="conchrec",
                certificates=tuple(
                    RevokedCertificates(authority=blob, serials=serials, key_ids=key_ids)
                    for blob in authorities
                )
                if serials or key_ids
                else (),
                keys=frozenset(self.keys),
            )
        )

    def to_json(self) -> dict[str, object]:
        """The fields for the file."""
        return {
            "version": self.version,
            "changed": self.changed,
            # As texts: many programs round numbers of more than 53 bits.
            "serials": [str(serial) for serial in sorted(self.serials)],
            "key_ids": sorted(self.key_ids),
            "users": sorted(self.users),
            "keys": sorted(map(public_line, self.keys)),
        }

    @classmethod
    def from_json(cls, fields: object) -> Revoked:
        """The value with these fields. Raises ValueError for anything that ``to_json`` does not return."""
        if not isinstance(fields, dict) or set(fields) != set(cls.__slots__):
            raise ValueError("not the fields of revocations")
        serials = [_serial(text) for text in _list(fields["serials"])]
        numbers = [fields["version"], fields["changed"]]
        texts = [text for name in ("key_ids", "users", "keys") for text in _list(fields[name])]
        if not all(type(number) is int and 0 <= number < 2**64 for number in (*numbers, *serials)):
            raise ValueError("not a number")
        if not all(type(text) is str and text.isprintable() for text in texts):
            raise ValueError("not a text")
        return cls(
            version=fields["version"],
            changed=fields["changed"],
            serials=frozenset(serials),
            key_ids=frozenset(fields["key_ids"]),
            users=frozenset(fields["users"]),
            keys=frozenset(map(_blob, fields["keys"])),
        )


class Revocations(StateFile[Revoked]):
    """The file with everything that is revoked."""

    def __init__(self, directory: Path, now: Callable[[], datetime]) -> None:
        """Read the file in the state directory. Raises ConfigError where that fails."""
        super().__init__(
            directory / _FILE, empty=Revoked(), from_json=Revoked.from_json, to_json=Revoked.to_json
        )
        self._now = now

    def change(self, *, add: Revoked | None = None, remove: Revoked | None = None) -> Revoked:
        """Add and remove revocations, and return what is revoked then. Raises ConfigError and OSError."""

        def apply(before: Revoked) -> Revoked:
            after = before.with_(add or Revoked()).without(remove or Revoked())
            if after == before:
                return before
            return replace(after, version=before.version + 1, changed=int(self._now().timestamp()))

        return self._update(apply)


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value


def _serial(value: object) -> int:
    """A serial number from its text. Numbers were written before texts."""
    if type(value) is int:
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    raise ValueError("not a number")


def _blob(line: str) -> bytes:
    blob = blob_of((line,), KEY_TYPES)
    if blob is None:
        raise ValueError("not a public key")
    return blob
