"""Opens our authorities, and the key that signs recordings, where they live; asks for passphrases.

A passphrase comes from a systemd credential, or from whoever sits at the terminal.
"""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

from conchrec.ca.authority import Authority
from conchrec.ca.keystore import KeyStore
from conchrec.clock import utc_now
from conchrec.config.model import Config
from conchrec.errors import ConfigError
from conchrec.recording.format.signatures import RecordingSigner, TrustedKeys
from conchrec.state.state_file import locked

#: ``LoadCredential=conchrec-ca:…`` or ``LoadCredentialEncrypted=``; systemd.exec(5), "Credentials".
CREDENTIAL = "conchrec-ca"
SIGNING_KEY = "recording_key"
TERMINAL = Path("/dev/tty")


def open_authority(config: Config) -> Authority:
    """Read the keys; make what is missing. Raises ConfigError and OSError."""
    return open_in(config.state_dir, config.cluster_name, agent=config.ca_agent)


def open_in(state_dir: Path, cluster_name: str, *, agent: str = "") -> Authority:
    """The same without a configuration."""
    return Authority.open(
        state_dir,
        cluster_name,
        now=utc_now,
        agent=agent,
        passphrase=ask,
    )


def open_signer(state_dir: Path, *, make: bool = False) -> tuple[RecordingSigner, TrustedKeys]:
    """The key that signs recordings, and the public ones that may have: the lines of ``recording_key.pub``,
    where those of the past can be kept. ``make``: where there is none, one is made. Raises ConfigError and
    OSError."""
    store = KeyStore(state_dir)
    if not make:
        return RecordingSigner(store.private(SIGNING_KEY)), signing_keys(public_signing_key(state_dir))
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    private, public = state_dir / SIGNING_KEY, public_signing_key(state_dir)
    with locked(state_dir):
        if not private.exists():
            if public.exists():
                raise ConfigError(
                    "state_dir",
                    f"{public} is there, but not its key {private}: put that back. If it is lost, move"
                    f" {public} away and start again; the old line, added to the new file, verifies"
                    " what is old",
                )
            store.make(SIGNING_KEY, f"conchrec-recordings@{socket.gethostname()}")
    signer = RecordingSigner(store.private(SIGNING_KEY))
    return signer, signing_keys(public_signing_key(state_dir))


def public_signing_key(state_dir: Path) -> Path:
    """Where the public keys are that verify recordings."""
    return state_dir / f"{SIGNING_KEY}.pub"


def signing_keys(path: Path) -> TrustedKeys:
    """The public keys in a file. Raises ConfigError."""
    try:
        return TrustedKeys.parse(path.read_bytes())
    except OSError as error:
        raise ConfigError("state_dir", f"{path} can not be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError("state_dir", f"{path} does not hold ed25519 public keys: {error}") from error


def ask(path: Path) -> bytes:
    """The passphrase of the key in ``path``. Raises ConfigError where there is nobody to ask."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory:
        credential = Path(directory, CREDENTIAL)
        try:
            return credential.read_bytes().rstrip(b"\r\n")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigError("state_dir", f"{credential} can not be read: {error.strerror}") from error
    try:
        with TERMINAL.open("rb+", buffering=0):
            pass
        return getpass.getpass(f"conchrec: passphrase of {path}: ").encode()
    except (OSError, EOFError):
        raise ConfigError(
            "state_dir",
            f"{path} has a passphrase, and there is no terminal to ask for it; with systemd:"
            f" LoadCredential={CREDENTIAL}:FILE",
        ) from None
