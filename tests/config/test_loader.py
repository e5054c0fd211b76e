"""``config.yaml``: what it becomes, and every way in which it can be wrong."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.access.options import Record, RoleOptions, VisibleRecordings, combine, switches
from conchrec.config import loader, roles
from conchrec.config.loader import (
    AgentProbe,
    Config,
    ConfigErrors,
    InnerAuth,
    Limits,
    Mode,
    Offer,
    TargetOffer,
    UpstreamAuth,
)
from conchrec.config.model import Audit, Recordings, Retention, Startups
from conchrec.errors import ConfigError
from conchrec.model import Target
from conchrec.recording.format.settings import Fsync, InputPolicy
from conchrec.recording.format.signatures import RecordingSigner
from conchrec.yaml_cursor import parse_duration, parse_size

ETC = Path(__file__).parents[2] / "etc"
NOBODY = "users: {}\nroles: {}\n"

# A complete example; only the names of its key files differ
INTERFACE = """\
cluster_name: example.com
state_dir: /var/lib/conchrec
listen: ["tcp:3023"]                 # Twisted server endpoints; systemd: and haproxy: included
public_address: proxy.example.com:3023
session_recording: proxy
proxy_checks_host_keys: yes
trusted_hosts:
  known_hosts: [/etc/ssh/ssh_known_hosts]
  authorities: []
upstream_auth: [agent, certificate]
agent_probe: last
inner_auth: key
notice: "Sessions are recorded."
users:
  joe:
    authorized_keys_file: joe.keys
    roles: [ops]
roles:
  ops:
    logins: [root, "{user}"]
    hosts: ["*.example.com", "10.0.0.0/8", "db1:2222"]
    deny: {hosts: ["vault.example.com"]}
    options: {max_session_ttl: 12h, client_idle_timeout: 15m, max_sessions: 10, direct: no, forward_agent: no, port_forwarding: no, x11_forwarding: no, file_copy: yes, record: strict, source: ["10.0.0.0/8"]}
targets:
  db: {hosts: ["db*.example.com"], labels: {tier: data}, algorithms: modern, upstream_auth: [certificate], known_hosts: [db.known_hosts]}
algorithms: modern
limits: {login_time: 2m, tries: 6, unauthenticated: 500, per_address: 250, target_handshakes: 8, connect_timeout: 30s}
proxy_protocol_from: []
recordings: {directory: /var/lib/conchrec/recordings, input: no, min_free: 500MiB, fsync: interval, compress: no, encrypt_to: [], retention: {age: 365d, size: 500GiB}}
audit: {file: /var/log/conchrec/audit.jsonl}
web: {listen: ["tcp:3080:interface=127.0.0.1"]}
"""  # noqa: E501

Read = Callable[[str], Config]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for the file; home is another one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc"


@pytest.fixture
def read(here: Path) -> Read:
    def parse(text: str) -> Config:
        return loader.parse(text.encode(), here / "config.yaml", me="me")

    return parse


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Public key lines: two keys, and a certificate of the second."""
    directory = tmp_path_factory.mktemp("keys")
    for name in ("one", "two"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(directory / name)],
            check=True,
        )
    subprocess.run(
        ["ssh-keygen", "-q", "-s", "one", "-I", "joe", "-n", "joe", "two.pub"], check=True, cwd=directory
    )
    return {path.name: path.read_text() for path in directory.glob("*.pub")}


def problems(read: Read, text: str) -> list[str]:
    """``line path: problem`` of each."""
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    return [f"{error.line} {error.path}: {error.problem}" for error in caught.value.errors]


def role(lines: str) -> str:
    """A configuration whose role ops, from line 4 on, is this."""
    return "users: {}\nroles:\n  ops:\n" + "".join(f"    {line}\n" for line in lines.splitlines())


# -- what it becomes


def test_reads_full_example(read: Read, here: Path, keys: dict[str, str]) -> None:
    (here / "joe.keys").write_text(keys["one.pub"])
    it = read(INTERFACE)
    assert (it.cluster_name, it.listen, it.state_dir) == (
        "example.com",
        ("tcp:3023",),
        Path("/var/lib/conchrec"),
    )
    assert it.public == Target(host="proxy.example.com", port=3023)
    assert (it.session_recording, it.proxy_checks_host_keys) == (Mode.PROXY, True)
    assert it.upstream_auth == (UpstreamAuth.AGENT, UpstreamAuth.CERTIFICATE)
    assert (it.agent_probe, it.inner_auth, it.algorithms) == (AgentProbe.LAST, InnerAuth.KEY, Offer.MODERN)
    assert it.trusted_hosts.known_hosts == (Path("/etc/ssh/ssh_known_hosts"),)
    joe = it.users["joe"]
    assert (joe.name, joe.roles, [key.comment for key in joe.keys]) == ("joe", ("ops",), ["one"])
    ops = it.roles["ops"]
    assert (ops.logins, [host.text for host in ops.hosts]) == (
        ("root", "{user}"), ["*.example.com", "10.0.0.0/8", "db1:2222"],
    )  # fmt: skip
    assert [host.text for host in ops.deny_hosts] == ["vault.example.com"]
    assert ops.options == RoleOptions(
        max_session_ttl=timedelta(hours=12), client_idle_timeout=timedelta(minutes=15), max_sessions=10,
        switches=switches(forward_agent=False, port_forwarding=False, x11_forwarding=False, file_copy=True),
    )  # fmt: skip
    assert [str(network) for network in ops.source or ()] == ["10.0.0.0/8"]
    (db,) = it.targets
    assert (db.name, dict(db.labels), db.algorithms) == ("db", {"tier": "data"}, TargetOffer.MODERN)
    assert (db.upstream_auth, db.known_hosts) == ((UpstreamAuth.CERTIFICATE,), (here / "db.known_hosts",))
    assert it.limits == Limits()
    assert (it.recordings.directory, it.recordings.min_free) == (
        Path("/var/lib/conchrec/recordings"), 500 * 2**20,
    )  # fmt: skip
    assert (it.recordings.input, it.recordings.fsync) == (InputPolicy.NO, Fsync.INTERVAL)
    assert it.audit.file == Path("/var/log/conchrec/audit.jsonl")
    assert it.policy.roles == it.roles


