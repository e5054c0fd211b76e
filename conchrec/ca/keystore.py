"""Where the keys of the authorities live: files of the state directory, or an ssh-agent.

A file is in OpenSSH's own format and 0600, so ``ssh-keygen`` reads what we write; it may have a passphrase
(``ssh-keygen -p``). A key in an agent is known by its public half, ``user_ca.pub``; the private one, or the
token that holds it, never comes near us. Everything here blocks.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import socket
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from conchrec.errors import ConchrecError, ConfigError, RemoteViolation
from conchrec.files import sync_directory, write_atomic
from conchrec.reasons import ReasonCode
from conchrec.ssh.agent_messages import (
    FLAG_RSA_SHA2_512,
    SignRequest,
    UnexpectedMessage,
    frame,
    parse_signature,
    read_message,
)
from conchrec.ssh.certificate import KEY_TYPES, Ed25519Authority, key_type_of
from conchrec.ssh.signatures import is_signed_by
from conchrec.ssh.wire import string
from conchrec.state.state_file import locked
from conchrec.text import decode_text

#: A token may want to be touched, and an agent may ask (``ssh-add -c``), in seconds.
AGENT_PATIENCE = 60.0

Passphrase = Callable[[Path], bytes]
"""Gives the passphrase of that file; raises ConfigError where nobody can be asked."""


class SigningFailed(ConchrecError):
    """The agent that holds an authority's key did not sign."""

    default_code = ReasonCode.SIGNING_FAILED


class AgentAuthority:
    """A key in the agent that listens at a socket. Each signature has a connection of its own, so an agent
    that was started again is as good as the old one."""

    def __init__(self, path: str, blob: bytes) -> None:
        self._path = path
        self.blob = blob

    def sign(self, data: bytes) -> bytes:
        """``string algorithm, string signature``. Blocks. Raises SigningFailed."""
        rsa = key_type_of(self.blob) == b"ssh-rsa"
        request = SignRequest(blob=self.blob, data=data, flags=FLAG_RSA_SHA2_512 if rsa else 0)
        try:
            signature = parse_signature(self._ask(request))
        except UnexpectedMessage as error:
            text = f"the agent at {self._path} does not sign with the key of the authority"
            raise SigningFailed(text) from error
        except RemoteViolation as error:
            raise SigningFailed(f"the agent at {self._path} makes no sense", error.public) from error
        if not is_signed_by(self.blob, data, signature):
            raise SigningFailed(f"the agent at {self._path} made a signature that is not good")
        return signature

    def _ask(self, request: SignRequest) -> bytes:
        """The reply to a request, one whole message. Raises SigningFailed and RemoteViolation."""
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(AGENT_PATIENCE)
                line.connect(self._path)
                line.sendall(frame(request.encode()))
                with line.makefile("rb") as answers:
                    return read_message(answers.read)
        except OSError as error:
            why = error.strerror or str(error)
            raise SigningFailed(f"the agent at {self._path} can not be asked: {why}") from error


