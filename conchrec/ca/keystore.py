"""The keys of the authorities: files in the state directory, or keys in an ssh-agent.

A file has OpenSSH's own format and mode 0600, so ``ssh-keygen`` can read it; it may have a passphrase
(``ssh-keygen -p``). For a key in an agent, ``user_ca.pub`` has the public key; the proxy never sees the
private key. All calls block.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
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
from conchrec.ssh.certificate import KEY_TYPES, Ed25519Authority, blob_of, key_type_of, public_line
from conchrec.ssh.signatures import is_signed_by
from conchrec.ssh.wire import string
from conchrec.text import decode_text

#: Seconds to wait for an agent: a token may need a touch, and an agent a confirmation (``ssh-add -c``).
AGENT_PATIENCE = 60.0

Passphrase = Callable[[Path], bytes]
"""Returns the passphrase of a key file. Raises ConfigError where there is no terminal to ask for it."""


class SigningFailed(ConchrecError):
    """The agent that holds an authority's key did not sign."""

    default_code = ReasonCode.SIGNING_FAILED


class AgentAuthority:
    """A key in the agent that listens at a socket.

    Each signature uses a new connection, so a restarted agent continues to work.
    """

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
            raise SigningFailed(f"malformed reply from the agent at {self._path}", error.public) from error
        if not is_signed_by(self.blob, data, signature):
            raise SigningFailed(f"the agent at {self._path} made an invalid signature")
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
            raise SigningFailed(f"cannot reach the agent at {self._path}: {why}; is it running?") from error


class KeyStore:
    """The directory with the keys. ``agent`` is the socket of an ssh-agent, empty without one.

    Passphrases that opened a key are kept in memory, for the keys of a later rotation.
    """

    def __init__(self, directory: Path, *, agent: str = "", passphrase: Passphrase | None = None) -> None:
        self.directory = directory
        self.agent = agent
        self._ask = passphrase or _nobody
        self._known: list[bytes] = []

    def authority(self, name: str) -> Ed25519Authority | AgentAuthority:
        """The key with that name, in a file or in the agent. Raises ConfigError."""
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
            raise ConfigError("state_dir", f"cannot read {path}: {error.strerror}") from error
        if path.stat().st_mode & 0o077:
            problem = f"other accounts can read {path}; run: chmod 600 {path}"
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
            problem = f"the key {path} is damaged: not an OpenSSH private key. Restore it from a backup"
            raise ConfigError("state_dir", problem) from error
        for passphrase in self._known:
            with contextlib.suppress(ValueError):
                return load_ssh_private_key(raw, passphrase)
        passphrase = self._ask(path)
        try:
            key = load_ssh_private_key(raw, passphrase)
        except ValueError as error:
            raise ConfigError("state_dir", f"wrong passphrase of {path}") from error
        self._known.append(passphrase)
        return key

    def has(self, name: str) -> bool:
        """Whether the key exists, as a file or in the agent.

        Raises ConfigError for a public key whose private key is missing: a new key in its place would lock
        out everyone who trusts the old one.
        """
        path = self.directory / name
        public = path.with_name(f"{name}.pub")
        if path.exists():
            return True
        if self.agent:
            if not public.exists():
                problem = (
                    f"{public} is missing: write the public key of the authority's key in the agent there"
                )
                raise ConfigError("ca_agent", problem)
            return True
        if public.exists():
            raise ConfigError(
                "state_dir",
                f"{public} exists, but the private key {path} is missing: restore it from a backup, or set"
                f" ca_agent if an agent holds it. To create a new key, remove {public}; everyone who trusts"
                " the old key is then locked out until they trust the new one",
            )
        return False

    def make(self, name: str, comment: str) -> None:
        """Create a key file and its public key, with the passphrase of the other keys if they have one."""
        key = ed25519.Ed25519PrivateKey.generate()
        encryption = BestAvailableEncryption(self._known[0]) if self._known else NoEncryption()
        path = self.directory / name
        blob = string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw())
        write_atomic(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption), 0o600)
        self.name_public(name, blob, comment)

    def name_public(self, name: str, blob: bytes, comment: str) -> None:
        """Write the public key to its file."""
        line = f"{public_line(blob)} {comment}\n".encode()
        write_atomic(self.directory / f"{name}.pub", line, 0o644)

    def drop(self, name: str) -> None:
        """Remove the files of a key. A key in an agent stays there."""
        for path in (self.directory / name, self.directory / f"{name}.pub"):
            path.unlink(missing_ok=True)
        sync_directory(self.directory)


def _nobody(path: Path) -> bytes:
    raise ConfigError("state_dir", f"{path} has a passphrase, but there is no terminal to ask for it")


def read_public_key(path: Path, setting: str) -> bytes:
    """The wire blob of the only plain public key in a file. Raises ConfigError, which names ``setting``."""
    try:
        lines = decode_text(path.read_bytes()).splitlines()
    except OSError as error:
        raise ConfigError(setting, f"cannot read {path}: {error.strerror}") from error
    blob = blob_of(lines, KEY_TYPES)
    if blob is None:
        raise ConfigError(
            setting, f"{path} must contain exactly one public key, like a .pub file of ssh-keygen"
        )
    return blob