def test_warns_of_missing_known_hosts(read: Read, here: Path) -> None:
    (here / "joe.keys").touch()
    warnings = "\n".join(read(INTERFACE).warnings)
    assert f"targets.db.known_hosts[0]: the file {here}/db.known_hosts does not exist" in warnings


def test_has_defaults_for_all_but_users_and_roles(read: Read) -> None:
    it = read(NOBODY)
    assert (it.listen, it.session_recording, it.proxy_checks_host_keys) == (("tcp:3023",), Mode.PROXY, True)
    assert it.state_dir == Path("/var/lib/conchrec")
    assert (it.recordings.directory, it.audit.file) == (
        it.state_dir / "recordings",
        it.state_dir / "audit.jsonl",
    )
    assert (it.public, it.notice) == (None, "Sessions are recorded.")
    assert it.limits == Limits(
        login_time=timedelta(minutes=2), tries=6, unauthenticated=Startups(), per_address=250,
        target_handshakes=8, rekey_bytes=1 << 30, rekey_time=timedelta(hours=1),
        connect_timeout=timedelta(seconds=30),
    )  # fmt: skip
    assert it.users == {}
    assert it.warnings == (f"{it.file}:1: users: is empty: nobody can log in",)


def test_reads_key_without_value_as_default_or_nobody(read: Read) -> None:
    it = read("users:\nroles:\n  ops:\n    hosts:\n    logins:\n    options:\n    deny:\nlimits:\ntargets:\n")
    assert (it.users, it.targets, it.limits) == ({}, (), Limits())
    assert (it.roles["ops"].hosts, it.roles["ops"].logins) == ((), ())
    assert it.roles["ops"].options == RoleOptions()


def test_distinguishes_empty_from_missing_source(read: Read) -> None:
    assert read(role("options: {source: []}")).roles["ops"].source == ()
    assert read(role("options: {}")).roles["ops"].source is None


def test_resolves_paths_relative_to_file_and_home(read: Read, here: Path) -> None:
    it = read(
        NOBODY
        + "state_dir: ../var\nrecordings: {directory: rec}\naudit: {file: ~/audit}\n"
        + "trusted_hosts: {known_hosts: [kh, ~/.ssh/known_hosts]}\n"
    )
    home = here.parent / "home"
    assert (it.state_dir, it.recordings.directory) == (here.parent / "var", here / "rec")
    assert it.audit.file == home / "audit"
    assert it.trusted_hosts.known_hosts == (here / "kh", home / ".ssh/known_hosts")
    # one in a home directory may well be missing, another is worth a word
    assert [warning for warning in it.warnings if "known_hosts" in warning] == [
        f"{it.file}:6: trusted_hosts.known_hosts[0]: the file {here}/kh does not exist, so no host key in"
        f" it is trusted"
    ]


@pytest.mark.parametrize(
    ("state", "recordings", "is_warned"),
    [
        ("s", "s", True),
        ("s", "s/../s/", True),
        ("s/deep/er", "s", True),
        ("s", "/", True),
        ("s", "s/recordings", False),
        ("s", "sr", False),
        ("sr", "s", False),
    ],
)
def test_warns_of_keys_among_recordings(
    read: Read, here: Path, state: str, recordings: str, is_warned: bool
) -> None:
    it = read(f"{NOBODY}state_dir: {state}\nrecordings:\n  directory: {recordings}\n")
    directory = here / state / "recordings"
    problem = (
        f"{it.file}:5: recordings.directory: contains the files of state_dir: anyone who can read or copy"
        f" this directory gets the keys. Use another directory, like {directory}"
    )
    assert (problem in it.warnings) is is_warned is any("state_dir" in line for line in it.warnings)


@pytest.mark.parametrize("no", ["no", "off", "false", "No", '"no"', "'off'"])
def test_reads_no_as_word(read: Read, no: str) -> None:
    it = read(f"{NOBODY}session_recording: {no}\nproxy_checks_host_keys: {no}\nrecordings: {{input: {no}}}\n")
    assert (it.session_recording, it.proxy_checks_host_keys, it.recordings.input) == (
        Mode.OFF,
        False,
        InputPolicy.NO,
    )


@pytest.mark.parametrize("yes", ["yes", "on", "true", "YES", '"yes"'])
def test_reads_yes(read: Read, yes: str) -> None:
    it = read(f"{NOBODY}proxy_checks_host_keys: {yes}\nrecordings: {{input: {yes}}}\n")
    assert (it.proxy_checks_host_keys, it.recordings.input) == (True, InputPolicy.YES)


def test_reads_every_word(read: Read) -> None:
    for mode in Mode:
        assert read(f"{NOBODY}session_recording: {mode.value}").session_recording is mode
    for probe in AgentProbe:
        assert read(f"{NOBODY}agent_probe: {probe.value}").agent_probe is probe
    for inner in InnerAuth:
        assert read(f"{NOBODY}inner_auth: {inner.value}").inner_auth is inner
    for offer in TargetOffer:
        text = f"{NOBODY}targets: {{a: {{hosts: [a], algorithms: {offer.value}}}}}"
        assert read(text).targets[0].algorithms is offer
    for kept in InputPolicy:
        assert read(f"{NOBODY}recordings: {{input: {kept.value}}}").recordings.input is kept
    for fsync in Fsync:
        assert read(f"{NOBODY}recordings: {{fsync: {fsync.value}}}").recordings.fsync is fsync
    for record in Record:
        assert read(role(f"options: {{record: {record.value}}}")).roles["ops"].options.record is record
    for scope in VisibleRecordings:
        assert read(role(f"options: {{recordings: {scope.value}}}")).roles["ops"].options.recordings is scope


