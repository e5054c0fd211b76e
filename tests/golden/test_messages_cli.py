"""What the commands about access say: can, ca, lock, init, passwd, ssh-config."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from conchrec.cli.main import main
from tests.golden.conftest import Compare
from tests.golden.entries import Entries

POLICY = """\
cluster_name: example.com
public_address: proxy.example.com:3023
state_dir: state
audit: {file: audit.jsonl}
recordings: {directory: recordings}
users:
  joe: {roles: [ops, night, office, old, "gone until 2020-01-01", mfa, fourEyes]}
  ann: {roles: [ops], totp: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}
  eve: {}
roles:
  ops:
    logins: [admin, "{user}"]
    hosts: ["10.0.0.0/8", "web1"]
    deny: {hosts: [10.9.9.9], logins: [backup]}
    options: {commands: [uptime, "ls *"], file_copy: no, max_session_ttl: 12h}
  night: {logins: [night], hosts: [10.1.0.1], options: {times: ["22:00-06:00 UTC"]}}
  office: {logins: [office], hosts: [192.0.2.7], options: {source: [198.51.100.0/24]}}
  old: {logins: [old], hosts: [192.0.2.8], options: {expires: 2020-01-01}}
  gone: {logins: [gone], hosts: [192.0.2.9]}
  mfa: {logins: [mfa], hosts: [192.0.2.10]}
  fourEyes: {logins: [four], hosts: [192.0.2.11], options: {approval: [ops]}}
  empty: {logins: [], hosts: [192.0.2.12]}
targets:
  lan: {hosts: ["10.0.0.0/8"], labels: {tier: data}, record: best_effort}
