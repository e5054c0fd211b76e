"""The two certificate authorities and the proxy's own host key, in the state directory.

The user CA signs certificates for users, the host CA for hosts. ``keystore`` has their keys. The file
``authorities.json`` names, during and after a rotation, the keys that sign and are trusted; every process
reads it again when it changes. Serial numbers are never used twice.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ed25519

from conchrec.ca.keystore import (
    AgentAuthority,
    KeyStore,
    Passphrase,
    SigningFailed,
)
from conchrec.ca.revocation import Revocations, Revoked
from conchrec.ca.rotation import Rotation, RotationStep
from conchrec.errors import CertificateRejected, ConfigError
from conchrec.files import FileStamp, write_atomic
from conchrec.ssh.certificate import Certificate, CertificateKind, CertificateSigner, issue, public_line
from conchrec.ssh.certificate_extensions import permits
from conchrec.ssh.server_host_keys import ServerHostKeys
from conchrec.ssh.wire import string
from conchrec.state.state_file import locked

if TYPE_CHECKING:
    from conchrec.ssh.signers import KeySigner

#: Certificates are valid from this time before now on: clocks of targets and users may be slow.
BACKDATED = timedelta(minutes=5)
#: The validity of host certificates for targets, on the inner connection; renewed after half of it.
INNER_TTL = timedelta(days=7)
OUTER_TTL = timedelta(days=365)
#: The validity of a certificate for one connection: long enough for a login that waits for a person.
ONE_CONNECTION_TTL = timedelta(minutes=10)
#: The number of names whose certificates are cached. Signing another one takes less than a millisecond.
CACHED_NAMES = 4096

_FILE = "authorities.json"
_HOST_KEY = "host_key"


class CaKind(Enum):
    """The kind of an authority: for users or for hosts."""

    USER = "user"
    HOST = "host"

    @property
    def key(self) -> str:
        """The prefix of the names of its keys."""
        return f"{self.value}_ca"


class _Keys:
    """The keys of one authority; ``rotation`` says which one signs."""

    def __init__(self, store: KeyStore, rotation: Rotation) -> None:
        self.rotation = rotation
        self._all: dict[str, CertificateSigner] = {name: store.authority(name) for name in rotation.trusted}

    @property
    def signs(self) -> CertificateSigner:
        return self._all[self.rotation.signs]

    @property
    def trusted(self) -> tuple[bytes, ...]:
        return tuple(self._all[name].blob for name in self.rotation.trusted)

    @property
    def in_agent(self) -> bool:
        return isinstance(self.signs, AgentAuthority)


class Authority:
    """Both authorities and the host key. Created by ``open``; ``created`` are the files that it created.

    It may be used by several threads. If ``blocks``, an agent signs, which may take long.
    """

    def __init__(
        self,
        store: KeyStore,
        *,
        cluster_name: str,
        created: tuple[Path, ...],
        now: Callable[[], datetime],
    ) -> None:
        self.created = created
        self._store = store
        self._file = store.directory / _FILE
        self._cluster_name = cluster_name
        self._host_key = store.private(_HOST_KEY)
        self._now = now
        #: Host keys by the CA key and the names, with the time of their renewal.
        self._cache: OrderedDict[tuple[bytes, tuple[str, ...]], tuple[datetime, ServerHostKeys]]
        self._cache = OrderedDict()
        self.revocations = Revocations(store.directory, now)
        #: The key revocation list, with the values that it was created from.
        self._krl: tuple[Revoked, tuple[bytes, ...], bytes] | None = None
        self._lock = threading.RLock()
        self._stamp: FileStamp | None = None
        self._keys: dict[CaKind, _Keys] = {}
        self.refresh()

    @classmethod
    def open(
        cls,
        state_dir: Path,
        cluster_name: str,
        *,
        now: Callable[[], datetime],
        agent: str = "",
        passphrase: Passphrase | None = None,
    ) -> Authority:
        """Read the keys, and create missing ones. Two processes that open it at once share the same keys.

        ``agent`` is the socket of an agent that holds the keys of the authorities; ``passphrase`` returns
        that of a key file. Raises ConfigError for an invalid or unreadable key, and OSError where the
        directory cannot be created.
        """
        created: list[Path] = []
        with contextlib.suppress(FileExistsError):
            state_dir.mkdir(mode=0o700, parents=True)
            created.append(state_dir)
        store = KeyStore(state_dir, agent=agent, passphrase=passphrase)
        with locked(state_dir):
            keys = [(rotation.old, f"{role.value} CA") for role, rotation in _read(state_dir).items()]
            for name, title in keys:
                if not store.has(name):
                    store.make(name, f"conchrec {title} of {cluster_name}")
                    created.append(state_dir / name)
            if not (state_dir / _HOST_KEY).exists():
                store.make(_HOST_KEY, f"conchrec host key of {cluster_name}")
                created.append(state_dir / _HOST_KEY)
        return cls(store, cluster_name=cluster_name, created=tuple(created), now=now)

    # --- keys and rotation

    def refresh(self) -> bool:
        """Read the keys again if another process has changed a rotation; returns whether it has.

        Raises ConfigError, and keeps the old keys, where the file or a new key cannot be read.
        """
        with self._lock:
            stamp = FileStamp.at(self._file)
            if self._keys and stamp == self._stamp:
                return False
            rotations = _read(self._store.directory)
            self._keys = {role: _Keys(self._store, rotation) for role, rotation in rotations.items()}
            self._stamp = stamp
            return True

    def rotation(self, role: CaKind) -> Rotation:
        """The state of the rotation of an authority's key."""
        return self._current(role).rotation

    def rotate(self, role: CaKind, step: RotationStep, *, public_key: bytes | None = None) -> Rotation:
        """Do a step of the rotation, and return its new state.

        ``public_key`` is that of the new key in the agent. Raises OutOfStep and ConfigError.
        """
        directory = self._store.directory
        with self._lock:
            with locked(directory):
                rotations = _read(directory)
                before = rotations[role]
                after = before.after(step, role.key)
                if step is RotationStep.INIT:
                    comment = f"conchrec {role.value} CA of {self._cluster_name} ({after.generation})"
                    if public_key is not None:
                        self._store.name_public(after.new, public_key, comment)
                    else:
                        self._store.make(after.new, comment)
                    self._store.authority(after.new)
                rotations[role] = after
                _write(directory, rotations)
                for name in set(before.trusted) - set(after.trusted):
                    self._store.drop(name)
            self.refresh()
            return after

    def _current(self, role: CaKind) -> _Keys:
        try:
            self.refresh()
        except ConfigError:
            pass  # service.state_watch logs it
        return self._keys[role]

    @property
    def blocks(self) -> bool:
        """Whether signing may take long, and belongs into a thread (``Services.signing``)."""
        return any(keys.in_agent for keys in self._keys.values())

    # --- public halves

    @property
    def user_ca_public(self) -> bytes:
        """The wire blob of the user CA that signs."""
        return self._current(CaKind.USER).signs.blob

    @property
    def host_ca_public(self) -> bytes:
        """The wire blob of the host CA that signs."""
        return self._current(CaKind.HOST).signs.blob

    def trusted(self, role: CaKind) -> tuple[bytes, ...]:
        """The wire blobs of all keys whose certificates are accepted; the key that signs is the first."""
        return self._current(role).trusted

    @property
    def host_ca_line(self) -> str:
        """The public key of the host CA that signs, as a line with a comment."""
        return self._line(CaKind.HOST, self.host_ca_public)

    def public_lines(self, role: CaKind) -> str:
        """The trusted public keys, one per line."""
        return "".join(f"{self._line(role, blob)}\n" for blob in self.trusted(role))

    def user_ca_lines(self) -> str:
        """The lines for the file of TrustedUserCAKeys at targets."""
        return self.public_lines(CaKind.USER)

    def host_ca_lines(self, domain: str = "*") -> str:
        """The lines for the users' known_hosts."""
        lines = self.public_lines(CaKind.HOST).splitlines()
        return "".join(f"@cert-authority {domain} {line}\n" for line in lines)

    def revoked(self) -> Revoked:
        """Everything that is revoked now."""
        try:
            self.revocations.refresh()
        except ConfigError:
            pass  # service.state_watch logs it
        return self.revocations.current

    def krl(self) -> bytes:
        """The key revocation list for sshd's ``RevokedKeys``. It is created again only after a change."""
        revoked = self.revoked()
        authorities = (*self.trusted(CaKind.USER), *self.trusted(CaKind.HOST))
        if self._krl is None or self._krl[0] is not revoked or self._krl[1] != authorities:
            self._krl = revoked, authorities, revoked.krl(authorities)
        return self._krl[2]

    def _line(self, role: CaKind, blob: bytes) -> str:
        return f"{public_line(blob)} conchrec {role.value} CA of {self._cluster_name}"

    # --- host keys of our servers

    def inner_host_keys(self, name: str, port: int = 22) -> ServerHostKeys:
        """The host keys for the target that the user calls ``name`` (lower case, or a bare address).

        They are a certificate for exactly that name, which is cached for half its validity, and the plain
        key. Clients look for the bare name. An agent that holds a destination-constrained key (``ssh-add
        -h``) looks for the name as in known_hosts, with a port other than 22.
        """
        return self._server_keys((name,) if port == 22 else (name, f"[{name}]:{port}"), INNER_TTL)

    def outer_host_keys(self, names: Sequence[str]) -> ServerHostKeys:
        """The host keys of the proxy itself, with all its names."""
        return self._server_keys(tuple(names), OUTER_TTL)

    def _server_keys(self, names: tuple[str, ...], ttl: timedelta) -> ServerHostKeys:
        signs = self._current(CaKind.HOST).signs.blob
        now = self._now()
        with self._lock:
            cached = self._cache.get((signs, names))
            if cached is not None and now < cached[0]:
                self._cache.move_to_end((signs, names))
                return cached[1]
        public = string(b"ssh-ed25519") + string(self._host_key.public_key().public_bytes_raw())
        try:
            certificate: bytes | None = self._sign_host(public, names, ttl, "proxy").blob
        except CertificateRejected:
            # For a name that no certificate can contain there is still the plain key.
            certificate = None
        except SigningFailed:
            if cached is None:
                raise
            return cached[1]  # it is still valid
        keys = ServerHostKeys(self._host_key, certificate)
        with self._lock:
            self._cache[signs, names] = now + ttl / 2, keys
            while len(self._cache) > CACHED_NAMES:
                self._cache.popitem(last=False)
        return keys

    # --- signing

    def one_connection(
        self,
        login: str,
        user: str,
        connection: str,
        *,
        withheld: Collection[str] = (),
        ttl: timedelta = ONE_CONNECTION_TTL,
    ) -> tuple[KeySigner, Certificate]:
        """A new key, in memory only, and a certificate for it with which the proxy logs in as ``login``.

        The key id names the user and the connection, for the target's log. The certificate permits
        everything but ``withheld``, the extensions that the user's own certificate lacks. Raises
        CertificateRejected for an invalid login.
        """
        from twisted.conch.ssh.keys import Key  # slow to import, and only the proxy calls this

        from conchrec.ssh.signers import KeySigner

        key = ed25519.Ed25519PrivateKey.generate()
        certificate = self.sign_user(
            string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw()),
            principals=(login,),
            key_id=f"conchrec user={user} connection={connection}",
            ttl=ttl,
            extensions=permits(withheld),
        )
        signer = KeySigner(Key(key), label="certificate of the user CA", certificate=certificate.blob)
        return signer, certificate

    def sign_user(
        self,
        public_key: bytes,
        *,
        principals: Sequence[str],
        key_id: str,
        ttl: timedelta,
        extensions: Mapping[str, bytes] | None = None,
        critical_options: Mapping[str, bytes] | None = None,
    ) -> Certificate:
        """A user certificate for a plain public key (a wire blob), by default with every extension.

        Raises CertificateRejected.
        """
        after, before = self._validity(ttl)
        return issue(
            authority=self._current(CaKind.USER).signs,
            public_key=public_key,
            kind=CertificateKind.USER,
            serial=new_serial(),
            key_id=key_id,
            principals=principals,
            valid_after=after,
            valid_before=before,
            critical_options=critical_options,
            extensions=permits() if extensions is None else extensions,
        )

    def sign_host(self, public_key: bytes, names: Sequence[str], ttl: timedelta) -> Certificate:
        """A host certificate for all names of a target. Raises CertificateRejected."""
        return self._sign_host(public_key, names, ttl, "node")

    def _sign_host(self, public_key: bytes, names: Sequence[str], ttl: timedelta, role: str) -> Certificate:
        after, before = self._validity(ttl)
        lower = tuple(dict.fromkeys(name.lower() for name in names))
        return issue(
            authority=self._current(CaKind.HOST).signs,
            public_key=public_key,
            kind=CertificateKind.HOST,
            serial=new_serial(),
            key_id=f"{lower[0] if lower else ''} {role} of {self._cluster_name}",
            principals=lower,
            valid_after=after,
            valid_before=before,
            extensions={
                "x-conchrec-authority": string(self._cluster_name.encode()),
                "x-conchrec-role": string(role.encode()),
            },
        )

    def _validity(self, ttl: timedelta) -> tuple[int, int]:
        now = self._now()
        return int((now - BACKDATED).timestamp()), int((now + ttl).timestamp())


def new_serial() -> int:
    """A random serial number of 63 bits, never 0: no counter has to be shared, or restored from a backup.

    Of a million certificates, the chance that two have the same number is 1 in 18 million.
    """
    return secrets.randbelow(2**63 - 1) + 1


def _read(directory: Path) -> dict[CaKind, Rotation]:
    """The rotations in the file; without the file the first keys, and no rotation. Raises ConfigError."""
    path = directory / _FILE
    try:
        fields = json.loads(path.read_bytes())
        return {role: Rotation.from_json(fields[role.value]) for role in CaKind}
    except FileNotFoundError:
        return {role: Rotation(old=role.key) for role in CaKind}
    except OSError as error:
        raise ConfigError("state_dir", f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError("state_dir", f"{path} is damaged: {error}") from error


def _write(directory: Path, rotations: Mapping[CaKind, Rotation]) -> None:
    fields = {role.value: rotation.to_json() for role, rotation in rotations.items()}
    write_atomic(directory / _FILE, json.dumps(fields, indent=1).encode() + b"\n", 0o600)