def test_reads_names_that_look_like_other_types(read: Read) -> None:
    it = read(role("logins: [007, yes, 1e3, 0x1f, 2026-11-23]\nhosts: [10.0.0.1]"))
    assert it.roles["ops"].logins == ("007", "yes", "1e3", "0x1f", "2026-11-23")


def test_keeps_order_of_targets(read: Read) -> None:
    it = read(NOBODY + "targets:\n  z: {hosts: [a]}\n  a: {hosts: [b]}\n")
    assert [rule.name for rule in it.targets] == ["z", "a"]
    assert (it.targets[0].algorithms, it.targets[0].upstream_auth) == (None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("proxy.example.com", Target(host="proxy.example.com")),
        ("Proxy:3023", Target(host="proxy", port=3023)),
        ("[fd00::1]:3023", Target(host="fd00::1", port=3023)),
        ("fd00::1", Target(host="fd00::1")),
    ],
)
def test_reads_public_address(read: Read, text: str, expected: Target) -> None:
    assert read(f'{NOBODY}public_address: "{text}"').public == expected


# -- users and their keys


def test_reads_keys_in_configuration_and_files(read: Read, here: Path, keys: dict[str, str]) -> None:
    (here / "joe.keys").write_text(f"# joe\n{keys['one.pub']}\n")
    it = read(
        "users:\n  joe:\n    authorized_keys_file: joe.keys\n"
        f"    authorized_keys: ['{keys['two.pub'].strip()}', '{keys['one.pub'].strip()}']\nroles: {{}}\n"
    )
    assert sorted(key.comment for key in it.users["joe"].keys) == ["one", "two"]


def test_reads_empty_key_file_as_no_keys(read: Read, here: Path) -> None:
    (here / "joe.keys").write_text("# nobody\n\n")
    assert read("users: {joe: {authorized_keys_file: joe.keys}}\nroles: {}").users["joe"].keys == ()
    assert read("users: {joe: {}}\nroles: {}").users["joe"].keys == ()
    assert read("users: {joe: }\nroles: {}").users["joe"].keys == ()


BCRYPT = "$2b$12$" + "C" * 21 + "." + "E" * 31


def test_reads_passwords(read: Read) -> None:
    totp = "gezd gnbv gy3t qojq gezd gnbv gy3t qojq"
    settings = read(
        f"users:\n  joe: {{password: '{BCRYPT}', totp: {totp}}}\n  ann: {{password: {BCRYPT}}}\n  jim: {{}}\n"
        "roles: {}\n"
    )
    joe, ann, jim = settings.users.values()
    assert (joe.password, joe.totp) == (BCRYPT.encode(), b"12345678901234567890")
    assert (ann.password, ann.totp) == (BCRYPT.encode(), b"")
    assert (jim.password, jim.totp) == (b"", b"")
    assert BCRYPT not in repr(settings) and "12345678901234567890" not in repr(settings)


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ("password: hunter22", "password"),
        ("password: $2b$04$" + BCRYPT[7:], "password"),
        ("password: " + BCRYPT[:-4], "password"),
        (f"password: {BCRYPT}, totp: HUNTER22", "totp"),
        (f"password: {BCRYPT}, totp: {'hunter18' * 4}", "totp"),
        ("password: [hunter22]", "password"),
        ("password: {hunter22: 1}", "password"),
    ],
)
def test_hides_invalid_password_in_error(read: Read, lines: str, path: str) -> None:
    (problem,) = problems(read, f"users: {{joe: {{{lines}}}}}\nroles: {{}}\n")
    assert problem.startswith(f"1 users.joe.{path}: ")
    assert "hunter" not in problem.lower()
    assert BCRYPT[7:20] not in problem


def test_warns_of_passwords_readable_by_all(here: Path) -> None:
    path = here / "config.yaml"
    text = f"users: {{joe: {{password: {BCRYPT}}}}}\nroles: {{}}\n"
    for mode, is_warned in ((0o644, True), (0o640, False)):
        path.write_text(text)
        path.chmod(mode)
        assert any("every account can read" in warning for warning in loader.load(path).warnings) is is_warned


def test_reads_keys_of_me(read: Read, here: Path, keys: dict[str, str]) -> None:
    home = here.parent / "home" / ".ssh"
    for name, line in keys.items():
        (home / name).write_text(line)
    (home / "pgp.pub").write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    (home / "binary.pub").write_bytes(b"\xff\xfe")
    (home / "a.pub").mkdir()
    it = read('users:\n  "{me}": {authorized_keys_file: ["~/.ssh/*.pub"], roles: []}\nroles: {}\n')
    assert list(it.users) == ["me"]
    assert it.users["me"].name == "me"
    assert [key.comment for key in it.users["me"].keys] == ["one", "two"]
    warnings = "\n".join(it.warnings)
    assert "pgp.pub" in warnings
    assert "binary.pub is not UTF-8 text" in warnings
    assert "cert" not in warnings


def test_warns_when_me_has_no_keys(read: Read) -> None:
    it = read('users:\n  "{me}": {authorized_keys_file: ["~/.ssh/*.pub"], roles: [r]}\nroles: {r: {}}\n')
    assert it.users["me"].keys == ()
    assert any("ssh-keygen -t ed25519" in warning and ":2:" in warning for warning in it.warnings)


def test_replaces_me_by_running_account(here: Path) -> None:
    it = loader.parse(b'users: {"{me}": {}}\nroles: {}', here / "config.yaml")
    assert list(it.users) == [pwd.getpwuid(os.getuid()).pw_name]


def test_rejects_certificate_as_key_and_authority(read: Read, keys: dict[str, str]) -> None:
    line = keys["two-cert.pub"].strip()
    (user,) = problems(read, f"users:\n  joe:\n    authorized_keys: ['{line}']\nroles: {{}}\n")
    assert user.startswith("3 users.joe.authorized_keys[0]: ")
    (authority,) = problems(read, f"{NOBODY}trusted_hosts:\n  authorities:\n    - '{line}'\n")
    assert authority.startswith("5 trusted_hosts.authorities[0]: ")


