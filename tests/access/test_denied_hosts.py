"""No spelling, port or address of a denied host is allowed; and what is no host at all."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.access.locks import Lock, LockKind
from conchrec.access.patterns import HostPattern
from conchrec.access.policy import Allow, Decision, Deny, Policy, decide
from conchrec.access.time_windows import parse_moment
from conchrec.config.loader import parse
from conchrec.config.model import Config
from conchrec.config.target_rules import given_address, located, other_ports
from conchrec.model import Identity, named_target

NOW = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
CONFIG = """\
users: {joe: {roles: [ops]}}
roles:
  ops: {logins: [root], hosts: ["*", "0.0.0.0/0", "::/0"], deny: {hosts: [DENIED]}}
targets:
  db: {hosts: [db1, db2], address: 192.0.2.5, port: 2222, labels: {tier: data}}
  shared: {hosts: [web1], address: 192.0.2.9}
  other: {hosts: [web2], address: 192.0.2.9, port: 2200}
"""


def config(denied: str) -> Config:
    return parse(CONFIG.replace("DENIED", f"'{denied}'").encode(), Path("/etc/conchrec/config.yaml"))


def answer(
    it: Config, host: str, port: int = 22, *resolved: str, locks: tuple[Lock, ...] = ()
) -> Decision | None:
    """As the proxy does it, from what the user types on; None where that is no host and port."""
    target = named_target(host, str(port))
    if target is None:
        return None
    target = located(target, it.targets)
    addresses = given_address(target, it.targets) or resolved
    policy = Policy(roles=it.roles, locks=locks)
    identity = Identity(user="joe", method="publickey", roles=("ops",))
    ports = other_ports(target, target, it.targets)
    return decide(policy, identity, target, addresses, "root", "198.51.100.1", NOW, other_ports=ports)


ELSEWHERE = "nowhere.example"


@pytest.mark.parametrize(
    ("denied", "host", "port", "refused"),
    [
        # A group's own port is the one that is meant by 22.
        ("db1:22", "db1", 22, True), ("db1:22", "db1", 2222, True), ("db1:2222", "db1", 22, True),
        ("db1:22", "db1", 2200, False), ("db2:22", "db1", 22, False), ("web1:2200", "web1", 22, False),
        # Its address is its hosts, too; at its port, for others may share the address.
        ("group:db", "db1", 22, True), ("group:db", "192.0.2.5", 2222, True),
        ("group:db", "192.0.2.5", 22, False),
        ("label:tier=data", "192.0.2.5", 2222, True), ("group:other", "192.0.2.9", 2200, True),
        ("group:other", "192.0.2.9", 22, False), ("group:shared", "192.0.2.9", 2200, True),
        ("group:other", "web1", 22, False),
    ],
)  # fmt: skip
def test_denies_hosts_of_groups(denied: str, host: str, port: int, refused: bool) -> None:
    it = config(denied)
    assert isinstance(answer(it, host, port), Deny if refused else Allow)
    if not denied.startswith(("group:", "label:")):
        lock = Lock(kind=LockKind.TARGET, name=denied)
        locked = answer(config(ELSEWHERE), host, port, locks=(lock,))
        assert isinstance(locked, Deny if refused else Allow), "a lock holds as a deny does"


@pytest.mark.parametrize(
    "host",
    [
        "vault.example.com", "VAULT.example.COM", "vault.example.com.", "Vault.Example.Com..",
        "[vault.example.com]",
        "vault.example.com%eth0", "vault.example.com\x00", "vault.example.com ",
        " vault.example.com",
        "vault.example.com:22", "ｖault.example.com", "vault。example.com", "vault．example.com",
        "vau\u00adlt.example.com",
        "vault..example.com", ".vault.example.com", "vault.example.com/",
        "user@vault.example.com", "vault.example.com#",
    ],
)  # fmt: skip
def test_denies_every_spelling_of_name(host: str) -> None:
    assert not isinstance(answer(config("vault.example.com"), host), Allow)


@pytest.mark.parametrize(
    "host",
    [
        "10.1.2.3", "::ffff:10.1.2.3", "::ffff:a01:203", "[::ffff:10.1.2.3]",
        "::FFFF:0a01:0203", "::10.1.2.3",
        "64:ff9b::10.1.2.3", "2002:a01:203::1", "0:0:0:0:0:ffff:10.1.2.3", "10.1.2.3.", "10.1.515",
        "10.66051",
        "167838211", "0xa010203", "0x0a.1.2.3", "012.1.2.3", "010.001.002.003", "10.1.2.0x3", "10.1.2.03",
        "10.1.2.3%1",
        "::ffff:10.1.2.3%1", "1０.1.2.3", "10。1.2.3", "١٠.1.2.3", "0x7f.1", "0", "0.0.0.0", "::",
        "[::]",
    ],
)  # fmt: skip
def test_denies_every_spelling_of_address(host: str) -> None:
    """Nor of this machine by another name."""
    assert not isinstance(answer(config("10.0.0.0/8"), host, 22, "198.51.100.9"), Allow)


@given(st.integers(0, 2**24 - 1), st.sampled_from(["{}", "::ffff:{}", "[::ffff:{}]", "::{}", "64:ff9b::{}"]))
def test_denies_every_form_of_address_in_network(number: int, form: str) -> None:
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    assert not isinstance(answer(config("10.0.0.0/8"), form.format(address)), Allow)
    assert not isinstance(answer(config("10.0.0.0/8"), "name.example", 22, "198.51.100.9", address), Allow)


@pytest.mark.parametrize(
    "port", ["0", "65536", "70000", "-1", "+22", "022222", "２２", "22 ", "", "0x16", "ssh"]
)
def test_rejects_invalid_ports(port: str) -> None:
    assert named_target("web1", port) is None


@pytest.mark.parametrize("pattern", ["*.", "*.:22", ".", ".*", "*:0", "*:65536"])
def test_rejects_narrow_pattern_that_matches_every_host(pattern: str) -> None:
    try:
        parsed = HostPattern.parse(pattern)
    except ValueError:
        return
    assert parsed.name is not None and not parsed.name.match("web1")


@pytest.mark.parametrize(
    "text", ["0001-01-01", "9999-12-31 23:59", "1969-12-31", "9001-01-01 Pacific/Kiritimati"]
)
def test_rejects_times_outside_supported_years(text: str) -> None:
    with pytest.raises(ValueError, match="the year must be from 1970 to 9000"):
        parse_moment(text)
