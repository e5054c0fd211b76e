"""The two authorities and the proxy's own host key: made once, kept in the state directory.

The user CA signs users, the host CA signs hosts; each is an ed25519 key in OpenSSH's own format, 0600 in
a directory that is 0700, so ``ssh-keygen`` can read what we write. Serial numbers are never used twice:
they are reserved in blocks, and a block is on the disk before its first number is given out.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)
from twisted.conch.ssh.keys import Key

from conchrec.errors import CertificateRejected, ConfigError
from conchrec.ssh.certificate import Certificate, Ed25519Authority, Kind, issue
from conchrec.ssh.hostkeys import ShownKeys
from conchrec.ssh.signers import KeySigner
from conchrec.ssh.wire import string

#: Clocks of targets and users may be behind ours.
BACKDATED = timedelta(minutes=5)
#: Certificates for the names of targets, on the inner connection; renewed when half of it is over.
INNER_TTL = timedelta(days=7)
OUTER_TTL = timedelta(days=365)
#: One connection's certificate has to outlive a login that waits for a person, and no more.
ONE_CONNECTION_TTL = timedelta(minutes=10)
#: Names whose certificates are kept; a fleet is not larger, and a new one costs a fraction of a millisecond.
CACHED_NAMES = 4096
SERIAL_BLOCK = 1000

#: What a user certificate lets its bearer ask of sshd (PROTOCOL.certkeys, "Extensions").
PERMITS = dict.fromkeys(
    (
        "permit-X11-forwarding",
        "permit-agent-forwarding",
        "permit-port-forwarding",
        "permit-pty",
        "permit-user-rc",
    ),
    b"",
)


class Authority:
    """See the module. Made by ``open``; ``created`` says what that had to make."""

    def __init__(
        self,
        *,
        directory: Path,
        cluster_name: str,
        user_ca: ed25519.Ed25519PrivateKey,
        host_ca: ed25519.Ed25519PrivateKey,
        host_key: ed25519.Ed25519PrivateKey,
        created: tuple[Path, ...],
        now: Callable[[], datetime],
    ) -> None:
        self.created = created
        self._directory = directory
        self._cluster_name = cluster_name
        self._user_ca = Ed25519Authority(user_ca)
        self._host_ca = Ed25519Authority(host_ca)
        self._host_key = host_key
        self._now = now
        self._serials = _Serials(directory / "serial")
        self._shown: OrderedDict[tuple[str, ...], tuple[datetime, ShownKeys]] = OrderedDict()

    @classmethod
    def open(cls, state_dir: Path, cluster_name: str, *, now: Callable[[], datetime]) -> Authority:
        """Read the keys; make what is missing. Two processes at once make the same ones.

        Raises ConfigError where a key can't be read or is none, and OSError where the directory can't
        be made.
        """
        created: list[Path] = []
        if not state_dir.exists():
            state_dir.mkdir(mode=0o700, parents=True)
            created.append(state_dir)
        with _locked(state_dir / ".lock"):
            keys = [
                _key(state_dir / name, comment, created)
                for name, comment in (
                    ("user_ca", f"conchrec user CA of {cluster_name}"),
                    ("host_ca", f"conchrec host CA of {cluster_name}"),
                    ("host_key", f"conchrec host key of {cluster_name}"),
                )
            ]
        return cls(
            directory=state_dir,
            cluster_name=cluster_name,
            user_ca=keys[0],
            host_ca=keys[1],
            host_key=keys[2],
            created=tuple(created),
            now=now,
        )

    # --- public halves

    @property
    def user_ca_public(self) -> bytes:
        """The wire blob that targets put into TrustedUserCAKeys."""
        return self._user_ca.blob

    @property
    def host_ca_public(self) -> bytes:
        """The wire blob that users put behind @cert-authority."""
        return self._host_ca.blob

    @property
    def user_ca_line(self) -> str:
        """The same as a line of text, with a comment."""
        return f"{public_line(self._user_ca.blob)} conchrec user CA of {self._cluster_name}"

    @property
    def host_ca_line(self) -> str:
        return f"{public_line(self._host_ca.blob)} conchrec host CA of {self._cluster_name}"

    # --- what our servers show

    def inner_host_keys(self, name: str) -> ShownKeys:
        """For the target that the user calls ``name`` (lower case, or a bare address): a certificate
        for exactly that name, and the plain key. Kept under that very name until half its time is over."""
        return self._shown_keys((name,), INNER_TTL)

    def outer_host_keys(self, names: Sequence[str]) -> ShownKeys:
        """For the proxy itself, under all of its names."""
        return self._shown_keys(tuple(names), OUTER_TTL)

    def _shown_keys(self, names: tuple[str, ...], ttl: timedelta) -> ShownKeys:
        now = self._now()
        kept = self._shown.get(names)
        if kept is not None and now < kept[0]:
            self._shown.move_to_end(names)
            return kept[1]
        public = string(b"ssh-ed25519") + string(self._host_key.public_key().public_bytes_raw())
        try:
            certificate: bytes | None = self._host(public, names, ttl, "proxy").blob
        except CertificateRejected:
            # A name that can be in no certificate can still be shown the plain key.
            certificate = None
        shown = ShownKeys(self._host_key, certificate)
        self._shown[names] = now + ttl / 2, shown
        while len(self._shown) > CACHED_NAMES:
            self._shown.popitem(last=False)
        return shown

    # --- signing

    def one_connection(
        self, login: str, user: str, connection: str, ttl: timedelta = ONE_CONNECTION_TTL
    ) -> tuple[KeySigner, Certificate]:
        """A fresh key, in memory only, and a certificate for it that logs in as ``login``.

        The key id names the user and the connection, and the target's log has it. Raises
        CertificateRejected where the login is no name.
        """
        key = ed25519.Ed25519PrivateKey.generate()
        certificate = self.sign_user(
            string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw()),
            principals=(login,),
            key_id=f"conchrec user={user} connection={connection}",
            ttl=ttl,
        )
        signer = KeySigner(Key(key), label="certificate of the user CA", certificate=certificate.blob)
        return signer, certificate

    @property
    def blocks(self) -> bool:
        """Signing may take long: for a thread (``Site.signing``)."""
        return False

    def sign_user(
        self,
        public_key: bytes,
        *,
        principals: Sequence[str],
        key_id: str,
        ttl: timedelta,
        extensions: Mapping[str, bytes] = PERMITS,
        critical_options: Mapping[str, bytes] | None = None,
    ) -> Certificate:
        """A user certificate for a plain public key (a wire blob). Raises CertificateRejected."""
        after, before = self._validity(ttl)
        return issue(
            authority=self._user_ca,
            public_key=public_key,
            kind=Kind.USER,
            serial=self._serials.next(),
            key_id=key_id,
            principals=principals,
            valid_after=after,
            valid_before=before,
            critical_options=critical_options,
            extensions=extensions,
        )

    def sign_host(self, public_key: bytes, names: Sequence[str], ttl: timedelta) -> Certificate:
        """A host certificate for all of a target's names. Raises CertificateRejected."""
        return self._host(public_key, names, ttl, "node")

    def _host(self, public_key: bytes, names: Sequence[str], ttl: timedelta, role: str) -> Certificate:
        after, before = self._validity(ttl)
        lower = tuple(dict.fromkeys(name.lower() for name in names))
        return issue(
            authority=self._host_ca,
            public_key=public_key,
            kind=Kind.HOST,
            serial=self._serials.next(),
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


def public_line(blob: bytes) -> str:
    """``type base64``, as in authorized_keys."""
    length = int.from_bytes(blob[:4], "big")
    return f"{blob[4 : 4 + length].decode()} {base64.b64encode(blob).decode()}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _key(path: Path, comment: str, created: list[Path]) -> ed25519.Ed25519PrivateKey:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        made = ed25519.Ed25519PrivateKey.generate()
        _write(path, made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), 0o600)
        blob = string(b"ssh-ed25519") + string(made.public_key().public_bytes_raw())
        _write(path.with_name(path.name + ".pub"), f"{public_line(blob)} {comment}\n".encode(), 0o644)
        created.append(path)
        return made
    except OSError as error:
        raise ConfigError("state_dir", f"{path} can not be read: {error.strerror}") from error
    if path.stat().st_mode & 0o077:
        raise ConfigError("state_dir", f"{path} can be read by others; make it yours alone: chmod 600 {path}")
    try:
        key = load_ssh_private_key(raw, None)
    except (ValueError, TypeError) as error:
        problem = f"{path} is not an OpenSSH private key without a passphrase"
        raise ConfigError("state_dir", problem) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError("state_dir", f"{path} is not an ed25519 key")
    return key


def _write(path: Path, contents: bytes, mode: int) -> None:
    """Whole or not at all: a crash leaves no half of a key."""
    partial = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        _sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        raise


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Serials:
    """Numbers that were never given out before, by any process that shares the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0
        self._end = 0

    def next(self) -> int:
        if self._next >= self._end:
            self._reserve()
        self._next += 1
        return self._next

    def _reserve(self) -> None:
        """Serials begin with 1; the file holds the last one that may have been given out."""
        with _locked(self._path.with_name(".lock")):
            try:
                last = int(self._path.read_text())
            except FileNotFoundError:
                last = 0
            except ValueError as error:
                raise ConfigError("state_dir", f"{self._path} does not hold a number") from error
            _write(self._path, f"{last + SERIAL_BLOCK}\n".encode(), 0o600)
        self._next, self._end = last, last + SERIAL_BLOCK