def test_reads_authorities_from_lines_and_files(read: Read, here: Path, keys: dict[str, str]) -> None:
    (here / "cas.pub").write_text(keys["one.pub"] + keys["two.pub"])
    it = read(f"{NOBODY}trusted_hosts: {{authorities: ['{keys['one.pub'].strip()}', cas.pub]}}")
    assert len(it.trusted_hosts.authorities) == 2
    assert all(blob.startswith(b"\0\0\0\x0bssh-ed25519") for blob in it.trusted_hosts.authorities)
    (problem,) = problems(
        read, f"{NOBODY}trusted_hosts: {{authorities: ['@cert-authority * {keys['one.pub'].strip()}']}}"
    )
    assert "not a line with a marker (@cert-authority)" in problem


# -- what is wrong with it


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["None : the file is empty"]),
        ("# users\n", ["None : the file is empty"]),
        ("- users\n", ["1 : expected a mapping (key: value)"]),
        ("users\n", ["1 : expected a mapping (key: value)"]),
        ("a: b\n\tc: d\n", ["2 : invalid YAML: a tab is not allowed here; indent with spaces"]),
        ("a: [b\nc: d\n",
         ["2 : invalid YAML: expected ',' or ']', but got ':', while parsing a flow sequence"]),
        ("a: 'b\n", ["2 : invalid YAML: found unexpected end of stream, while scanning a quoted scalar"]),
        ("a: b\n---\nc: d\n", ["2 : invalid YAML: but found another document,"
                               " expected a single document in the stream"]),
        ("a: *b\n", ["1 : invalid YAML: found undefined alias 'b'"]),
        ("a: b\nc: \x00\n", ["2 : the character U+0000 is not allowed"]),
        ("[" * 5000, ["None : invalid YAML: too many nested lists or mappings"]),
    ],
)  # fmt: skip
def test_rejects_invalid_yaml(read: Read, text: str, expected: list[str]) -> None:
    assert problems(read, text) == expected


def test_rejects_invalid_utf8(here: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"config\.yaml:2: the file is not UTF-8"):
        loader.parse(b"users: {}\n\xff", here / "config.yaml")


def test_reports_missing_file(here: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"nix\.yaml: cannot be read: No such file or directory"):
        loader.load(here / "nix.yaml")


