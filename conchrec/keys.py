"""Opens the keys of our authorities and the key that signs recordings, and asks for passphrases.

A passphrase comes from a systemd credential, or from the user at the terminal.
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
    """The authorities of a configuration; missing keys are created. Raises ConfigError and OSError."""
    return open_in(config.state_dir, config.cluster_name, agent=config.ca_agent)


def open_in(state_dir: Path, cluster_name: str, *, agent: str = "") -> Authority:
    """The authorities of a state directory; missing keys are created. Raises ConfigError and OSError.

    ``agent`` is the socket of the agent that holds the keys; empty: they are files.
    """
    return Authority.open(
        state_dir,
        cluster_name,
        now=utc_now,
        agent=agent,
        passphrase=ask_passphrase,
    )


def open_signer(state_dir: Path, *, make: bool = False) -> tuple[RecordingSigner, TrustedKeys]:
    """The key that signs recordings, and the public keys that verify them.

    These are the lines of ``recording_key.pub``, which may also have keys of the past. With ``make`` a
    missing key is created. Raises ConfigError and OSError.
    """
    store = KeyStore(state_dir)
    if not make:
        return RecordingSigner(store.private(SIGNING_KEY)), installed_signing_keys(state_dir)
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    private, public = state_dir / SIGNING_KEY, public_signing_key(state_dir)
    with locked(state_dir):
        if not private.exists():
            if public.exists():
                raise ConfigError(
                    "state_dir",
                    f"{public} exists, but the private key {private} is missing: restore it from a backup."
                    f" If it is lost, move {public} away and start again; then add the old line to the new"
                    " file, so that old recordings can still be verified",
                )
            store.make(SIGNING_KEY, f"conchrec-recordings@{socket.gethostname()}")
    signer = RecordingSigner(store.private(SIGNING_KEY))
    return signer, signing_keys(public_signing_key(state_dir))


def public_signing_key(state_dir: Path) -> Path:
    """The path of the file with the public keys that verify recordings."""
    return state_dir / f"{SIGNING_KEY}.pub"


def installed_signing_keys(state_dir: Path, *, has_key_option: bool = False) -> TrustedKeys:
    """The public keys of this installation. Raises ConfigError; with ``has_key_option`` it names --key."""
    advice = "check state_dir, or give --key FILE" if has_key_option else "or check state_dir"
    advice = f". Start conchrec once with this configuration, {advice}"
    return signing_keys(public_signing_key(state_dir), advice=advice)


def signing_keys(path: Path, *, setting: str = "state_dir", advice: str = "") -> TrustedKeys:
    """The public keys in a file. Raises ConfigError, which names ``setting`` (an option such as --key).

    ``advice`` ends the text where the file does not exist.
    """
    try:
        return TrustedKeys.parse(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(setting, f"{path} does not exist{advice}") from error
    except OSError as error:
        raise ConfigError(setting, f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(setting, f"{path} does not contain ed25519 public keys: {error}") from error


def ask_passphrase(path: Path) -> bytes:
    """The passphrase of the key in ``path``. Raises ConfigError without a credential and a terminal."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory:
        credential = Path(directory, CREDENTIAL)
        try:
            return credential.read_bytes().rstrip(b"\r\n")
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ConfigError("state_dir", f"cannot read {credential}: {error.strerror}") from error
    try:
        with TERMINAL.open("rb+", buffering=0):
            pass
        return getpass.getpass(f"conchrec: passphrase of {path}: ").encode()
    except (OSError, EOFError):
        raise ConfigError(
            "state_dir",
            f"{path} has a passphrase, but there is no terminal to ask for it; give the passphrase to the"
            f" systemd service with LoadCredential={CREDENTIAL}:FILE",
        ) from None
