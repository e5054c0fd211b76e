"""``conchrec ca``: what it makes, ssh-keygen reads, and sshd and ssh believe."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest

from conchrec.cli.main import main
from tests.support.auditlog import events
from tests.support.keys import Key, keygen, make_key
from tests.support.process import environment, program, run
from tests.support.sshd import LOGIN
from tests.support.stage import Stage

CONFIG = """\
cluster_name: example.com
state_dir: {state}
users: {{joe: {{}}}}
roles: {{}}
audit: {{file: {audit}}}
"""
DONE, NO, USAGE = 0, 1, 64


class Cluster:
    """A configuration, and ``conchrec`` with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.audit = directory / "audit.jsonl"
        self.config = directory / "config.yaml"
        self.config.write_text(CONFIG.format(state=self.state, audit=self.audit))
        self.code = -1
        self.out = self.err = ""

    def ca(self, *arguments: str | Path) -> str:
        """``conchrec ca ARGUMENTS``; what it said, where all went well."""
        out, err = io.StringIO(), io.StringIO()
        self.code = main(["ca", *map(str, arguments), "-c", str(self.config)], out, err)
        self.out, self.err = out.getvalue(), err.getvalue()
        return self.out

    def does(self, *arguments: str | Path) -> str:
        output = self.ca(*arguments)
        assert self.code == DONE, self.err
        return output

    def refuses(self, *arguments: str | Path) -> str:
        assert self.ca(*arguments) == ""
        assert self.code != DONE
        return self.err

    @property
    def events(self) -> list[dict[str, object]]:
        return events(self.audit)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    made.does("status")
    return made


def generate(path: Path, kind: str = "ed25519") -> Path:
    """Its public half."""
    keygen("-q", "-t", kind, "-N", "", "-C", path.name, "-f", path)
    return path.with_name(path.name + ".pub")


# --- export and status


def test_exports_keys(cluster: Cluster, tmp_path: Path) -> None:
    user = cluster.does("export", "--type", "user")
    assert user == (cluster.state / "user_ca.pub").read_text()
    assert cluster.does("export", "--type", "user", "--format", "authorized-keys") == f"cert-authority {user}"
    host = cluster.does("export", "--type", "host")
    assert host == "@cert-authority * " + (cluster.state / "host_ca.pub").read_text()
    some = cluster.does("export", "--type", "host", "--domain", "*.example.com")
    assert some.startswith("@cert-authority *.example.com ssh-ed25519 ")
    exported = tmp_path / "exported"
    exported.write_text(user)
    assert "conchrec user CA of example.com" in keygen("-l", "-f", exported)
    assert "add the line of the host CA to known_hosts" in cluster.refuses(
        "export", "--type", "host", "--format", "authorized-keys"
    )