def test_requires_users_and_roles(read: Read) -> None:
    assert problems(read, "cluster_name: a\n") == [
        "1 roles: is missing. To allow no access, write roles: {}",
        "1 users: is missing. To allow no access, write users: {}",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clustername: x\n" + NOBODY, ["1 clustername: unknown key; did you mean cluster_name?"]),
        (NOBODY + "users: {}\n", ["3 users: is already set in line 1"]),
        (NOBODY + "<<: {a: b}\n", ["3 : merge keys (<<) are not supported; write out the values"]),
        (NOBODY + "[a]: b\n", ["3 : invalid key: must be plain text"]),
        (NOBODY + "cluster_name: [a]\n", ["3 cluster_name: expected text, not a list"]),
        (NOBODY + "cluster_name: {a: b}\n", ["3 cluster_name: expected text, not a mapping"]),
        (NOBODY + "cluster_name:\n", ["3 cluster_name: expected text, not an empty value"]),
        (NOBODY + "cluster_name: ../x\n", ["3 cluster_name: invalid name '../x': use letters, digits,"
                                           " dots, _ and -, like example.com"]),
        (NOBODY + "cluster_name: !!python/name:os.system x\n",
         ["3 cluster_name: expected text, not the tag !!python/name:os.system"]),
        (NOBODY + "session_recording: of\n",
         ["3 session_recording: invalid value 'of': must be one of proxy, proxy-sync, node, off; did you"
          " mean off?"]),
        (NOBODY + "session_recording: yes\n",
         ["3 session_recording: invalid value 'yes': must be one of proxy, proxy-sync, node, off"]),
        (NOBODY + "proxy_checks_host_keys: maybe\n",
         ["3 proxy_checks_host_keys: invalid value 'maybe': must be yes or no"]),
        (NOBODY + "upstream_auth: agent\n", ["3 upstream_auth: expected a list, like ['agent']"]),
        (NOBODY + "upstream_auth: []\n", ["3 upstream_auth: is empty: list at least one method, like"
                                          " [agent, certificate]"]),
        ("users: {joe: {roles: ['ops until 2020-01-01', ops]}}\nroles: {ops: {logins: [a], hosts: [b]}}\n",
         ["1 users.joe.roles[1]: role ops is listed twice, with different ends; keep one"]),
        ("users: {joe: {roles: [ops, 'ops until 2020-01-01']}}\nroles: {ops: {logins: [a], hosts: [b]}}\n",
         ["1 users.joe.roles[1]: role ops is listed twice, with different ends; keep one"]),
        ("users: {}\nroles: {ops: {logins: [a], hosts: [b], options: {approval: []}}}\n",
         ["2 roles.ops.options.approval: is empty: list the roles that may approve, or remove the setting"]),
        (NOBODY + "targets: {a: {hosts: [b, 'b:22'], port: 2222}}\n",
         ["3 targets.a.hosts: remove the port of b:22: this group sets port 2222, and the proxy"
          " connects to it when a user asks for port 22"]),
        (NOBODY + "upstream_auth: [agent, agent]\n", ["3 upstream_auth[1]: agent is listed twice"]),
        (NOBODY + "upstream_auth: [agent, agnt]\n",
         ["3 upstream_auth[1]: invalid value 'agnt': must be one of agent, certificate, prompt; did you"
          " mean agent?"]),
        (NOBODY + "listen: []\n", ["3 listen: is empty: the proxy needs at least one endpoint, like"
         " tcp:3023"]),
        (NOBODY + "listen: tcp:22\n", ["3 listen: expected a list, like ['tcp:22']"]),
        (NOBODY + "listen: ['tpc:22']\n",
         ["3 listen[0]: unknown endpoint type 'tpc'; did you mean tcp?"]),
        (NOBODY + "listen:\n - tcp:22\n - tcp:x\n",
         ["5 listen[1]: invalid endpoint 'tcp:x': needs a port from 0 to 65535, like"
          " tcp:3023:interface=127.0.0.1"]),
        (NOBODY + "listen: ['haproxy:tcp:22']\n",
         ["3 listen[0]: haproxy needs proxy_protocol_from: list the addresses of the load balancers there"
          " (without it every client could claim any address)"]),
        (NOBODY + "proxy_protocol_from: [lb1]\n",
         ["3 proxy_protocol_from[0]: invalid network 'lb1': must be an IP address or a network, like"
          " 10.0.0.0/8"]),
        (NOBODY + "public_address: 'a b'\n",
         ["3 public_address: invalid address 'a b': must be HOST or HOST:PORT, like proxy.example.com:3023"]),
        (NOBODY + "public_address: 'a:99999'\n",
         ["3 public_address: invalid address 'a:99999': must be HOST or HOST:PORT, like"
          " proxy.example.com:3023"]),
        (NOBODY + 'notice: "a\\e[2J"\n', ["3 notice: contains control characters: only text, tabs and"
                                          " line breaks are allowed"]),
        (NOBODY + "state_dir: ''\n", ["3 state_dir: expected a path"]),
        ('users:\n  joe: {authorized_keys_file: "a\\0b"}\nroles: {}\n',
         ["2 users.joe.authorized_keys_file: expected a path"]),
        (NOBODY + "trusted_hosts: {known_hosts: ['']}\n",
         ["3 trusted_hosts.known_hosts[0]: expected a path"]),
        (NOBODY + 'trusted_hosts: {authorities: ["\\0"]}\n',
         ["3 trusted_hosts.authorities[0]: expected a path"]),
        (NOBODY + "limits: [1]\n", ["3 limits: expected a mapping (key: value)"]),
        (NOBODY + "limits:\n  tries: 0\n", ["4 limits.tries: invalid number '0': must be a whole number"
                                            " from 1 to 1000"]),
        (NOBODY + "limits: {tries: six}\n", ["3 limits.tries: invalid number 'six': must be a whole"
                                             " number from 1 to 1000"]),
        (NOBODY + "limits: {login_time: 90}\n",
         ["3 limits.login_time: invalid duration '90': add a unit: 90s, 90m, 90h or 90d"]),
        (NOBODY + "limits: {login_time: 0s}\n",
         ["3 limits.login_time: invalid duration '0s': must be longer than zero; to use"
          " the default, remove the setting"]),
        (NOBODY + "limits: {login_time: 0}\n",
         ["3 limits.login_time: invalid duration '0': must be longer than zero; to use"
          " the default, remove the setting"]),
        ("users: {}\nroles: {ops: {logins: [{user}], hosts: [a]}}\n",
         ["2 roles.ops.logins[0]: expected text, not a mapping "
          "(put text that begins with { in quotes)"]),
        ("users: {}\nroles:\n  ops: {logins: [a], hosts: [*.example.com]}\n",
         ["3 : invalid YAML: expected alphabetic or numeric character, but found '.' "
          "(put text that begins with * in quotes), while scanning an alias"]),
        ("users: {}\nroles: {ops: {logins: [a], hosts: [a], options: {expires: 2027-02-30}}}\n",
         ["2 roles.ops.options.expires: invalid time '2027-02-30': day is out of range for month"]),
        ("users: {}\nroles: {ops: {logins: [a], hosts: [a], options: {times: [Mars]}}}\n",
         ["2 roles.ops.options.times[0]: invalid time window 'Mars': it has no times; write it like "
          "mon-fri 08:00-18:00 Europe/Berlin"]),
        (NOBODY + "limits: {login_time: soon}\n",
         ["3 limits.login_time: invalid duration 'soon': write it like 30s, 15m, 12h or 90d"]),
        (NOBODY + "limits: {logintime: 3s}\n", ["3 limits.logintime: unknown key; did you mean login_time?"]),
        (NOBODY + "limits: {rekey_bytes: 1000KiB}\n",
         ["3 limits.rekey_bytes: invalid size '1000KiB': must be at least 1MiB"]),
        (NOBODY + "limits: {rekey_bytes: 33GiB}\n",
         ["3 limits.rekey_bytes: invalid size '33GiB': must be at most 32GiB"]),
        (NOBODY + "limits: {rekey_bytes: 0}\n",
         ["3 limits.rekey_bytes: invalid size '0': must be at least 1MiB"]),
        (NOBODY + "recordings: {min_free: 5}\n",
         ["3 recordings.min_free: invalid size '5': write it with a unit, like 500MiB, 2GiB or 10GB"]),
        (NOBODY + "trusted_hosts: {authorities: [nix.pub]}\n",
         ["3 trusted_hosts.authorities[0]: cannot read HERE/nix.pub: No such file or directory"]),
        (NOBODY + "targets: {db: {}}\n", ["3 targets.db: has no hosts: list the hosts that the rule is for"]),
        (NOBODY + "targets: {db: {hosts: [a], labels: [b]}}\n",
         ["3 targets.db.labels: expected a mapping (key: value)"]),
        (NOBODY + "targets: {db: {hosts: [a], algorithms: lagacy}}\n",
         ["3 targets.db.algorithms: invalid value 'lagacy': must be one of modern, compatible, legacy;"
          " did you mean legacy?"]),
        ("users:\n  joe: {authorized_keys_file: nix.keys}\nroles: {}\n",
         ["2 users.joe.authorized_keys_file: cannot read HERE/nix.keys: No such file or directory"]),
        ("users:\n  joe: {roles: [op, ops, nix]}\nroles:\n  ops: {}\n",
         ["2 users.joe.roles[0]: unknown role op; did you mean ops?",
          "2 users.joe.roles[2]: unknown role nix; known: ops"]),
        ("users: {joe: {}, joe: {}}\nroles: {}\n", ["1 users.joe: is already set in line 1"]),
        ('users: {me: {}, "{me}": {}}\nroles: {}\n', ["1 users.{me}: the user me is listed twice ({me}"
                                                      " stands for me)"]),
        ("users: {'a b': {}}\nroles: {}\n",
         ["1 users.'a b': invalid user name: use letters, digits and . _ @ + -; it must not begin with -"]),
        ("users: {'{you}': {}}\nroles: {}\n",
         ["1 users.{you}: invalid user name: use letters, digits and . _ @ + -; it must not begin with -"]),
        ("users: {'a,b': {}}\nroles: {}\n",
         ["1 users.a,b: invalid user name: use letters, digits and . _ @ + -; it must not begin with -"]),
        ("users: {joe: {rols: [a]}}\nroles: {}\n", ["1 users.joe.rols: unknown key; did you mean roles?"]),
        ("users: {joe: {zzz: [a]}}\nroles: {}\n",
         ["1 users.joe.zzz: unknown key; known: authorized_keys_file, authorized_keys, password, totp, "
          "roles"]),
    ],
)  # fmt: skip
def test_reports_problem_with_line(read: Read, here: Path, text: str, expected: list[str]) -> None:
    assert [problem.replace(str(here), "HERE") for problem in problems(read, text)] == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("hosts: a", ["4 roles.ops.hosts: expected a list, like ['a']"]),
        ("hosts:\n- a\n- [b]", ["6 roles.ops.hosts[1]: expected text, not a list"]),
        ("hosts: [a, 10.0.0.1/8]",
         ["4 roles.ops.hosts[1]: invalid network '10.0.0.1/8': it is an address in a network; the network"
          " is 10.0.0.0/8"]),
        ("hosts: [10.0.*]",
         ["4 roles.ops.hosts[0]: invalid host pattern '10.0.*': it would also match names; write a"
          " network, like 10.0.0.0/8"]),
        ("hosts: ['a b']", ["4 roles.ops.hosts[0]: invalid host pattern 'a b': write it like"
                            " *.example.com, 10.0.0.0/8, db1:2222 or [fd00::1]:22"]),
        ("hosts: ['[fd00::1']", ["4 roles.ops.hosts[0]: invalid host pattern '[fd00::1': write IPv6"
                                 " addresses like [fd00::1]:22"]),
        ("hosts: ['a:0']", ["4 roles.ops.hosts[0]: invalid host pattern 'a:0': the port must be from 1 to"
                            " 65535"]),
        ("hosts: ['']", ["4 roles.ops.hosts[0]: invalid host pattern '': write it like"
                         " *.example.com, 10.0.0.0/8, db1:2222 or [fd00::1]:22"]),
        ("hosts: [0x7f000001]",
         ["4 roles.ops.hosts[0]: invalid host pattern '0x7f000001': write an address in full, like"
          " 127.0.0.1"]),
        ("logins: ['']",
         ["4 roles.ops.logins[0]: invalid login '': must be a name, {user}, or a pattern with * and ?"]),
        ("logins: ['{usr}']",
         ["4 roles.ops.logins[0]: invalid login '{usr}': must be a name, {user}, or a pattern with * and ?"]),
        ("deny: {host: [a]}", ["4 roles.ops.deny.host: unknown key; did you mean hosts?"]),
        ("deny: {hosts: [10.*]}",
         ["4 roles.ops.deny.hosts[0]: invalid host pattern '10.*': it would also match names; write a"
          " network, like 10.0.0.0/8"]),
        ("options:\n  max_session_ttl: 12", ["5 roles.ops.options.max_session_ttl: invalid duration '12':"
                                             " add a unit: 12s, 12m, 12h or 12d"]),
        ("options: {max_sessions: 0}",
         ["4 roles.ops.options.max_sessions: invalid number '0': must be a whole number from 1 to 1000000"]),
        ("options: {record: loose}",
         ["4 roles.ops.options.record: invalid value 'loose': must be one of strict, best_effort"]),
        ("options: {source: [home]}",
         ["4 roles.ops.options.source[0]: invalid network 'home': must be an IP address or a network,"
          " like 10.0.0.0/8"]),
        ("options: {fileCopy: no}", ["4 roles.ops.options.fileCopy: unknown key; did you mean file_copy?"]),
    ],
)  # fmt: skip
def test_reports_problem_of_role_with_line(read: Read, lines: str, expected: list[str]) -> None:
    assert problems(read, role(lines)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "upstream_auth: [agent, key]",
        "targets: {db: {hosts: [a], upstream_auth: [key]}}",
    ],
)
def test_rejects_settings_of_later_versions(read: Read, text: str) -> None:
    (problem,) = problems(read, NOBODY + text)
    assert "is not available in this version" in problem


