"""What a user's certificate says: every rule, and that it is never worth more than a role behind it."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.access.certificate_grant import PROXY_ONLY, Grant, grant
from conchrec.access.command_patterns import CommandPattern
from conchrec.access.locks import Lock, LockKind
from conchrec.access.options import Mfa, RoleOptions, switches
from conchrec.access.patterns import parse_network
from conchrec.access.policy import Policy
from conchrec.access.role import Role
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.ssh.certificate import MAX_PRINCIPALS, option_text

NOW = datetime(2026, 11, 24, 8, tzinfo=timezone.utc)
HERE = "192.0.2.7"
HOUR = timedelta(hours=1)


def role(
    *logins: str,
    name: str = "ops",
    direct: bool = False,
    source: tuple[str, ...] | None = None,
    deny: tuple[str, ...] = (),
    ttl: timedelta | None = None,
    agent: bool | None = None,
    ports: bool | None = None,
    x11: bool | None = None,
) -> Role:
    """Where a switch is None it says nothing of it."""
    written = {"forward_agent": agent, "port_forwarding": ports, "x11_forwarding": x11}
    return Role(
        name=name,
        logins=logins or ("root",),
        deny_logins=deny,
        direct=direct,
        source=None if source is None else tuple(map(parse_network, source)),
        options=RoleOptions(
            max_session_ttl=ttl,
            switches=switches(**{name: it for name, it in written.items() if it is not None}),
        ),
    )


def granted(
    *roles: Role,
    user: str = "joe",
    ttl: timedelta | None = None,
    expires: datetime | None = None,
    source: str = HERE,
    recorded: bool = True,
    pinned: bool = False,
) -> Grant:
    named = {f"role{number}": role for number, role in enumerate(roles)}
    policy = Policy(roles={name: replace(role, name=name) for name, role in named.items()})
    identity = Identity(user=user, method="publickey", roles=tuple(named), expires=expires, pinned=pinned)
    return grant(policy, identity, source=source, now=NOW, recorded=recorded, ttl=ttl)


def addresses(grant: Grant) -> list[str]:
    return option_text(grant.critical_options["source-address"]).split(",")


# --- principals


def test_limits_certificate_to_proxy_without_direct_role() -> None:
    it = granted(role("root", "ubuntu"))
    assert (it.principals, it.logins) == (("joe",), ())
    assert it.critical_options == {PROXY_ONLY: b""}
    assert it.extensions == {"permit-pty": b""}


def test_adds_logins_of_direct_role() -> None:
    it = granted(role("root", "{user}", "{user}-admin", direct=True), role("ubuntu"))
    assert it.principals == ("joe", "root", "joe-admin")
    assert it.logins == ("root", "joe", "joe-admin")
    assert it.critical_options == {}


def test_adds_logins_of_every_role_when_unrecorded() -> None:
    it = granted(role("root"), role("ubuntu"), recorded=False)
    assert (it.principals, it.critical_options) == (("joe", "root", "ubuntu"), {})


@pytest.mark.parametrize("pattern", ["*", "web*", "roo?", "{user}*", "a,b"])
def test_omits_login_patterns(pattern: str) -> None:
    it = granted(role(pattern, direct=True))
    assert (it.principals, it.critical_options) == (("joe",), {PROXY_ONLY: b""})
    assert granted(role(pattern, "root", direct=True)).logins == ("root",)


def test_omits_logins_that_any_role_denies() -> None:
    far = role("nobody", deny=("r*",), source=("10.0.0.0/8",))
    assert granted(role("root", "ubuntu", direct=True), far).logins == ("ubuntu",)
    assert granted(role("root", direct=True), far).critical_options == {PROXY_ONLY: b""}


def test_omits_login_that_another_role_restricts() -> None:
    """A certificate is good at every target: at the hosts of that other role, too."""
    free = role("root", "ubuntu", direct=True)
    for more in (
        RoleOptions(approval=frozenset({"lead"})),
        RoleOptions(require_mfa=Mfa.SESSION),
        RoleOptions(commands=(CommandPattern.parse("uptime"),)),
        RoleOptions(switches=switches(shell=False)),
    ):
        strict = replace(role("ro*", source=("10.0.0.0/8",)), options=more)
        assert granted(free, strict).logins == ("ubuntu",)
        assert granted(free, strict, recorded=False).logins == ("ubuntu",)
    assert granted(free, role("ro*")).logins == ("root", "ubuntu")


def test_omits_locked_login() -> None:
    def names(lock: Lock) -> tuple[str, ...]:
        policy = Policy(roles={"ops": role("root", "{user}", direct=True)}, locks=(lock,))
        identity = Identity(user="joe", method="publickey", roles=("ops",))
        return grant(policy, identity, source=HERE, now=NOW, recorded=True).principals

    assert names(Lock(kind=LockKind.LOGIN, name="ro*")) == ("joe",)
    assert names(Lock(kind=LockKind.LOGIN, name="joe")) == ("root",)
    assert names(Lock(kind=LockKind.LOGIN, name="*")) == ("joe",), "for the proxy alone"
    assert names(Lock(kind=LockKind.LOGIN, name="root", until=NOW)) == ("joe", "root")


def test_omits_user_name_that_is_denied_as_login() -> None:
    """At the proxy it is the key id that counts, so the name can be left out; at a target it would be joe."""
    assert granted(role("{user}", "root", deny=("joe",), direct=True)).principals == ("root",)
    assert granted(role("root", deny=("joe",))).principals == ("joe",)


def test_refuses_too_many_logins() -> None:
    logins = [f"login{number}" for number in range(MAX_PRINCIPALS)]
    assert len(granted(role(*logins[:-1], direct=True)).principals) == MAX_PRINCIPALS
    with pytest.raises(AccessDenied, match="more than 255 logins"):
        granted(role(*logins, direct=True))


# --- which roles count


def test_refuses_user_without_active_role() -> None:
    with pytest.raises(AccessDenied, match="joe has no role"):
        granted()
    with pytest.raises(AccessDenied, match=r"no role of joe can be used from 192\.0\.2\.7"):
        granted(role(source=("10.0.0.0/8",)))
    with pytest.raises(AccessDenied, match=r"no role of joe can be used from 192\.0\.2\.7"):
        granted(role(source=()))


def test_ignores_role_for_other_source() -> None:
    far = role("root", direct=True, source=("10.0.0.0/8",), ttl=HOUR)
    it = granted(far, role("ubuntu", direct=True, ports=True))
    assert it.logins == ("ubuntu",)
    assert it.until == NOW + 12 * HOUR
    assert "permit-port-forwarding" in it.extensions
    assert "source-address" not in it.critical_options


# --- source


def test_limits_source_to_that_of_role() -> None:
    assert addresses(granted(role(source=("192.0.2.0/24", "fd00::/8")))) == ["192.0.2.0/24", "fd00::/8"]
    assert addresses(granted(role(source=("192.0.2.0/24",)), role())) == ["192.0.2.0/24"]


def test_limits_source_to_intersection_of_roles() -> None:
    it = granted(role(source=("192.0.0.0/8", "10.0.0.0/8")), role(source=("192.0.2.0/24", "172.16.0.0/12")))
    assert addresses(it) == ["192.0.2.0/24"]
    it = granted(role(source=("192.0.2.0/25", "10.1.0.0/16")), role(source=("192.0.2.0/24", "10.0.0.0/8")))
    assert addresses(it) == ["192.0.2.0/25", "10.1.0.0/16"]


def test_limits_source_to_user_with_pinned_credential() -> None:
    """No certificate is a way around ``from=``, or around the source of another certificate."""
    assert addresses(granted(role(), pinned=True)) == ["192.0.2.7/32"]
    assert addresses(granted(role(source=("192.0.2.0/24",)), pinned=True)) == ["192.0.2.7/32"]
    assert addresses(granted(role(), pinned=True, source="::ffff:192.0.2.7")) == ["192.0.2.7/32"]
    assert addresses(granted(role(), pinned=True, source="fe80::1%eth0")) == ["fe80::1/128"]
    with pytest.raises(AccessDenied):
        granted(role(), pinned=True, source="unknown")


networks = st.tuples(
    st.sampled_from(["192.0.2.7", "192.0.3.0", "10.0.0.0", "0.0.0.0"]), st.integers(0, 32)
).map(lambda pair: str(ipaddress.ip_network(f"{pair[0]}/{pair[1]}", strict=False)))
probes = st.ip_addresses(v=4) | st.sampled_from(["192.0.2.7", "192.0.2.6", "192.0.3.1"]).map(
    ipaddress.ip_address
)


@given(st.lists(st.lists(networks, max_size=3), min_size=1, max_size=3), probes)
def test_allows_address_only_if_every_role_does(
    sources: list[list[str]], probe: ipaddress.IPv4Address
) -> None:
    roles = [role(source=(HERE, *source)) for source in sources]
    networks = [ipaddress.ip_network(network) for network in addresses(granted(*roles))]
    every = all(role.source and any(probe in network for network in role.source) for role in roles)
    assert any(probe in network for network in networks) == every


# --- until


def test_limits_validity_to_strictest_role() -> None:
    assert granted(role()).until == NOW + 12 * HOUR
    assert granted(role(), ttl=8 * HOUR).until == NOW + 8 * HOUR
    assert granted(role(), ttl=80 * HOUR).until == NOW + 12 * HOUR
    assert granted(role(ttl=HOUR)).until == NOW + HOUR
    assert granted(role(ttl=48 * HOUR)).until == NOW + 12 * HOUR
    assert granted(role(ttl=48 * HOUR), ttl=24 * HOUR).until == NOW + 24 * HOUR
    assert granted(role(ttl=2 * HOUR), role(ttl=HOUR), role(), ttl=8 * HOUR).until == NOW + HOUR


def test_limits_validity_to_that_of_credential() -> None:
    assert granted(role(), ttl=8 * HOUR, expires=NOW + HOUR).until == NOW + HOUR
    assert granted(role(), ttl=HOUR, expires=NOW + 2 * HOUR).until == NOW + HOUR
    with pytest.raises(AccessDenied, match="has expired"):
        granted(role(), expires=NOW)


# --- extensions


def test_grants_extension_of_each_option() -> None:
    for option, extension in (
        ("agent", "permit-agent-forwarding"),
        ("ports", "permit-port-forwarding"),
        ("x11", "permit-X11-forwarding"),
    ):
        open_role = role(**{option: True})  # type: ignore[arg-type]
        assert set(granted(open_role).extensions) == {"permit-pty", extension}
        assert set(granted(open_role, role()).extensions) == {"permit-pty"}


def test_grants_extensions_by_roles_of_principals_only() -> None:
    """A certificate cannot say at which login it is good, so all that name one have to agree."""
    plain, direct = role("db"), role("root", direct=True, ports=True)
    assert "permit-port-forwarding" in granted(plain, direct).extensions
    assert "permit-port-forwarding" not in granted(role("db", direct=True), direct).extensions
    assert "permit-port-forwarding" in granted(role("*", direct=True), direct).extensions


@pytest.mark.parametrize(
    ("switch", "extension"),
    [
        ("ports", "permit-port-forwarding"),
        ("agent", "permit-agent-forwarding"),
        ("x11", "permit-X11-forwarding"),
    ],
)
def test_withholds_extension_that_another_role_for_login_forbids(switch: str, extension: str) -> None:
    """Wherever that role is for: a certificate is good at every host, and from everywhere."""
    direct = role("root", direct=True, ports=True, agent=True, x11=True)
    for logins, source in (("root", None), ("r*", None), ("{user}", None), ("root", ("10.0.0.0/8",))):
        no = replace(role(logins, source=source), options=role(**{switch: False}).options)  # type: ignore[arg-type]
        assert extension not in granted(direct, no).extensions, logins
    other = replace(role("db"), options=role(**{switch: False}).options)  # type: ignore[arg-type]
    assert extension in granted(direct, other).extensions
    assert extension in granted(direct, role("root")).extensions


def test_adds_no_extension_by_deny() -> None:
    direct, other = role("root", direct=True, ports=True), role("db", direct=True)
    assert "permit-port-forwarding" not in granted(direct, other).extensions
    assert "permit-port-forwarding" not in granted(direct, replace(other, deny_logins=("db",))).extensions


options = st.booleans()
roles = st.builds(
    role,
    st.sampled_from(["root", "ubuntu", "*", "{user}"]),
    direct=options,
    source=st.sampled_from([None, (HERE,), ("192.0.2.0/24",), ("10.0.0.0/8",)]),
    deny=st.sampled_from([(), ("root",), ("joe",)]),
    ttl=st.sampled_from([None, HOUR, 3 * HOUR]),
    ports=options,
)


@given(st.lists(roles, min_size=1, max_size=4), st.sampled_from([None, HOUR, 24 * HOUR]), options)
def test_never_allows_more_than_each_role(some: list[Role], ttl: timedelta | None, recorded: bool) -> None:
    try:
        it = granted(*some, ttl=ttl, recorded=recorded)
    except AccessDenied:
        assert all(role.source == (parse_network("10.0.0.0/8"),) for role in some)
        return
    denied = {pattern for role in some for pattern in role.deny_logins}
    assert bool(it.logins) == (PROXY_ONLY not in it.critical_options)
    assert it.principals and not denied & set(it.logins)
    for login in it.logins:
        behind = [
            role
            for role in some
            if (role.direct or not recorded)
            and login in [pattern.replace("{user}", "joe") for pattern in role.logins]
            and role.source != (parse_network("10.0.0.0/8"),)
        ]
        assert behind
        for role in behind:
            assert it.until - NOW <= (role.options.max_session_ttl or 12 * HOUR)
            assert role.options.opens("local_forwarding") or "permit-port-forwarding" not in it.extensions
            assert role.source is None or "source-address" in it.critical_options
