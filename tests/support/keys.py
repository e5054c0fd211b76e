"""Keys and certificates, made by the real ssh-keygen."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.process import environment, program, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key pair in two files; ``certificate`` where one was signed for it."""

    path: Path
    """The private key."""
    certificate: Path | None = None

    @property
    def public(self) -> Path:
        """Return the path of the public key."""
        return self.path.with_name(self.path.name + ".pub")

    @property
    def line(self) -> str:
        """As in authorized_keys, without a newline."""
        return self.public.read_text().strip()

    def known_as(self, host: str, port: int = 22) -> str:
        """The line of a known_hosts file that vouches for this key."""
        kind, blob = self.line.split()[:2]
        return f"{host if port == 22 else f'[{host}]:{port}'} {kind} {blob}\n"


def keygen(*arguments: str | Path) -> str:
    """Run ssh-keygen, and return its output. It shows times in UTC."""
    command = (program("ssh-keygen"), *map(str, arguments))
    done = subprocess.run(
        command, env=environment(TZ="UTC"), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def private_text(key: Ed25519PrivateKey) -> bytes:
    """A private key in OpenSSH's format, without a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


async def make_key(path: Path, kind: str = "ed25519") -> Key:
    """A new pair without a passphrase; the comment is the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bits = ("-b", "3072") if kind == "rsa" else ()
    command = ("ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-C", path.name, "-f", path)
    (await run(*command)).check()
    return Key(path=path)


async def sign_host(authority: Key, key: Key, names: str, *options: str) -> Key:
    """The key with a host certificate for ``names`` (with commas between them)."""
    who = ("-I", key.path.name, "-n", names)
    (await run("ssh-keygen", "-q", "-s", authority.path, "-h", *who, *options, key.public)).check()
    return Key(path=key.path, certificate=key.path.with_name(key.path.name + "-cert.pub"))


async def sign_user(authority: Key, key: Key, key_id: str, names: str, *options: str) -> Key:
    """The key with a user certificate; its key id says who the user is."""
    who = ("-I", key_id, "-n", names)
    (await run("ssh-keygen", "-q", "-s", authority.path, *who, *options, key.public)).check()
    return Key(path=key.path, certificate=key.path.with_name(key.path.name + "-cert.pub"))


def all_lines(keys: tuple[Key, ...]) -> str:
    """An authorized_keys file."""
    return "".join(f"{key.line}\n" for key in keys)