def test_requires_prompt_as_last_method(read: Read) -> None:
    text = NOBODY + "upstream_auth: [agent, prompt]"
    assert read(text).upstream_auth == (UpstreamAuth.AGENT, UpstreamAuth.PROMPT)
    (problem,) = problems(read, NOBODY + "upstream_auth: [prompt, agent]")
    assert problem.endswith(
        "upstream_auth: prompt must be last: users are asked only after all other methods have failed"
    )


def test_warns_of_direct_role(read: Read) -> None:
    it = read(role("options: {direct: yes}"))
    assert it.roles["ops"].direct
    (warning,) = [warning for warning in it.warnings if "options.direct" in warning]
    assert ":4: roles.ops.options.direct: with a certificate, users can log in at every host" in warning
    it = read(role("options: {direct: no}"))
    assert not it.roles["ops"].direct
    assert "options.direct" not in "".join(it.warnings)


def test_reads_settings_of_recordings(read: Read) -> None:
    it = read(NOBODY).recordings
    assert (it.compress, it.encrypt_to, it.retention) == (False, (), Retention(age=None, size=0))
    key = f"{RecordingSigner.generate().public_line} auditor"
    age = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
    it = read(
        NOBODY
        + f"recordings: {{compress: yes, encrypt_to: [{age}, {key}], retention: {{age: 30d, size: 1GiB}}}}"
    ).recordings
    assert (it.compress, it.encrypt_to) == (True, (age, key))
    assert it.retention == Retention(age=timedelta(days=30), size=2**30)