class KeyStore:
    """The directory with the keys. ``agent`` is the socket of an ssh-agent, empty without one.

    Passphrases that were good once are kept, for keys that come later (a rotation) and for none else.
    """

    def __init__(self, directory: Path, *, agent: str = "", passphrase: Passphrase | None = None) -> None:
        self.directory = directory
        self.agent = agent
        self._ask = passphrase or _nobody
        self._known: list[bytes] = []

    def authority(self, name: str) -> Ed25519Authority | AgentAuthority:
        """The key of that name: the file, or the one in the agent. Raises ConfigError."""
        path = self.directory / name
        if not path.exists() and self.agent:
            return AgentAuthority(self.agent, read_public_key(path.with_name(f"{name}.pub"), "state_dir"))
        return Ed25519Authority(self.private(name))

    def private(self, name: str) -> ed25519.Ed25519PrivateKey:
        """The key in that file. Raises ConfigError."""
        path = self.directory / name
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ConfigError("state_dir", f"{path} can not be read: {error.strerror}") from error
        if path.stat().st_mode & 0o077:
            problem = f"{path} can be read by others; make it yours alone: chmod 600 {path}"
            raise ConfigError("state_dir", problem)
        key = self._load(path, raw)
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise ConfigError("state_dir", f"{path} is not an ed25519 key")
        return key

    def _load(self, path: Path, raw: bytes) -> object:
        try:
            return load_ssh_private_key(raw, None)
        except TypeError:
            pass  # it has a passphrase
        except ValueError as error:
            raise ConfigError("state_dir", f"{path} is not an OpenSSH private key") from error
        for known in self._known:
            with contextlib.suppress(ValueError):
                return load_ssh_private_key(raw, known)
        given = self._ask(path)
        try:
            key = load_ssh_private_key(raw, given)
        except ValueError as error:
            raise ConfigError("state_dir", f"that is not the passphrase of {path}") from error
        self._known.append(given)
        return key

    def has(self, name: str) -> bool:
        """Is there such a key? A public half alone is one that an agent holds, or that was lost.

        Raises ConfigError for the latter: to make another key in its place would lock everybody out.
        """
        path = self.directory / name
        public = path.with_name(f"{name}.pub")
        if path.exists():
            return True
        if self.agent:
            if not public.exists():
                problem = f"put the public key of the authority that the agent holds into {public}"
                raise ConfigError("ca_agent", problem)
            return True
        if public.exists():
            raise ConfigError(
                "state_dir",
                f"{public} is there, but not its key {path}: put that back, or say which agent holds it"
                f" (ca_agent); to begin anew, and lock everybody out who trusts it, remove {public}",
            )
        return False

    def make(self, name: str, comment: str) -> None:
        """A new key file with its public half; with the passphrase that the others have, if they have one."""
        key = ed25519.Ed25519PrivateKey.generate()
        hidden = BestAvailableEncryption(self._known[0]) if self._known else NoEncryption()
        path = self.directory / name
        blob = string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw())
        write_atomic(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, hidden), 0o600)
        self.name_public(name, blob, comment)

    def name_public(self, name: str, blob: bytes, comment: str) -> None:
        """Note the public half of a key."""
        line = f"{public_line(blob)} {comment}\n".encode()
        write_atomic(self.directory / f"{name}.pub", line, 0o644)

    def drop(self, name: str) -> None:
        """Forget a key; what is in an agent stays there."""
        for path in (self.directory / name, self.directory / f"{name}.pub"):
            path.unlink(missing_ok=True)
        sync_directory(self.directory)


def _nobody(path: Path) -> bytes:
    raise ConfigError("state_dir", f"{path} has a passphrase, and there is nobody to ask for it")


def public_line(blob: bytes) -> str:
    """``type base64``, as in authorized_keys."""
    return f"{key_type_of(blob).decode()} {base64.b64encode(blob).decode()}"


def read_public_key(path: Path, setting: str) -> bytes:
    """The wire blob of the one plain public key in a file. Raises ConfigError about ``setting``."""
    try:
        lines = decode_text(path.read_bytes()).splitlines()
    except OSError as error:
        raise ConfigError(setting, f"{path} can not be read: {error.strerror}") from error
    blob = blob_of(lines, KEY_TYPES)
    if blob is None:
        raise ConfigError(setting, f"{path} does not hold one plain public key (a .pub file of ssh-keygen)")
    return blob


def blob_of(lines: Iterable[str], kinds: Collection[bytes]) -> bytes | None:
    """The wire blob of the one key in these lines (``type base64 comment``), where it is of one of these
    types; else None."""
    filled = [line for line in lines if line.strip()]
    with contextlib.suppress(IndexError, ValueError, binascii.Error, RemoteViolation):
        kind, encoded = filled[0].split()[:2]
        blob = base64.b64decode(encoded, validate=True)
        if len(filled) == 1 and key_type_of(blob) == kind.encode() and kind.encode() in kinds:
            return blob
    return None


class Serials:
    """Numbers that were never given out before, by any process that shares the file.

    They are reserved in blocks, and a block is on the disk before its first number is given out.
    """

    BLOCK = 1000

    def __init__(self, directory: Path) -> None:
        self._path = directory / "serial"
        self._next = 0
        self._end = 0

    def next(self) -> int:
        """Serials begin with 1."""
        if self._next >= self._end:
            self._reserve()
        self._next += 1
        return self._next

    def _reserve(self) -> None:
        """The file holds the last one that may have been given out."""
        with locked(self._path.parent):
            try:
                last = int(self._path.read_text())
            except FileNotFoundError:
                last = 0
            except ValueError as error:
                raise ConfigError("state_dir", f"{self._path} does not hold a number") from error
            write_atomic(self._path, f"{last + self.BLOCK}\n".encode(), 0o600)
        self._next, self._end = last, last + self.BLOCK
