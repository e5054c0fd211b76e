"""``conchrec init`` and ``conchrec ssh-config``, as OpenSSH's own programs see what they make."""

from __future__ import annotations

import io
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from conchrec.cli.main import main
from conchrec.cli.ssh_config import snippet
from conchrec.config import loader


def run(*argv: str | Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main([str(argument) for argument in argv], out, err)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    directory = tmp_path / "a" / "conchrec"
    code, _, err = run(
        "init", directory, "--cluster", "example.com", "--public-address", "proxy.example.com:2222"
    )
    assert (code, err) == (0, "")
    return directory


def test_creates_private_files(made: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in made.iterdir()}
    assert made.stat().st_mode & 0o777 == 0o700
    for name in ("config.yaml", "known_hosts", "user_ca", "host_ca", "host_key"):
        assert modes[name] == 0o600
    for name in ("user_ca", "host_ca", "host_key"):
        line = subprocess.run(
            ["ssh-keygen", "-y", "-f", str(made / name)], check=True, capture_output=True, text=True
        ).stdout
        assert line.startswith("ssh-ed25519 ")


def test_creates_valid_configuration(made: Path) -> None:
    it = loader.load(made / "config.yaml")
    assert (it.cluster_name, it.state_dir, it.public_address) == (
        "example.com",
        made,
        "proxy.example.com:2222",
    )
    assert (it.recordings.directory, it.audit.file) == (made / "recordings", made / "audit.jsonl")
    assert it.trusted_hosts.known_hosts == (made / "known_hosts",)
    # nobody is let in by a configuration that nobody has written yet
    assert (it.users, it.roles) == ({}, {})
    code, out, err = run("config", "check", "-c", made / "config.yaml")
    assert (code, out) == (0, f"{made}/config.yaml: ok\n")
    assert (
        err == f"warning: {made}/config.yaml:{line_of(made, 'users:')}: users: is empty: nobody can log in\n"
    )


def line_of(made: Path, text: str) -> int:
    return (made / "config.yaml").read_text().splitlines().index(text) + 1


def test_creates_valid_configuration_in_comments(made: Path) -> None:
    path = made / "config.yaml"
    path.write_text(path.read_text().replace("\n#  ", "\n  "))
    (made / "joe.keys").touch()
    it = loader.load(path)
    assert it.users["joe"].roles == ("ops",)
    assert it.roles["ops"].logins == ("{user}", "root")
    assert it.warnings == ()


def test_prints_commands_that_work(tmp_path: Path) -> None:
    code, out, _ = run("init", tmp_path)
    assert code == 0
    for command in (
        "config check",
        "ca export --type user",
        "ca sign-host",
        "twistd -n conchrec",
        "ssh-config",
    ):
        assert f"{command} " in out
    assert out.count(f"-c {tmp_path}/config.yaml") == 5
    it = loader.load(tmp_path / "config.yaml")
    assert it.public_address == f"{socket.gethostname()}:3023"


def test_keeps_existing_configuration(made: Path) -> None:
    path = made / "config.yaml"
    path.write_text("users: {}\nroles: {}\n")
    before = {file: file.read_bytes() for file in made.iterdir()}
    code, out, err = run("init", made)
    assert (code, out) == (1, "")
    assert err == f"conchrec: {path} already exists and was not changed; choose another directory\n"
    assert {file: file.read_bytes() for file in made.iterdir()} == before


def test_keeps_existing_authorities(made: Path) -> None:
    before = (made / "host_ca").read_bytes()
    (made / "config.yaml").unlink()
    assert run("init", made)[0] == 0
    assert (made / "host_ca").read_bytes() == before


@pytest.mark.parametrize("argv", [["--cluster", "../x"], ["--public-address", "a b"]])
def test_rejects_wrong_arguments(tmp_path: Path, argv: list[str]) -> None:
    assert run("init", tmp_path / "new", *argv)[0] == 64
    assert not (tmp_path / "new").exists()


def test_reports_directory_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = run("init", tmp_path / "file" / "x")
    assert code == 1
    assert err.startswith("conchrec: ")


# -- ssh-config


def settings(directory: Path, **more: object) -> Path:
    path = directory / "config.yaml"
    path.write_text(
        yaml.safe_dump({"state_dir": "state", "users": {"joe": {"roles": []}}, "roles": {}, **more})
    )
    return path


def test_prints_snippet_that_ssh_reads(tmp_path: Path) -> None:
    path = settings(tmp_path, public_address="proxy.example.com:2222", cluster_name="example.com")
    code, out, err = run("ssh-config", "-c", path)
    assert code == 0
    # it was the first to need them, and says so
    assert [line.rsplit("/")[-1] for line in err.splitlines()] == ["state", "user_ca", "host_ca", "host_key"]
    for_ssh, _, for_known_hosts = out.partition("\n\n")
    (tmp_path / "ssh_config").write_text(for_ssh + "\n")
    seen = subprocess.run(
        ["ssh", "-G", "-F", str(tmp_path / "ssh_config"), "proxy"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert {"hostname proxy.example.com", "port 2222", "user joe", "forwardagent yes"} <= set(seen)
    known = tmp_path / "known_hosts"
    known.write_text(for_known_hosts)
    result = subprocess.run(
        ["ssh-keygen", "-F", "web1", "-f", str(known)], check=True, capture_output=True, text=True
    ).stdout
    line = (tmp_path / "state" / "host_ca.pub").read_text().strip()
    assert f"@cert-authority * {line}" in result
    assert run("ssh-config", "-c", path) == (0, out, "")


def test_covers_domain_and_proxy(tmp_path: Path) -> None:
    path = settings(tmp_path, public_address="proxy.example.com:2222")
    out = run("ssh-config", "--domain", "*.example.com", "-c", path)[1]
    assert "#Host *.example.com\n#    ProxyJump proxy\n" in out
    assert "\n@cert-authority *.example.com ssh-ed25519 " in out
    out = run("ssh-config", "--domain", "*.internal,db?", "--name", "bastion", "--user", "jane", "-c", path)[
        1
    ]
    assert "\nHost bastion\n" in out
    assert "\n    User jane\n" in out
    assert "#Host *.internal db?\n#    ProxyJump bastion\n" in out
    assert "\n@cert-authority *.internal,db?,proxy.example.com ssh-ed25519 " in out


@pytest.mark.parametrize(
    "argv", [["--name", "a b"], ["--name", "-x"], ["--domain", "a b"], ["--domain", "!x"]]
)
def test_rejects_arguments_that_change_meaning_of_file(tmp_path: Path, argv: list[str]) -> None:
    path = settings(tmp_path)
    assert run("ssh-config", *argv, "-c", path)[0] == 64
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        (["tcp:3023:interface=127.0.0.1"], "127.0.0.1", 3023),
        (["tcp:port=2222:interface=\\:\\:1"], "::1", 2222),
        (["unix:/run/x", "tcp:2222"], socket.gethostname(), 2222),
        (["tcp:2222:interface=0.0.0.0"], socket.gethostname(), 2222),
        (["systemd:domain=INET:index=0"], socket.gethostname(), 3023),
    ],
)
def test_derives_address_from_listen(tmp_path: Path, listen: list[str], host: str, port: int) -> None:
    it = loader.load(settings(tmp_path, listen=listen))
    text = snippet(it, authorities="ssh-ed25519 AAAA")
    assert f"    HostName {host.lower()}\n    Port {port}\n" in text
    assert text.endswith("@cert-authority * ssh-ed25519 AAAA\n")


def test_leaves_user_open_with_several_users(tmp_path: Path) -> None:
    it = loader.load(settings(tmp_path, users={"joe": {}, "jane": {}}))
    assert "    # User YOUR-NAME\n" in snippet(it, authorities="ssh-ed25519 AAAA")


def test_reports_authorities_readable_by_others(tmp_path: Path) -> None:
    path = settings(tmp_path)
    assert run("ssh-config", "-c", path)[0] == 0
    (tmp_path / "state" / "host_ca").chmod(0o644)
    code, out, err = run("ssh-config", "-c", path)
    assert (code, out) == (78, "")
    assert "chmod 600" in err