@pytest.mark.parametrize("key", ["age1xyz", "ecdsa-sha2-nistp256 AAAA", "joe", "''"])
def test_rejects_invalid_recipient(read: Read, key: str) -> None:
    (problem,) = problems(read, NOBODY + f"recordings: {{encrypt_to: [{key}]}}")
    assert "recordings.encrypt_to[0]: invalid key: must be an age public key" in problem


def test_reads_settings_of_audit(read: Read) -> None:
    assert read(NOBODY).audit.syslog is None
    assert read(NOBODY + "audit: {syslog: no}").audit.syslog is None
    assert read(NOBODY + "audit: {syslog: yes}").audit.syslog == Path("/dev/log")
    assert read(NOBODY + "audit: {syslog: /run/log}").audit.syslog == Path("/run/log")
    (problem,) = problems(read, NOBODY + "audit: {syslog: perhaps}")
    assert "invalid value 'perhaps': must be yes or no" in problem


def test_reports_all_problems_in_order(read: Read) -> None:
    text = (
        "listen: []\nusers: {joe: {roles: [x]}}\nroles: {ops: {hosts: [10.*]}}\nlimits: {tries: 0}\nnix: 1\n"
    )
    assert [problem.split(":")[0] for problem in problems(read, text)] == [
        "1 listen", "2 users.joe.roles[0]", "3 roles.ops.hosts[0]", "4 limits.tries", "5 nix",
    ]  # fmt: skip
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert lines[0].endswith(
        "config.yaml:1: listen: is empty: the proxy needs at least one endpoint, like tcp:3023"
    )
    assert caught.value.public.startswith("5 problems in ")


def test_loads_configuration_with_warnings(read: Read) -> None:
    it = read("users: {joe: {}}\nroles: {ops: {hosts: [a]}}\nproxy_checks_host_keys: no\n")
    assert [warning.partition("config.yaml:")[2] for warning in it.warnings] == [
        "1: users.joe: joe has no role and can reach no target",
        "2: roles.ops: has no logins: the role allows no login",
        "3: proxy_checks_host_keys: host keys are not checked: an attacker between the proxy and a target"
        " can read and"
        " change sessions",
    ]


@pytest.mark.parametrize("text", ["users: &a\n  joe: *a\nroles: {}\n", NOBODY + "web: &a\n  listen: [*a]\n"])
def test_rejects_recursive_aliases(read: Read, text: str) -> None:
    assert problems(read, text)


@given(st.text(st.characters(codec="utf-8")) | st.binary())
def test_reads_or_rejects_any_text(text: str | bytes) -> None:
    raw = text.encode() if isinstance(text, str) else text
    with contextlib.suppress(ConfigErrors):
        loader.parse(raw, Path("/nowhere/config.yaml"))


SETTINGS = [
    "cluster_name", "state_dir", "listen", "session_recording", "trusted_hosts", "upstream_auth", "users",
    "roles", "targets", "limits", "recordings", "audit", "web", "notice",
]  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(["no", "\0", "~x/*", "5", "x", "", "12h", "*", "[::1]:22", "10.0.0.0/8"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["hosts", "logins", "deny", "options", "listen", "known_hosts", "roles", "x", "joe"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(SETTINGS), VALUES))
def test_reads_or_rejects_any_value(settings: dict[str, object]) -> None:
    errors: tuple[ConfigError, ...] = ()
    try:
        loader.parse(json.dumps(settings).encode(), Path("/nowhere/config.yaml"), me="me")
    except ConfigErrors as caught:
        errors = caught.errors
    assert all(error.line == 1 for error in errors)


# -- units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("12h", 43200), ("90d", 90 * 86400), ("2w", 14 * 86400), ("1h30m", 5400)],
)
def test_parses_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "-5s", "5 s", "s", "5y", "0s", "1.5h", "99999999999d", "1s" * 40, "٣s", "5S"]
)
def test_rejects_invalid_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("7b", 7),
        ("1KiB", 1024),
        ("500MiB", 500 * 2**20),
        ("2 GiB", 2**31),
        ("3kB", 3000),
        ("1TB", 10**12),
    ],
)
def test_parses_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "-1MiB", "5X", "1.5GiB", "9" * 30 + "B", "٣B"])
def test_rejects_invalid_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_size(text)


# -- the files that we give away


def test_loads_sample_configuration(tmp_path: Path, keys: dict[str, str]) -> None:
    (tmp_path / "joe.keys").write_text(keys["one.pub"])
    path = tmp_path / "config.yaml"
    path.write_text((ETC / "config.yaml").read_text())
    it = loader.load(path)
    assert it.warnings == ()
    # what is commented out is the default, and can be put in
    text = path.read_text()
    for line in text.splitlines():
        stripped = line.lstrip()
        if stripped.startswith(
            ("# session_recording:", "# upstream_auth:", "# agent_probe:", "# inner_auth:")
        ):
            text = text.replace(line, stripped[2:])
    assert loader.parse(text.encode(), path) == it


def test_reads_web_endpoints(read: Read) -> None:
    """Nothing listens unless it is asked for."""
    for text in ("", "web: {}", "web:", "web: {listen: []}"):
        assert read(NOBODY + text).web.listen == ()
    listen = ("tcp:3080:interface=127.0.0.1", "ssl:3443:privateKey=k:certKey=c", "unix:/run/web")
    assert read(NOBODY + f"web: {{listen: {list(listen)}}}").web.listen == listen
    assert problems(read, NOBODY + "web: {listen: ['http:80', 'ssl:no', 'haproxy:tcp:80'], port: 80}") == [
        "3 web.listen[0]: unknown endpoint type 'http'; known: tcp, tcp6, unix, systemd, fd, haproxy, ssl",
        "3 web.listen[1]: invalid endpoint 'ssl:no': needs a port from 0 to 65535, like"
        " tcp:3023:interface=127.0.0.1",
        "3 web.listen[2]: haproxy needs proxy_protocol_from: list the addresses of the load balancers"
        " there (without it every client could claim any address)",
        "3 web.port: unknown key; known: listen",
    ]


