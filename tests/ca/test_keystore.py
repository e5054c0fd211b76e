"""Keys with a passphrase, and keys in a real ssh-agent."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from conchrec import keys
from conchrec.ca.authority import Authority, CaKind
from conchrec.ca.keystore import AgentAuthority, KeyStore, SigningFailed, read_public_key
from conchrec.ca.rotation import RotationStep
from conchrec.errors import ConfigError
from conchrec.ssh.certificate_checks import check_host, check_user
from conchrec.ssh.signatures import is_signed_by
from tests.support.process import environment, program

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
SECRET = b"open sesame"


def run(name: str, *arguments: str | Path, **env: str) -> str:
    command = (program(name), *map(str, arguments))
    done = subprocess.run(
        command, env=environment(**env), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- a passphrase


class Person:
    """Knows one passphrase, and counts the questions."""

    def __init__(self, passphrase: bytes = SECRET) -> None:
        self.passphrase = passphrase
        self.prompts: list[str] = []

    def __call__(self, path: Path) -> bytes:
        self.prompts.append(path.name)
        return self.passphrase


def opened(state: Path, person: Person | None = None, *, agent: str = "") -> Authority:
    return Authority.open(state, "example.com", now=lambda: NOON, passphrase=person, agent=agent)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_asks_once_for_shared_passphrase(state: Path) -> None:
    """With ssh-keygen's own encryption, of both authorities."""
    plain = opened(state)
    for name in ("user_ca", "host_ca"):
        run("ssh-keygen", "-q", "-p", "-P", "", "-N", SECRET.decode(), "-f", state / name)
    person = Person()
    hidden = opened(state, person)
    assert person.prompts == ["user_ca"]
    assert hidden.user_ca_public == plain.user_ca_public
    assert hidden.host_ca_public == plain.host_ca_public


def test_rejects_wrong_passphrase(state: Path) -> None:
    opened(state)
    run("ssh-keygen", "-q", "-p", "-P", "", "-N", "another one", "-f", state / "user_ca")
    with pytest.raises(ConfigError, match=r"wrong passphrase of .*user_ca"):
        opened(state, Person())


def test_encrypts_new_key_with_old_passphrase(state: Path) -> None:
    opened(state)
    run("ssh-keygen", "-q", "-p", "-P", "", "-N", SECRET.decode(), "-f", state / "user_ca")
    person = Person()
    hidden = opened(state, person)
    hidden.rotate(CaKind.USER, RotationStep.INIT)
    hidden.rotate(CaKind.USER, RotationStep.UPDATE)
    assert person.prompts == ["user_ca"]
    shown = run("ssh-keygen", "-y", "-P", SECRET.decode(), "-f", state / "user_ca-2")
    assert shown.split()[:2] == hidden.public_lines(CaKind.USER).splitlines()[0].split()[:2]
    with pytest.raises(AssertionError, match="incorrect passphrase"):
        run("ssh-keygen", "-y", "-P", "", "-f", state / "user_ca-2")


def test_reads_passphrase_from_systemd_credential(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / keys.CREDENTIAL).write_bytes(SECRET + b"\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert keys.ask_passphrase(state / "user_ca") == SECRET


def test_reports_missing_terminal(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(keys, "TERMINAL", tmp_path / "none")
    with pytest.raises(ConfigError, match=r"no terminal to ask for it; .* LoadCredential=conchrec-ca"):
        keys.ask_passphrase(state / "user_ca")


# --- an agent


@dataclass(kw_only=True)
class Agent:
    """A real one. ``path`` is its socket."""

    path: str
    directory: Path

    def holds(self, name: str, *options: str) -> Path:
        """A new key that only the agent has: its public half."""
        key = self.directory / name
        run("ssh-keygen", "-q", *(options or ("-t", "ed25519")), "-N", "", "-f", key)
        run("ssh-add", "-q", key, SSH_AUTH_SOCK=self.path)
        key.unlink()
        return key.with_name(f"{name}.pub")

    def forget(self) -> None:
        run("ssh-add", "-q", "-D", SSH_AUTH_SOCK=self.path)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    directory = tmp_path / "agent"
    directory.mkdir()
    path = directory / "s"
    process = subprocess.Popen(
        (program("ssh-agent"), "-D", "-a", str(path)), stdout=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"SSH_AUTH_SOCK=")
    yield Agent(path=str(path), directory=directory)
    process.terminate()
    process.communicate(timeout=30)


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ed25519"),
        ("-t", "ecdsa", "-b", "256"),
        ("-t", "ecdsa", "-b", "521"),
        ("-t", "rsa", "-b", "3072"),
    ],
    ids=lambda options: "".join(options[1:]),
)
def test_signs_with_agent(agent: Agent, options: tuple[str, ...]) -> None:
    blob = read_public_key(agent.holds("key", *options), "test")
    signature = AgentAuthority(agent.path, blob).sign(b"what is signed")
    assert is_signed_by(blob, b"what is signed", signature)
    assert not is_signed_by(blob, b"another thing", signature)