def test_creates_and_reports_authorities(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.does("export", "--type", "user")
    assert f"conchrec: created {cluster.state / 'user_ca'}" in cluster.err
    cluster.does("export", "--type", "user")
    assert cluster.err == ""


def test_prints_status(cluster: Cluster) -> None:
    output = cluster.does("status")
    for name in ("user_ca", "host_ca"):
        assert keygen("-l", "-f", cluster.state / f"{name}.pub").split()[1] in output
    assert f"state_dir {cluster.state}" in output


def test_requires_type(cluster: Cluster) -> None:
    assert "--type" in cluster.refuses("export")
    assert cluster.code == USAGE
    assert "invalid choice" in cluster.refuses("export", "--type", "x509")


# --- hosts


def test_signs_new_host_key(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "web1"
    output = cluster.does("sign-host", "--host", "Web1,web1.example.com,192.0.2.1", "--out", out)
    certificate = tmp_path / "web1-cert.pub"
    assert out.stat().st_mode & 0o777 == 0o600
    assert certificate.stat().st_mode & 0o777 == 0o644
    assert keygen("-y", "-f", out).split()[1] == (tmp_path / "web1.pub").read_text().split()[1]
    lines = [line.strip() for line in keygen("-L", "-f", certificate).splitlines()]
    assert lines[lines.index("Principals:") + 1 :][:3] == ["web1", "web1.example.com", "192.0.2.1"]
    assert "HostKey /etc/ssh/web1\n" in output
    assert "HostCertificate /etc/ssh/web1-cert.pub\n" in output
    (event,) = cluster.events
    assert event["event"] == "cert.create"
    assert event["type"] == "host"
    assert event["principals"] == ["web1", "web1.example.com", "192.0.2.1"]


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_signs_existing_host_key(cluster: Cluster, tmp_path: Path, kind: str) -> None:
    public = generate(tmp_path / "host", kind)
    out = tmp_path / "signed"
    output = cluster.does("sign-host", "--host", "web1", "--out", out, "--public-key", public, "--ttl", "7d")
    assert not out.exists()
    assert "THE-HOST-KEY-THAT-YOU-CERTIFIED" in output
    text = keygen("-L", "-f", tmp_path / "signed-cert.pub")
    assert keygen("-l", "-f", public).split()[1] in text


@pytest.mark.parametrize("names", ["*.example.com", "web1,web?", "[web1]:2222"])
def test_rejects_pattern_in_host_certificate(cluster: Cluster, tmp_path: Path, names: str) -> None:
    refused = cluster.refuses("sign-host", "--host", names, "--out", tmp_path / "web1")
    assert "OpenSSH before 10.3 accepts no patterns" in refused
    assert cluster.code == NO
    assert not (tmp_path / "web1").exists()


def test_overwrites_nothing_without_force(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "web1"
    out.write_text("precious")
    output = cluster.refuses("sign-host", "--host", "web1", "--out", out)
    assert f"cannot write {out}: already exists" in output
    assert cluster.code == NO
    assert out.read_text() == "precious"
    assert not (tmp_path / "web1-cert.pub").exists()
    cluster.does("sign-host", "--host", "web1", "--out", out, "--force")
    assert "OPENSSH PRIVATE KEY" in out.read_text()


@pytest.mark.parametrize("names", ["", ",", "a,,b", "a b", "a,", "a\tb"])
def test_rejects_invalid_list_of_names(cluster: Cluster, tmp_path: Path, names: str) -> None:
    output = cluster.refuses("sign-host", "--host", names, "--out", tmp_path / "web1")
    assert "must be names separated by commas" in output
    assert cluster.code == USAGE
    assert not (tmp_path / "web1").exists()


@pytest.mark.parametrize("ttl", ["", "0", "-1d", "soon", "5"])
def test_rejects_invalid_ttl(cluster: Cluster, tmp_path: Path, ttl: str) -> None:
    cluster.refuses("sign-host", "--host", "web1", "--out", tmp_path / "web1", f"--ttl={ttl}")
    assert cluster.code == USAGE
    assert "--ttl" in cluster.err


# --- invalid public keys


def test_rejects_file_without_single_public_key(cluster: Cluster, tmp_path: Path) -> None:
    public = generate(tmp_path / "key")
    generate(tmp_path / "ca")
    keygen("-q", "-s", tmp_path / "ca", "-I", "joe", "-n", "joe", public)
    two = tmp_path / "two.pub"
    two.write_text(public.read_text() * 2)
    rubbish = tmp_path / "rubbish.pub"
    rubbish.write_bytes(b"ssh-ed25519 AAAA\n")
    wrong = tmp_path / "wrong.pub"
    wrong.write_text(public.read_text().replace("ssh-ed25519", "ssh-rsa"))
    empty = tmp_path / "empty.pub"
    empty.write_text("\n")
    binary = tmp_path / "binary.pub"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "key-cert.pub", two, rubbish, wrong, empty, binary, tmp_path / "key"):
        for command in (
            ("sign-host", "--host", "web1", "--out", tmp_path / "out"),
            ("sign-user", "--user", "joe", "--login", "root", "--out", tmp_path / "out-cert.pub"),
        ):
            output = cluster.refuses(*command, "--public-key", path)
            assert f"{path} must contain exactly one public key" in output
            assert cluster.code == NO
    assert not (tmp_path / "out-cert.pub").exists()
    output = cluster.refuses(
        "sign-host", "--host", "a", "--out", tmp_path / "out", "--public-key", "/nix.pub"
    )
    assert "/nix.pub" in output
    assert "No such file" in output


# --- users


def test_signs_user_certificate(cluster: Cluster, tmp_path: Path) -> None:
    public = generate(tmp_path / "key")
    output = cluster.does("sign-user", "--user", "joe", "--login", "root,www", "--public-key", public)
    certificate = tmp_path / "key-cert.pub"
    assert output.startswith(f"Wrote {certificate}: valid for root, www until ")
    lines = [line.strip() for line in keygen("-L", "-f", certificate).splitlines()]
    assert 'Key ID: "joe"' in lines
    (event,) = cluster.events
    assert (event["event"], event["type"], event["key_id"]) == ("cert.create", "user", "joe")
    again = cluster.refuses("sign-user", "--user", "joe", "--login", "root", "--public-key", public)
    assert "or replace with --force" in again


def test_warns_of_unknown_user(cluster: Cluster, tmp_path: Path) -> None:
    public = generate(tmp_path / "key")
    cluster.does("sign-user", "--user", "jo", "--login", "root", "--public-key", public)
    assert f"warning: signed, but {cluster.config} has no user 'jo'" in cluster.err
    nowhere = tmp_path / "missing/key-cert.pub"
    problem = cluster.refuses(
        "sign-user", "--user", "jo", "--login", "root", "--public-key", public, "--out", nowhere
    )
    assert str(nowhere) in problem and "signed" not in problem


def test_warns_of_unwritable_audit_log(cluster: Cluster, tmp_path: Path) -> None:
    cluster.audit.mkdir()
    cluster.does("sign-host", "--host", "web1", "--out", tmp_path / "web1")
    assert "done, but not audited" in cluster.err


# --- believed


# --- a new key, and trust that is taken back


def test_prints_next_step_of_rotation(cluster: Cluster) -> None:
    first = cluster.does("export", "--type", "user")
    output = cluster.does("rotate", "--type", "user", "--phase", "init")
    assert output.startswith("user CA: init\n")
    assert "Then run --phase update" in output
    both = cluster.does("export", "--type", "user").splitlines()
    assert both[0] == first.strip()
    prefixed = cluster.does("export", "--type", "user", "--format", "authorized-keys").splitlines()
    assert prefixed == [f"cert-authority {line}" for line in both]
    assert "rotation: init" in cluster.does("status")
    cluster.does("rotate", "--type", "user", "--phase", "update")
    assert cluster.does("export", "--type", "user").splitlines() == both[::-1]
    cluster.does("rotate", "--type", "user", "--phase", "finish")
    assert cluster.does("export", "--type", "user").splitlines() == both[1:]
    assert not (cluster.state / "user_ca").exists()
    # The other authority is as it was.
    assert len(cluster.does("export", "--type", "host").splitlines()) == 1
    assert [event["phase"] for event in cluster.events] == ["init", "update", "finish"]


def test_rejects_phase_out_of_order(cluster: Cluster) -> None:
    refused = cluster.refuses("rotate", "--type", "host", "--phase", "finish")
    assert refused == "conchrec: --phase finish is not possible now: the phase is idle; use --phase init\n"
    assert cluster.code == NO
    assert not (cluster.state / "authorities.json").exists()


def test_rejects_public_key_without_agent(cluster: Cluster, tmp_path: Path) -> None:
    public = generate(tmp_path / "next")
    refused = cluster.refuses("rotate", "--type", "user", "--phase", "init", "--public-key", public)
    assert "works only with --phase init and a configured ca_agent" in refused


def test_prints_status_as_json(cluster: Cluster) -> None:
    cluster.does("revoke", "--serial", "7")
    status = json.loads(cluster.does("status", "--json"))
    assert status["cluster"] == "example.com"
    assert status["user_ca"]["phase"] == "idle"
    assert status["user_ca"]["trusted"] == [status["user_ca"]["signs"]]
    assert status["revoked"]["serials"] == ["7"]


def test_revokes_and_restores(cluster: Cluster, tmp_path: Path) -> None:
    """ssh-keygen reads the list: just what was revoked is."""
    certificates = []
    for name in ("first", "second", "third", "fourth"):
        public = generate(tmp_path / name)
        user = "ann" if name == "third" else "joe"
        cluster.does("sign-user", "--user", user, "--login", "root", "--public-key", public)
        certificates.append(tmp_path / f"{name}-cert.pub")
    cluster.does("revoke", "--key", certificates[0])
    cluster.does("revoke", "--key", tmp_path / "second.pub")
    cluster.does("revoke", "--user", "ann")
    output = cluster.does("revoke", "--key-id", "nobody")
    assert output.startswith("key id nobody is revoked. The proxy refuses it now.")
    assert cluster.does("revoke", "--key-id", "nobody") == "key id nobody is already revoked: nothing to do\n"

    def verdicts() -> list[bool]:
        cluster.does("krl", "--out", tmp_path / "krl")
        results = []
        for path in (*certificates, tmp_path / "first.pub", tmp_path / "second.pub"):
            command = (program("ssh-keygen"), "-Q", "-f", str(tmp_path / "krl"), str(path))
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            assert ("REVOKED" in done.stdout) is (done.returncode != 0), done
            results.append(done.returncode != 0)
        return results

    assert verdicts() == [True, True, True, False, False, True]
    status = cluster.does("status")
    assert "revoked   user ann\n" in status
    cluster.does("revoke", "--user", "ann", "--undo")
    cluster.does("revoke", "--key", tmp_path / "second.pub", "--undo")
    assert verdicts() == [True, False, False, False, False, False]
    assert "user ann" not in cluster.does("status")
    revoked = [event for event in cluster.events if event["event"] == "ca.revoke"]
    changes = [(event["what"], event.get("undo", False)) for event in revoked]
    assert changes == [
        ("serial", False), ("key", False), ("user", False), ("key id", False), ("user", True), ("key", True),
    ]  # fmt: skip


def test_rejects_certificate_of_other_authority(cluster: Cluster, tmp_path: Path) -> None:
    other = generate(tmp_path / "other")
    public = generate(tmp_path / "key")
    keygen("-q", "-s", other.with_suffix(""), "-I", "joe", "-n", "root", public)
    refused = cluster.refuses("revoke", "--key", tmp_path / "key-cert.pub")
    assert "is a certificate of another authority" in refused


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--serial", "0"),
        ("--serial", "-7"),
        ("--serial", "9" * 30),
        ("--user", ""),
        ("--user", "joe\n"),
        ("--serial", "7", "--user", "joe"),
    ],
)
def test_rejects_invalid_revocations(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    cluster.refuses("revoke", *arguments)
    assert cluster.code == USAGE
    assert not (cluster.state / "revocations.json").exists()


@pytest.mark.parametrize("kind", ["user", "host"])
def test_reports_damaged_rotation(cluster: Cluster, kind: str) -> None:
    cluster.does("rotate", "--type", kind, "--phase", "init")
    (cluster.state / "authorities.json").write_text("{}")
    assert "authorities.json is damaged" in cluster.refuses("export", "--type", kind)


async def test_satisfies_ssh_and_sshd(stage: Stage, tmp_path: Path) -> None:
    """As the README has it: nothing but the two exported lines, on either side."""
    cluster = Cluster(tmp_path)
    host, joe = await make_key(tmp_path / "host"), await make_key(tmp_path / "joe")
    sign_host = ("sign-host", "--host", "web1", "--out", tmp_path / "host", "--public-key", host.public)
    cluster.does(*sign_host)
    cluster.does("sign-user", "--user", "joe", "--login", LOGIN, "--public-key", joe.public)
    authority = stage.file("user_ca.pub", cluster.does("export", "--type", "user"))
    known = stage.file("known_hosts", cluster.does("export", "--type", "host", "--domain", "web?"))
    certified = Key(path=host.path, certificate=tmp_path / "host-cert.pub")
    sshd = await stage.sshd(host_keys=[certified], user_authority=authority)
    options = [
        *("-F", "none", "-p", str(sshd.port), "-i", str(joe.path), "-l", LOGIN),
        *("-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "GlobalKnownHostsFile=none"),
        *("-o", f"UserKnownHostsFile={known}"),
    ]
    codes = []
    for name in ("web1", "web2"):
        alias = f"HostKeyAlias={name}"
        result = await run("ssh", *options, "-o", alias, "127.0.0.1", "exit 3", env=environment())
        codes.append(result.code)
    assert codes == [3, 255]