def test_reads_agent_of_authorities(read: Read, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(NOBODY).ca_agent == ""
    assert read(NOBODY + "ca_agent: ../run/agent\n").ca_agent == str(here.parent / "run/agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/mine")
    assert read(NOBODY + "ca_agent: SSH_AUTH_SOCK\n").ca_agent == "/run/mine"
    monkeypatch.delenv("SSH_AUTH_SOCK")
    assert problems(read, NOBODY + "ca_agent: SSH_AUTH_SOCK\n") == [
        "3 ca_agent: SSH_AUTH_SOCK is not set; start an ssh-agent, or write the path of its socket"
    ]


def test_lists_every_setting_in_sample() -> None:
    text = (ETC / "config.yaml").read_text()
    keys = (*loader.TOP, *loader.USER, *roles.ROLE, *roles.OPTIONS, *loader.TARGET, *loader.LIMITS)
    assert [key for key in keys if f"{key}:" not in text] == []


#: A setting of the sample that is commented out: indentation, setting, its name, the comment behind it.
_COMMENTED_OUT = re.compile(r"^( *)# ((?:  )?([a-z0-9_]+): [^#\n]*)(#.*)?$", re.MULTILINE)
#: Settings that the sample shows with an example, because their default cannot be written.
_EXAMPLES = ("ca_agent", "web")


def test_shows_defaults_in_sample(read: Read, here: Path) -> None:
    """A setting that is commented out has its default, unless the comment behind it names the default."""
    (here / "joe.keys").write_text("")
    sample = (ETC / "config.yaml").read_text()
    keys = {*loader.TOP, *roles.OPTIONS, *loader.LIMITS, *Recordings.__slots__, *Audit.__slots__}
    shown: set[str] = set()

    def uncomment(match: re.Match[str]) -> str:
        indent, setting, name, comment = match.groups(default="")
        if name not in keys or name in _EXAMPLES or "default:" in comment:
            return match[0]
        shown.add(name)
        return indent + setting

    def effective(config: Config) -> tuple[object, ...]:
        """The configuration, with the options of its only role as they take effect."""
        options = config.roles["ops"].options
        role = replace(config.roles["ops"], options=RoleOptions())
        bare = replace(config, roles={}, warnings=())
        return bare, role, combine([options], [options]), options.recordings

    with_defaults = _COMMENTED_OUT.sub(uncomment, sample.replace("# limits:\n", "limits:\n"))
    assert {"session_recording", "shell", "max_sessions", "sessions_per_user", "input", "min_free"} <= shown
    assert effective(read(with_defaults)) == effective(read(sample))


def test_loads_quickstart_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    it = loader.load(ETC / "quickstart.yaml", me="joe")
    assert it.listen == ("tcp:3023:interface=127.0.0.1",)
    assert it.state_dir == ETC.parent / "var"
    assert it.trusted_hosts.known_hosts[0] == tmp_path / ".ssh/known_hosts"
    assert "ssh-keygen" in "".join(it.warnings)
    (tmp_path / ".ssh/id_ed25519.pub").write_text(keys["one.pub"])
    it = loader.load(ETC / "quickstart.yaml", me="joe")
    assert [key.comment for key in it.users["joe"].keys] == ["one"]
    assert it.warnings == ()


@pytest.mark.parametrize(
    ("written", "begin", "rate", "full"), [("500", 300, 30, 500), ("10:30:60", 10, 30, 60), ("1", 0, 30, 1)]
)
def test_reads_limit_of_unauthenticated_connections(
    read: Read, written: str, begin: int, rate: int, full: int
) -> None:
    limits = read(NOBODY + f"limits: {{unauthenticated: '{written}'}}\n").limits
    assert limits.unauthenticated == Startups(begin=begin, rate=rate, full=full)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("0", "the number must be greater than 0"),
        ("0:30:0", "FULL must be greater than 0"),
        ("60:30:10", "BEGIN must not be greater than FULL"),
        ("10:0:60", "PERCENT must be from 1 to 100"),
        ("10:101:60", "PERCENT must be from 1 to 100"),
        *((written, "must be a number, like 500, or BEGIN") for written in ("no", "10:30", "-1", "1:2:3:4")),
    ],
)
def test_rejects_invalid_limit_of_unauthenticated_connections(read: Read, written: str, reason: str) -> None:
    (problem,) = problems(read, NOBODY + f"limits: {{unauthenticated: '{written}'}}\n")
    assert f"invalid value '{written}': {reason}" in problem


# -- groups of targets as the hosts of a role


GROUPED = """\
users: {}
roles:
  ops:
    logins: [root]
    hosts: ["group:web", "label:tier=data", other]
    deny: {hosts: ["group:web"]}
targets:
  web: {hosts: [web1, "10.1.0.0/16"]}
  db: {hosts: ["db*:2222"], labels: {tier: data}}
"""


def test_expands_groups_to_hosts(read: Read) -> None:
    ops = read(GROUPED).roles["ops"]
    assert [str(host) for host in ops.hosts] == [
        "web1 (group:web)", "10.1.0.0/16 (group:web)", "db*:2222 (label:tier=data)", "other",
    ]  # fmt: skip
    assert [(host.text, host.port, host.line) for host in ops.hosts] == [
        ("web1", None, 5), ("10.1.0.0/16", None, 5), ("db*:2222", 2222, 5), ("other", None, 5),
    ]  # fmt: skip
    assert [str(host) for host in ops.deny_hosts] == ["web1 (group:web)", "10.1.0.0/16 (group:web)"]


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("group:wep", "unknown group of targets wep; did you mean web?"),
        ("label:tier=date", "no group in targets has the label tier: date"),
        ("label:tier", "invalid label 'label:tier': write label:KEY=VALUE, like label:tier=data"),
    ],
)
def test_rejects_unknown_groups(read: Read, written: str, problem: str) -> None:
    text = GROUPED.replace('"label:tier=data"', f'"{written}"')
    assert problems(read, text) == [f"5 roles.ops.hosts[1]: {problem}"]
