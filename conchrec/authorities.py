"""Opens our authorities as the configuration says where their keys live; asks for passphrases.

A passphrase comes from a systemd credential, or from whoever sits at the terminal.
"""

from __future__ import annotations

import getpass
import os
from datetime import datetime, timezone
from pathlib import Path

from conchrec.access.authority import Authority
from conchrec.errors import ConfigError
from conchrec.settings import Config

#: ``LoadCredential=conchrec-ca:…`` or ``LoadCredentialEncrypted=``; systemd.exec(5), "Credentials".
CREDENTIAL = "conchrec-ca"
TERMINAL = Path("/dev/tty")


def open_authority(config: Config) -> Authority:
    """Read the keys; make what is missing. Raises ConfigError and OSError."""
    return open_in(config.state_dir, config.cluster_name, agent=config.ca_agent)


def open_in(state_dir: Path, cluster_name: str, *, agent: str = "") -> Authority:
    """The same without a configuration."""
    return Authority.open(
        state_dir,
        cluster_name,
        now=lambda: datetime.now(timezone.utc),
        agent=agent,
        passphrase=ask,
    )


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