"""


@pytest.fixture
def entries(tmp_path: Path) -> Entries:
    """A directory with a configuration, and its commands."""
    file = tmp_path / "config.yaml"
    file.write_text(POLICY)
    assert main(["ca", "status", "-c", str(file)], io.StringIO(), io.StringIO()) == 0
    return Entries(tmp_path)


def test_keeps_messages_of_can(golden: Compare, entries: Entries) -> None:
    noon = ("--at", "2026-11-24 12:00 UTC")
    for user, host, *more in (
        ("joe", "admin@10.0.0.1"),
        ("joe", "joe@10.0.0.1:2222"),
        ("joe", "admin@10.9.9.9"),
        ("joe", "backup@10.0.0.1"),
        ("joe", "nobody@10.0.0.1"),
        ("joe", "admin@203.0.113.1"),
        ("joe", "night@10.1.0.1"),
        ("joe", "office@192.0.2.7"),
        ("joe", "office@192.0.2.7", "--from", "203.0.113.5"),
        ("joe", "office@192.0.2.7", "--from", "198.51.100.5"),
        ("joe", "old@192.0.2.8"),
        ("joe", "gone@192.0.2.9"),
        ("joe", "four@192.0.2.11"),
        ("joe", "a/b@10.0.0.1"),
        ("eve", "admin@10.0.0.1"),
        ("jo", "admin@10.0.0.1"),
        ("joe", "admin@10.0.0.1", "--command", "uptime"),
        ("joe", "admin@10.0.0.1", "--command", "reboot"),
        ("joe", "admin@10.0.0.1", "--command", "scp -t /tmp"),
        ("ann", "admin@10.0.0.1", "--json"),
        ("eve", "admin@10.0.0.1", "--json"),
    ):
        entries.run("can", user, host, *noon, *more)
    entries.run("can", "--who", "admin@10.0.0.1", *noon)
    entries.run("can", "--who", "admin@203.0.113.1", *noon)
    for wrong in (
        ("joe",),
        (),
        ("joe", "web1"),
        ("joe", "admin@10.1"),
        ("joe", "admin@10.0.0.1", "--from", "here"),
        ("joe", "admin@10.0.0.1", "--at", "tomorrow"),
        ("joe", "admin@10.0.0.1", "--at", "2026-11-24 12:00 Nowhere/Land"),
    ):
        entries.run("can", *wrong)
    old = "hosts: [192.0.2.10]"
    text = POLICY.replace(old, old + ", options: {require_mfa: login}")
    (entries.directory / "config.yaml").write_text(text)
    entries.run("can", "joe", "mfa@192.0.2.10", *noon)
    (entries.directory / "config.yaml").write_text(POLICY)
    for kind, name in (("user", "joe"), ("target", "10.0.0.2"), ("login", "admin")):
        entries.run("lock", f"--{kind}", name, "--reason", "audit")
        entries.run("can", "joe", "admin@10.0.0.2", *noon)
        entries.run("unlock", f"--{kind}", name)
    entries.run("ca", "revoke", "--user", "joe")
    entries.run("can", "joe", "admin@10.0.0.2", *noon)
    golden("messages/can.txt", entries.text())


def test_keeps_messages_of_lock(golden: Compare, entries: Entries) -> None:
    entries.run("locks")
    entries.run("lock", "--user", "joe", "--for", "2h", "--reason", "stolen laptop")
    entries.run("lock", "--user", "jo")
    entries.run("lock", "--target", "10.0.0.1")
    entries.run("lock", "--login", "admin")
    entries.run("lock", "--session", "06c5mghfba7faxgaqvzpe16264")
    entries.run("locks")
    entries.run("locks", "--json")
    entries.run("unlock", "--user", "joe")
    entries.run("unlock", "--user", "joe")
    entries.run("unlock", "--target", "10.0.0.9")
    for wrong in (
        (),
        ("--user", ""),
        ("--user", "joe", "--target", "10.0.0.1"),
        ("--user", "joe", "--for", "forever"),
        ("--target", "10.0.*"),
        ("--login", "a b"),
        ("--session", "nonsense"),
    ):
        entries.run("lock", *wrong)
    entries.run("lock", "--user", "joe", "--name-only")
    entries.run("lock", "--user", "joe", "--reason", "x" * 500)
    entries.run("lock", "--target", "nowhere.invalid")
    state = entries.directory / "state" / "locks.json"
    state.write_text("nonsense")
    entries.run("locks")
    golden("messages/lock.txt", entries.text())


def test_keeps_messages_of_ca(golden: Compare, entries: Entries) -> None:
    here = entries.directory
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "k", "-f", here / "k"], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", here / "weak"], check=True)
    (here / "nonsense.pub").write_text("nonsense\n")
    entries.run("ca", "export", "--type", "user")
    entries.run("ca", "export", "--type", "user", "--format", "authorized-keys")
    entries.run("ca", "export", "--type", "host", "--domain", "*.example.com")
    entries.run("ca", "export", "--type", "host", "--format", "authorized-keys")
    entries.run("ca", "sign-host", "--host", "web1,web1.example.com", "--out", "web1", "--ttl", "90d")
    entries.run("ca", "sign-host", "--host", "web1", "--out", "web1")
    entries.run("ca", "sign-host", "--host", "a b", "--out", "web2")
    entries.run("ca", "sign-host", "--host", "web2", "--out", "web2", "--public-key", "missing.pub")
    entries.run("ca", "sign-host", "--host", "web2", "--out", "web2", "--public-key", "nonsense.pub")
    entries.run("ca", "sign-host", "--host", "*.example.com", "--out", "web3")
    entries.run("ca", "sign-user", "--user", "joe", "--login", "admin", "--public-key", "k.pub")
    entries.run("ca", "sign-user", "--user", "joe", "--login", "admin", "--public-key", "k.pub")
    entries.run("ca", "sign-user", "--user", "joe", "--login", "a", "--public-key", "k.pub", "--force")
    entries.run("ca", "sign-user", "--user", "joe", "--login", "a", "--public-key", "weak.pub")
    entries.run("ca", "sign-user", "--user", "joe", "--login", "a", "--public-key", "k-cert.pub", "--force")
    entries.run("ca", "sign-user", "--user", "joe", "--login", "a", "--public-key", "k.pub", "--ttl", "0s")
    entries.run("ca", "sign-user", "--user", "jo", "--login", "a", "--public-key", "k.pub", "--force")
    entries.run("ca", "status")
    entries.run("ca", "rotate", "--type", "user", "--phase", "init")
    entries.run("ca", "status")
    entries.run("ca", "rotate", "--type", "user", "--phase", "rollback")
    for kind in ("user", "host"):
        for phase in ("update", "init", "init", "update", "rollback", "finish", "init", "update", "finish"):
            entries.run("ca", "rotate", "--type", kind, "--phase", phase)
    entries.run("ca", "rotate", "--type", "user", "--phase", "init", "--public-key", "k.pub")
    entries.run("ca", "rotate", "--type", "user", "--phase", "nonsense")
    entries.run("ca", "revoke", "--serial", "17")
    entries.run("ca", "revoke", "--serial", "17", "--undo")
    entries.run("ca", "revoke", "--serial", "17", "--undo")
    entries.run("ca", "revoke", "--serial", "x")
    entries.run("ca", "revoke", "--key", "k.pub")
    entries.run("ca", "revoke", "--key", "k-cert.pub")
    entries.run("ca", "revoke", "--key", "nonsense.pub")
    entries.run("ca", "revoke", "--user", "joe")
    entries.run("ca", "revoke", "--key-id", "joe")
    entries.run("ca", "revoke", "--user", "")
    entries.run("ca", "status")
    entries.run("ca", "krl", "--out", "krl")
    entries.run("ca", "krl", "--out", "missing/krl")
    entries.run("ca", "nonsense")
    entries.run("ca")
    golden("messages/ca.txt", entries.text())


def test_keeps_messages_of_init(golden: Compare, entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("--cluster", "example.com", "--public-address", "proxy.example.com:3023")
    entries.run("init", "new", *names)
    entries.add("new/config.yaml", "a new file", out=(entries.directory / "new" / "config.yaml").read_text())
    entries.run("init", "new", *names)
    entries.run("init", "other", "--cluster", "a b")
    entries.run("init", "other", "--public-address", "a b")
    (entries.directory / "file").write_text("")
    entries.run("init", "file", *names)
    entries.run("ssh-config")
    entries.run("ssh-config", "--name", "gate", "--user", "joe", "--domain", "*.example.com")
    entries.run("ssh-config", "--name", "a b")
    entries.run("ssh-config", "--domain", "a b")
    entries.run("passwd", "joe", stdin="correct horse\n", given="correct horse")
    entries.run("passwd", "joe", stdin="short\n")
    entries.run("passwd", "bob", stdin="correct horse battery\n")
    entries.run("passwd", "joe", stdin="")
    entries.run("passwd", "joe", stdin="\n")
    entries.run("passwd", "joe", "--totp-only")
    entries.run("passwd")
    os.unlink(entries.directory / "config.yaml")
    entries.run("locks")
    entries.run("nonsense")
    entries.run("config")
    entries.run("recordings")
    monkeypatch.setenv("PATH", str(entries.directory / "nowhere"))
    entries.run("demo")
    monkeypatch.undo()
    entries.run("demo", "--keep", "new")
    golden("messages/other_commands.txt", entries.text())