def test_opens_both_authorities_in_agent(agent: Agent, state: Path) -> None:
    """No private key is in the directory but that of the proxy's own host."""
    state.mkdir(mode=0o700)
    for name in ("user_ca", "host_ca"):
        agent.holds(name).rename(state / f"{name}.pub")
    mine = opened(state, agent=agent.path)
    assert mine.blocks
    assert mine.created == (state / "host_key",)
    assert sorted(path.name for path in state.iterdir()) == [
        ".lock", "host_ca.pub", "host_key", "host_key.pub", "user_ca.pub",
    ]  # fmt: skip
    _, certificate = mine.one_connection("root", "joe", "c0ffee")
    check_user(certificate, authorities=mine.trusted(CaKind.USER), now=NOON, source="192.0.2.1")
    host = mine.sign_host(mine.user_ca_public, ("web1",), timedelta(1))
    check_host(host, authorities=mine.trusted(CaKind.HOST), name="web1", now=NOON)
    agent.forget()
    with pytest.raises(SigningFailed, match="does not sign with the key of the authority"):
        mine.one_connection("root", "joe", "c0ffee")


def test_rotates_key_in_agent(agent: Agent, state: Path) -> None:
    state.mkdir(mode=0o700)
    for name in ("user_ca", "host_ca"):
        agent.holds(name).rename(state / f"{name}.pub")
    mine = opened(state, agent=agent.path)
    old = mine.user_ca_public
    new = read_public_key(agent.holds("next"), "test")
    mine.rotate(CaKind.USER, RotationStep.INIT, public_key=new)
    assert mine.trusted(CaKind.USER) == (old, new)
    mine.rotate(CaKind.USER, RotationStep.UPDATE)
    _, certificate = mine.one_connection("root", "joe", "c0ffee")
    assert certificate.authority == new
    mine.rotate(CaKind.USER, RotationStep.FINISH)
    assert opened(state, agent=agent.path).trusted(CaKind.USER) == (new,)


def test_requires_public_keys_with_agent(agent: Agent, state: Path) -> None:
    with pytest.raises(ConfigError, match="is missing: write the public key"):
        opened(state, agent=agent.path)
    assert not (state / "user_ca").exists()


def test_reports_missing_agent(state: Path, tmp_path: Path) -> None:
    blob = opened(state).user_ca_public
    with pytest.raises(SigningFailed, match=r"cannot reach the agent at .*: No such file"):
        AgentAuthority(str(tmp_path / "none"), blob).sign(b"data")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "does not sign"),
        (b"\0\0\0\1\5", "does not sign"),
        (b"\0\0\0\1\16", "malformed reply from the agent"),
        (b"\xff\xff\xff\xff", "malformed reply from the agent"),
        (b"\0\0\0\5\16\0\0\0\0", "an invalid signature"),
        (b"\0\0\0\5\16\0\0\0\1", "malformed reply from the agent"),
    ],
)
def test_rejects_invalid_answers_of_agent(state: Path, tmp_path: Path, answer: bytes, problem: str) -> None:
    blob = opened(state).user_ca_public
    path = tmp_path / "bad"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            line, _ = listening.accept()
            with line:
                line.recv(4096)
                line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(SigningFailed, match=problem):
            AgentAuthority(str(path), blob).sign(b"data")
        thread.join(30)


def test_refuses_public_key_without_private_key(state: Path) -> None:
    state.mkdir()
    (state / "user_ca.pub").write_text("ssh-ed25519 nonsense\n")
    with pytest.raises(ConfigError, match="must contain exactly one public key"):
        KeyStore(state, agent=os.devnull).authority("user_ca")
