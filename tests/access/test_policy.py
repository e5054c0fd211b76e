"""Who may log in where."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.access.closed_options import ClosedOption, find_closed_option
from conchrec.access.command_patterns import CommandPattern
from conchrec.access.host_rules import rule_for
from conchrec.access.locks import Lock, LockKind
from conchrec.access.options import Mfa, Record, RoleOptions, SessionOptions, VisibleRecordings, switches
from conchrec.access.patterns import HostPattern, parse_network
from conchrec.access.policy import (
    Allow,
    Decision,
    Deny,
    Policy,
    active,
    cited,
    decide,
    may_reach,
    reachable,
    visible_recordings,
)
from conchrec.access.role import Role
from conchrec.access.time_windows import Window
from conchrec.model import Identity, Target

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
HERE = "192.0.2.7"


def hosts(*patterns: str) -> tuple[HostPattern, ...]:
    return tuple(HostPattern.parse(pattern) for pattern in patterns)


def role(
    name: str = "ops",
    *,
    on: tuple[str, ...] = ("*.example.com",),
    logins: tuple[str, ...] = ("root",),
    deny: tuple[str, ...] = (),
    deny_logins: tuple[str, ...] = (),
    source: tuple[str, ...] | None = None,
    options: RoleOptions | None = None,
) -> Role:
    return Role(
        name=name,
        hosts=hosts(*on),
        logins=logins,
        deny_hosts=hosts(*deny),
        deny_logins=deny_logins,
        source=None if source is None else tuple(parse_network(network) for network in source),
        options=options or RoleOptions(),
    )


def joe(*roles: Role, expires: datetime | None = None) -> tuple[Policy, Identity]:
    policy = Policy(roles={role.name: role for role in roles})
    names = tuple(role.name for role in roles)
    return policy, Identity(user="joe", method="publickey", roles=names, expires=expires)


def decision_of(
    who: tuple[Policy, Identity],
    host: str = "web1.example.com",
    *addresses: str,
    login: str = "root",
    port: int = 22,
    source: str = HERE,
) -> Decision:
    policy, identity = who
    return decide(policy, identity, Target(host=host, port=port), addresses, login, source, NOW)


def reason(decision: Decision) -> str:
    assert isinstance(decision, Deny)
    return decision.reason


def allowed(decision: Decision) -> Allow:
    assert isinstance(decision, Allow), decision
    return decision


# -- hosts


@pytest.mark.parametrize(
    ("pattern", "host", "addresses", "port"),
    [
        ("web1", "web1", (), 22),
        ("WEB1", "Web1", (), 22),
        ("web1.", "web1", (), 22),
        ("web1", "web1.", (), 22),
        ("*.example.com", "a.b.example.com", (), 2222),
        ("web?", "web7", (), 22),
        ("*", "anything", (), 22),
        ("*", "10.1.2.3", (), 22),
        ("db1:2222", "db1", (), 2222),
        ("*:2222", "db1", (), 2222),
        ("db1:*", "db1", (), 7),
        ("10.0.0.0/8", "10.1.2.3", (), 22),
        ("10.0.0.0/8", "web1", ("10.1.2.3",), 22),
        ("10.1.2.3", "web1", ("10.1.2.3",), 22),
        ("10.0.0.0/8:2222", "10.1.2.3", (), 2222),
        ("10.0.0.0/8", "::ffff:10.1.2.3", (), 22),
        ("::ffff:10.0.0.0/104", "10.1.2.3", (), 22),
        ("fd00::/8", "fd12::1", (), 22),
        ("[fd00::/8]:22", "web1", ("fd12::1",), 22),
        ("fe80::/10", "fe80::1%eth0", (), 22),
    ],
)
def test_allows_host_by_name_or_address(
    pattern: str, host: str, addresses: tuple[str, ...], port: int
) -> None:
    allowed(decision_of(joe(role(on=(pattern,))), host, *addresses, port=port))
    denied = decision_of(joe(role(on=("*",), deny=(pattern,))), host, *addresses, port=port)
    assert "(role ops denies it)" in reason(denied)


@pytest.mark.parametrize(
    ("pattern", "host", "addresses", "port"),
    [
        ("*.example.com", "example.com", (), 22),
        ("*.example.com", "web1.example.com.evil.org", (), 22),
        ("web1", "xweb1", (), 22),
        ("db1:2222", "db1", (), 22),
        ("10.0.0.0/8:2222", "10.1.2.3", (), 22),
        ("10.0.0.0/8", "11.1.2.3", (), 22),
        ("10.0.0.0/8", "web1", (), 22),
        ("fd00::/8", "10.0.0.1", (), 22),
        ("de*", "dead:beef::1", (), 22),
        ("*1", "10.0.0.1", (), 22),
    ],
)
def test_denies_host_without_matching_pattern(
    pattern: str, host: str, addresses: tuple[str, ...], port: int
) -> None:
    assert "(no role of joe allows it)" in reason(
        decision_of(joe(role(on=(pattern,))), host, *addresses, port=port)
    )


@pytest.mark.parametrize(
    "host",
    [
        "0x7f000001", "0x7f.1", "127.1", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.01", "1",
        "0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "[::1]", "web1:22",
        "ｖault.example.com", "v\u212aault.example.com", "vault。example.com", "va\u00adult.example.com",
        "", ".", "..", "a..b", "-oProxyCommand=x", "a b", "a\nb", "a\0b", "web1\x1b[2J", "x" * 254, "../x",
        "*",
    ],
)  # fmt: skip
def test_denies_spellings_that_resolvers_fold(host: str) -> None:
    decision = decision_of(joe(role(on=("*",))), host, "127.0.0.1")
    assert reason(decision).isprintable()


def test_denies_host_by_resolved_address() -> None:
    everywhere = joe(role(on=("*",), deny=("127.0.0.0/8", "::1")))
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "::1"):
        assert "denies" in reason(decision_of(everywhere, "rebound.example.com", "198.51.100.1", address))
    allowed(decision_of(everywhere, "rebound.example.com", "198.51.100.1"))


@pytest.mark.parametrize(
    "address",
    ["64:ff9b::10.1.2.3", "2002:0a01:0203::1", "::ffff:10.1.2.3", "::10.1.2.3", "::ffff:0:10.1.2.3",
     "64:ff9b:1::10.1.2.3", "64:ff9b:1:a01:2:300::", "64:ff9b:1:c0a:1:203::", "64:ff9b:1:7:a:102:300::",
     "fe80::5efe:10.1.2.3", "2001:db8::200:5efe:10.1.2.3", "2001:0:a01:203::1", "2001::f5fe:fdfc"],
)  # fmt: skip
def test_denies_embedded_address_of_gateway(address: str) -> None:
    everywhere = joe(role(on=("*",), deny=("10.0.0.0/8",)))
    assert "denies" in reason(decision_of(everywhere, address))
    assert "denies" in reason(decision_of(everywhere, "web1", address))
    for other in ("64:ff9b::11.1.2.3", "64:ff9b:1::11.1.2.3", "::1", "2001:db8::a01:203"):
        allowed(decision_of(everywhere, other))


def test_never_dials_unspecified_address() -> None:
    everywhere = joe(role(on=("*",), deny=("127.0.0.0/8", "::1")))
    assert allowed(decision_of(everywhere, "web1", "0.0.0.0", "10.0.0.1", "::")).addresses == ("10.0.0.1",)
    assert "not the address of a host" in reason(decision_of(everywhere, "web1", "0.0.0.0", "::"))


def test_limits_dialling_to_allowed_addresses() -> None:
    who = joe(role(on=("10.0.0.0/8",)))
    decision = allowed(decision_of(who, "web1", "198.51.100.1", "10.0.0.9", "fd00::1", "10.0.0.3"))
    assert decision.addresses == ("10.0.0.9", "10.0.0.3")


def test_allows_every_address_of_allowed_name() -> None:
    addresses = ("198.51.100.1", "10.0.0.9", "fd00::1")
    assert allowed(decision_of(joe(role()), "web1.example.com", *addresses)).addresses == addresses


def test_dials_requested_address() -> None:
    assert allowed(decision_of(joe(role(on=("10.0.0.0/8",))), "10.0.0.9")).addresses == ("10.0.0.9",)


# -- logins


@pytest.mark.parametrize(
    ("pattern", "login"),
    [("root", "root"), ("{user}", "joe"), ("adm-{user}", "adm-joe"), ("*", "anyone"), ("app-?", "app-1")],
)
def test_allows_login_of_role(pattern: str, login: str) -> None:
    allowed(decision_of(joe(role(logins=(pattern,))), login=login))
    assert "denies it" in reason(decision_of(joe(role(logins=("*",), deny_logins=(pattern,))), login=login))


@pytest.mark.parametrize(
    ("pattern", "login"),
    [("root", "Root"), ("{user}", "jane"), ("{user}", "{user}"), ("root", "root "), ("root", ""), ("*", ""),
     ("*", "a\nb"), ("*", "\x1b[2J"), ("*", "x" * 257)],
)  # fmt: skip
def test_denies_other_login(pattern: str, login: str) -> None:
    assert reason(decision_of(joe(role(logins=(pattern,))), login=login)).isprintable()


def test_treats_user_name_as_literal() -> None:
    policy = Policy(roles={"ops": role(logins=("{user}",))})
    star = Identity(user="*", method="publickey", roles=("ops",))
    target = Target(host="web1.example.com")
    assert isinstance(decide(policy, star, target, (), "root", HERE, NOW), Deny)
    assert isinstance(decide(policy, star, target, (), "*", HERE, NOW), Allow)


# -- what the user is told


def test_formats_reasons() -> None:
    ops = role(on=("web1", "vault"), logins=("ubuntu", "{user}"), deny=("vault.example.com",))
    assert (
        reason(decision_of(joe(ops), "web1"))
        == "joe may not log in as root on web1 (role ops allows: ubuntu, joe)"
    )
    assert (
        reason(decision_of(joe(ops), "vault.example.com"))
        == "joe may not reach vault.example.com (role ops denies it)"
    )
    assert (
        reason(decision_of(joe(ops), "web9", port=24))
        == "joe may not reach web9:24 (no role of joe allows it)"
    )
    assert reason(decision_of(joe(), "web1")) == "joe may not reach web1 (joe has no role)"
    assert reason(decision_of(joe(role(on=("web1",), logins=())), "web1")) == (
        "joe may not log in as root on web1 (role ops allows no login)"
    )
    assert allowed(decision_of(joe(ops), "web1", login="joe")).rule == "role ops allows joe"


def test_names_only_requested_host_in_reason() -> None:
    ops = role(on=("secret1", "10.9.9.9"), deny=("secret2",))
    for host in ("web1", "10.1.1.1"):
        assert "secret" not in reason(decision_of(joe(ops), host))


def test_escapes_foreign_text_in_reason() -> None:
    assert "\\x1b[2J" in reason(decision_of(joe(role()), login="\x1b[2J"))
    assert len(reason(decision_of(joe(role()), login="x" * 100_000))) < 1000


# -- roles together


def test_prefers_deny_of_any_role() -> None:
    ops, guest = role(on=("*",)), role("guest", on=(), logins=(), deny=("vault",), source=("203.0.113.0/24",))
    assert "role guest denies it" in reason(decision_of(joe(ops, guest), "vault"))
    assert "role guest denies it" in reason(
        decision_of(joe(ops, replace(guest, deny_hosts=(), deny_logins=("root",))), "vault")
    )


def test_ignores_removed_role() -> None:
    policy, identity = joe(role())
    assert "joe has no role" in reason(decision_of((Policy(), identity)))
    assert "joe has no role" in reason(decision_of((policy, replace(identity, roles=("admin",)))))


def test_combines_options_of_roles() -> None:
    a = RoleOptions(
        max_session_ttl=timedelta(hours=1), max_sessions=3, record=Record.BEST_EFFORT,
        switches=switches(forward_agent=True, port_forwarding=True),
    )  # fmt: skip
    b = RoleOptions(
        client_idle_timeout=timedelta(minutes=5), max_sessions=None,
        switches=switches(file_copy=False, port_forwarding=False, local_forwarding=True),
    )  # fmt: skip
    decision = decision_of(joe(role(options=a), role("dev", options=b)))
    assert allowed(decision).options == SessionOptions(
        max_session_ttl=timedelta(hours=1),
        client_idle_timeout=timedelta(minutes=5),
        max_sessions=3,
        forward_agent=True,
        local_forwarding=True,
        sftp=False,
        scp=False,
        record=Record.STRICT,
    )
    assert allowed(decision).rule == "roles ops, dev allow root"


def test_ignores_options_of_role_for_other_login() -> None:
    wide = RoleOptions(switches=switches(forward_agent=True), max_sessions=1)
    for other in (role("dev", on=("web2",), options=wide), role("dev", logins=("joe",), options=wide)):
        assert allowed(decision_of(joe(role(), other))).options == SessionOptions()


def test_ignores_yes_of_role_for_some_addresses() -> None:
    some = role("some", on=("10.0.0.0/8",), options=RoleOptions(switches=switches(forward_agent=True)))
    others = role("others", on=("198.51.100.0/24",))
    decision = allowed(decision_of(joe(some, others), "web1", "10.0.0.1", "198.51.100.1"))
    assert decision.addresses == ("10.0.0.1", "198.51.100.1")
    assert not decision.options.forward_agent
    assert allowed(decision_of(joe(some, others), "web1", "10.0.0.1")).options.forward_agent


# -- recordings


def test_shows_recordings_of_widest_role() -> None:
    none, own, everything = (
        role(each.value, options=RoleOptions(recordings=each)) for each in VisibleRecordings
    )
    assert visible_recordings(*joe(), HERE, NOW) is VisibleRecordings.NONE
    assert visible_recordings(*joe(role()), HERE, NOW) is VisibleRecordings.OWN
    assert visible_recordings(*joe(none), HERE, NOW) is VisibleRecordings.NONE
    assert visible_recordings(*joe(none, own), HERE, NOW) is VisibleRecordings.OWN
    assert visible_recordings(*joe(everything, none), HERE, NOW) is VisibleRecordings.ALL
    elsewhere = replace(everything, source=(parse_network("10.0.0.0/8"),))
    assert visible_recordings(*joe(elsewhere, none), HERE, NOW) is VisibleRecordings.NONE
    assert visible_recordings(*joe(elsewhere, none), "10.0.0.1", NOW) is VisibleRecordings.ALL


# -- where from, and until when


@pytest.mark.parametrize(
    ("source", "address", "expected"),
    [
        (None, "", True),
        (("192.0.2.0/24",), HERE, True),
        (("192.0.2.0/24",), "::ffff:192.0.2.7", True),
        (("192.0.2.0/24",), "198.51.100.1", False),
        (("192.0.2.0/24",), "", False),
        (("192.0.2.0/24",), "/run/socket", False),
        ((), HERE, False),
    ],
)
def test_enforces_source_of_role(source: tuple[str, ...] | None, address: str, expected: bool) -> None:
    who = joe(role(source=source))
    assert isinstance(decision_of(who, source=address), Allow) is expected
    assert isinstance(may_reach(*who, Target(host="a.example.com"), (), address, NOW), Allow) is expected
    assert reachable(*who, address, NOW)[0].from_here is expected


def test_denies_expired_identity() -> None:
    assert "has expired" in reason(decision_of(joe(role(), expires=NOW)))
    allowed(decision_of(joe(role(), expires=NOW + timedelta(seconds=1))))


# -- nobody


@pytest.mark.parametrize("empty", [role(on=()), role(logins=()), role(source=())])
def test_denies_everything_without_entries(empty: Role) -> None:
    assert isinstance(decision_of(joe(empty)), Deny)
    assert isinstance(may_reach(*joe(empty), Target(host="web1.example.com"), (), HERE, NOW), Deny)


def test_reaches_host_with_any_usable_login() -> None:
    target = Target(host="web1.example.com")
    allowed(may_reach(*joe(role()), target, ("10.0.0.1",), HERE, NOW))
    denied = may_reach(*joe(role(deny_logins=("root",))), target, (), HERE, NOW)
    assert reason(denied) == "joe may not reach web1.example.com (role ops allows: root)"


def test_lists_reachable_hosts_of_user() -> None:
    ops = role(on=("web*", "10.0.0.0/8"), logins=("root", "{user}"), deny=("web9",), deny_logins=("{user}2",))
    (reach,) = reachable(*joe(ops, role("none", on=(), logins=())), HERE, NOW)
    assert (reach.role, reach.hosts, reach.logins) == ("ops", ("web*", "10.0.0.0/8"), ("root", "joe"))
    assert (reach.denied_hosts, reach.denied_logins) == (("web9",), ("joe2",))


def test_denies_login_with_style() -> None:
    """sshd takes ``root:x`` for root."""
    for login in ("root:x", "root:", ":root"):
        denied = decision_of(joe(role(logins=("*",), deny_logins=("root",))), login=login)
        assert "invalid login" in reason(denied)


def test_names_role_that_closes_option() -> None:
    """As it is written: a shorthand by its own name; and who says no before who names commands."""
    lines = {"": 1, "options.file_copy": 4, "options.commands": 5, "options.shell": 6}
    commands = (CommandPattern.parse("uptime"),)
    named = replace(role("named"), options=RoleOptions(commands=commands), lines=lines)
    no = replace(
        role("no"),
        options=RoleOptions(switches=switches(file_copy=False, shell=False, nested_ssh=False)),
        lines=lines,
    )
    plain = role("plain")
    for roles, option, setting, rule in (
        ((plain, named, no), "sftp", "file_copy", "role no: file_copy (line 4)"),
        ((plain, named, no), "shell", "shell", "role no: shell (line 6)"),
        ((plain, named), "shell", "commands", "role named: commands (line 5)"),
        ((named,), "commands", "commands", "role named: commands (line 5)"),
        ((no,), "nested_ssh", "nested_ssh", "role no: nested_ssh (line 1)"),
    ):
        assert find_closed_option(roles, option) == ClosedOption(setting, rule)
    closed = find_closed_option((plain, named), "local_forwarding")
    assert closed.setting == "local_forwarding"
    assert closed.rule == "local_forwarding: no active role allows it (plain, named)"


# -- rules for targets


@dataclass(frozen=True)
class Rule:
    name: str
    hosts: tuple[HostPattern, ...]


def test_selects_first_matching_rule_of_target() -> None:
    rules = (
        Rule(name="db", hosts=hosts("db*")),
        Rule(name="net", hosts=hosts("10.0.0.0/8")),
        Rule(name="rest", hosts=hosts("*:2222")),
    )

    def name(host: str, *addresses: str, port: int = 22) -> str | None:
        rule = rule_for(rules, Target(host=host, port=port), addresses)
        return None if rule is None else rule.name

    assert name("db1", "10.0.0.1") == "db"
    assert name("web1", "10.0.0.1", "10.0.0.2") == "net"
    assert name("web1", "10.0.0.1", "11.0.0.2") is None
    assert name("web1", port=2222) == "rest"
    assert name("web1") is None
    assert name("a b") is None


# -- whatever the roles are

NAMES = st.sampled_from(["web1", "web2", "db1.example.com", "vault.example.com", "10.0.0.1", "fd00::1"])
PATTERNS = st.sampled_from(
    ["*", "web1", "web?", "*.example.com", "vault.example.com", "10.0.0.0/8", "10.0.0.1", "fd00::/8",
     "web1:2222", "192.0.2.0/24", "*:22"]
)  # fmt: skip
LOGINS = st.sampled_from(["root", "joe", "{user}", "*", "app-*"])
ADDRESSES = st.lists(
    st.sampled_from(["10.0.0.1", "192.0.2.9", "::ffff:10.0.0.2", "fd00::7", "2001:db8::1"]), unique=True
)
NETWORKS = st.sampled_from(["192.0.2.0/24", "10.0.0.0/8", "fd00::/8"])


@st.composite
def roles(draw: st.DrawFn) -> tuple[Role, ...]:
    def some(what: st.SearchStrategy[str]) -> tuple[str, ...]:
        return tuple(draw(st.lists(what, max_size=3)))

    return tuple(
        role(
            f"role{number}",
            on=some(PATTERNS),
            logins=some(LOGINS),
            deny=some(PATTERNS) if draw(st.booleans()) else (),
            deny_logins=some(LOGINS) if draw(st.booleans()) else (),
            source=some(NETWORKS) if draw(st.booleans()) else None,
            options=RoleOptions(
                max_sessions=draw(st.none() | st.integers(1, 9)),
                switches=switches(forward_agent=draw(st.booleans())),
                record=draw(st.sampled_from(Record)),
            ),
        )
        for number in range(draw(st.integers(0, 4)))
    )


TARGETS = st.builds(Target, host=NAMES, port=st.sampled_from([22, 2222]))
ASKED_LOGINS = st.sampled_from(["root", "joe", "app-1", "nobody"])
SOURCES = st.sampled_from(["192.0.2.7", "10.2.3.4", "fd00::2", ""])


@given(roles(), TARGETS, ADDRESSES, ASKED_LOGINS, SOURCES, PATTERNS)
def test_never_allows_denied_host(
    others: tuple[Role, ...], target: Target, addresses: list[str], login: str, source: str, pattern: str
) -> None:
    before = decide(*joe(*others), target, addresses, login, source, NOW)
    denying = role("denying", on=("*",), logins=("*",), deny=(pattern,))
    after = decide(*joe(*others, denying), target, addresses, login, source, NOW)
    only = decide(*joe(denying), target, addresses, login, source, NOW)
    if isinstance(only, Deny):
        assert isinstance(after, Deny)
    bare = replace(denying, hosts=(), logins=())
    if isinstance(before, Deny):
        assert isinstance(decide(*joe(*others, bare), target, addresses, login, source, NOW), Deny)


@given(roles(), roles(), TARGETS, ADDRESSES, ASKED_LOGINS, SOURCES)
def test_keeps_deny_with_additional_roles(
    some: tuple[Role, ...],
    more: tuple[Role, ...],
    target: Target,
    addresses: list[str],
    login: str,
    source: str,
) -> None:
    more = tuple(replace(role, name=f"more-{role.name}") for role in more)
    decision = decide(*joe(*some), target, addresses, login, source, NOW)
    if isinstance(decision, Deny) and decision.rule.endswith("denies it"):
        assert isinstance(decide(*joe(*some, *more), target, addresses, login, source, NOW), Deny)


@given(roles(), TARGETS, ADDRESSES, ASKED_LOGINS, SOURCES)
def test_allows_only_what_one_role_allows(
    some: tuple[Role, ...], target: Target, addresses: list[str], login: str, source: str
) -> None:
    decision = decide(*joe(*some), target, addresses, login, source, NOW)
    alone = [decide(*joe(role), target, addresses, login, source, NOW) for role in some]
    if isinstance(decision, Deny):
        assert decision.reason.isprintable()
        return
    yes = [allow for allow in alone if isinstance(allow, Allow)]
    assert yes
    assert set(decision.addresses) == {address for allow in yes for address in allow.addresses}
    assert isinstance(may_reach(*joe(*some), target, addresses, source, NOW), Allow)
    if decision.options.forward_agent:
        assert any(allow.options.forward_agent and allow.addresses == decision.addresses for allow in yes)
    limits = [allow.options.max_sessions for allow in yes if allow.options.max_sessions is not None]
    assert decision.options.max_sessions == min(limits, default=None)
    if any(allow.options.record is Record.STRICT for allow in yes):
        assert decision.options.record is Record.STRICT


@given(roles(), TARGETS, ADDRESSES, ASKED_LOGINS, SOURCES)
def test_dials_only_addresses_that_are_allowed_alone(
    some: tuple[Role, ...], target: Target, addresses: list[str], login: str, source: str
) -> None:
    decision = decide(*joe(*some), target, addresses, login, source, NOW)
    if isinstance(decision, Allow):
        for address in decision.addresses:
            allowed(decide(*joe(*some), target, [address], login, source, NOW))


@given(st.ip_addresses(), st.text())
def test_decides_about_any_text(address: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str) -> None:
    who = joe(role(on=("*",), logins=("*",)))
    for decision in (
        decision_of(who, text, str(address), login=text),
        decision_of(who, str(address), login=text, source=text),
    ):
        if isinstance(decision, Deny):
            assert decision.reason.isprintable()


# -- time, locks, and a second factor


def test_applies_role_in_its_times_and_denies_always() -> None:
    now = replace(role(), times=(Window.parse("mon 11:00-13:00"),))
    then = replace(role("then", deny=("web2.example.com",)), times=(Window.parse("tue"),))
    assert allowed(decision_of(joe(now))).until == NOW + timedelta(hours=1)
    assert "role then cannot be used at this time" in reason(decision_of(joe(then)))
    assert "role then denies it" in reason(decision_of(joe(now, then), "web2.example.com"))
    assert not reachable(*joe(then), HERE, NOW)[0].at_this_time
    assert visible_recordings(*joe(then), HERE, NOW) is VisibleRecordings.NONE


def test_ends_grants_and_roles() -> None:
    policy, identity = joe(role())
    soon, before = NOW + timedelta(hours=1), NOW - timedelta(hours=1)
    ending = replace(policy, ends={("joe", "ops"): soon})
    assert allowed(decision_of((ending, identity))).until == soon
    over = decision_of((replace(policy, ends={("joe", "ops"): before}), identity))
    assert f"(role ops of joe ended at {before:%Y-%m-%d %H:%M:%S} UTC)" in reason(over)
    assert isinstance(over, Deny)
    assert over.line == 0, "it is not the role that ended"
    assert "joe has no role" in reason(
        decision_of((replace(policy, ends={("joe", "ops"): before}), identity), "x")
    )
    assert allowed(decision_of((replace(policy, ends={("ann", "ops"): before}), identity))).until is None
    ended = decision_of(joe(replace(role(), expires=before, lines={"": 3, "options.expires": 7})))
    assert "role ops of joe ended at" in reason(ended)
    assert isinstance(ended, Deny)
    assert ended.line == 7


@pytest.mark.parametrize(
    ("kind", "name", "holds"),
    [
        (LockKind.USER, "joe", True),
        (LockKind.USER, "ann", False),
        (LockKind.TARGET, "web1.example.com", True),
        (LockKind.TARGET, "*.example.com", True),
        (LockKind.TARGET, "10.0.0.0/8", True),
        (LockKind.TARGET, "web1.example.com:2222", False),
        (LockKind.LOGIN, "root", True),
        (LockKind.LOGIN, "ro?t", True),
        (LockKind.LOGIN, "joe", False),
        (LockKind.SESSION, "root", False),
    ],
)
def test_prefers_lock_over_roles(kind: LockKind, name: str, holds: bool) -> None:
    policy, identity = joe(role())
    lock = Lock(kind=kind, name=name, until=NOW + timedelta(hours=1), reason="stolen\x1b laptop")
    decision = decision_of(
        (replace(policy, locks=(lock,)), identity), "web1.example.com", "10.0.0.1", "192.0.2.1"
    )
    assert isinstance(decision, Deny) is holds
    if isinstance(decision, Deny):
        assert decision.rule == "lock"
        assert "locked until 2026-11-23 13:00:00 UTC; reason: stolen\\x1b laptop" in decision.reason
    over = replace(lock, until=NOW)
    assert isinstance(decision_of((replace(policy, locks=(over,)), identity)), Allow)


def test_requires_second_factor_of_allowing_role() -> None:
    careful = role("careful", options=RoleOptions(require_mfa=Mfa.LOGIN))
    policy, identity = joe(role(), careful)
    assert "role careful requires a second factor" in reason(decision_of((policy, identity)))
    assert isinstance(decision_of((policy, replace(identity, second_factor="totp"))), Allow)
    elsewhere = replace(careful, hosts=hosts("db1"))
    assert isinstance(decision_of(joe(role(), elsewhere)), Allow)


def test_reports_line_of_rule() -> None:
    here = tuple(replace(pattern, line=41) for pattern in hosts("*.example.com"))
    lines = {"": 7, "logins": 9}
    decision = decision_of(joe(replace(role(), hosts=here, lines=lines)))
    assert (allowed(decision).line, cited(decision)) == (41, "role ops allows root (line 41)")
    decision = decision_of(joe(replace(role(), hosts=here, lines=lines)), login="ann")
    assert cited(decision) == "role ops allows: root (line 9)"
    denying = replace(role(deny=("web1*",)), lines=lines)
    assert cited(decision_of(joe(denying))) == "role ops denies it"


def test_returns_no_active_roles_of_locked_user() -> None:
    policy, identity = joe(role())
    assert [allow.name for allow in active(policy, identity, HERE, NOW)] == ["ops"]
    lock = Lock(kind=LockKind.USER, name="joe", until=NOW + timedelta(hours=1))
    locked = replace(policy, locks=(lock,))
    assert active(locked, identity, HERE, NOW) == ()
    assert active(locked, replace(identity, user="ann"), HERE, NOW)
    assert active(locked, identity, HERE, NOW + timedelta(hours=2))
