"""10,000 random policies: ``decide`` and a slow model agree, and a restriction never allows more."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from conchrec.access.command_patterns import CommandPattern
from conchrec.access.locks import Lock, LockKind
from conchrec.access.options import Mfa, Record, RoleOptions
from conchrec.access.patterns import HostPattern, parse_network
from conchrec.access.policy import Allow, Decision, Deny, Policy, decide, denial_without_addresses, may_reach
from conchrec.access.role import Role
from conchrec.access.time_windows import Window
from conchrec.model import Identity, Target
from tests.access import slow_decide as slow
from tests.access.slow_decide import Locked, World, Written

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=timezone.utc)
COUNT = 10_000
NAMES = ("ops", "dev", "night", "audit")
LOGINS = ("root", "joe", "app-1", "app-2", "*", "app-*", "{user}")
HOSTS = ("*", "web*", "web1", "web2", "db1", "web1:22", "*:2222", "10.0.0.0/8", "10.0.0.1", "10.1.0.0/16",
         "10.0.0.2:22", "192.0.2.0/24")  # fmt: skip
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.1.2.3", "192.0.2.9")
SOURCES = ("198.51.100.0/24", "198.51.100.7", "203.0.113.0/24")
SWITCHES = (*slow.SHUT, *slow.OPEN)


def some(rng: random.Random, values: tuple[str, ...], most: int) -> list[str]:
    return rng.sample(values, rng.randint(0, most))


def moment(rng: random.Random) -> datetime | None:
    return rng.choice([None, None, None, NOW - timedelta(hours=1), NOW, NOW + timedelta(hours=1)])


def world(rng: random.Random) -> World:
    def role(name: str) -> Written:
        return Written(
            name=name,
            logins=some(rng, LOGINS, 4),
            hosts=some(rng, HOSTS, 4),
            deny_hosts=some(rng, HOSTS[1:], 1) if rng.random() < 0.2 else [],
            deny_logins=some(rng, LOGINS[:4], 1) if rng.random() < 0.2 else [],
            source=some(rng, SOURCES, 2) if rng.random() < 0.2 else None,
            hours=rng.choice([None, None, None, [(8, 18)], [(22, 6)], [(13, 14), (12, 13)], []]),
            ends=moment(rng) if rng.random() < 0.2 else None,
            switches={switch: rng.random() < 0.5 for switch in some(rng, SWITCHES, 4)},
            commands=rng.choice([None, None, ["uptime"], ["date", "uptime"], []]),
            max_sessions=rng.choice([None, 1, 3, 10]),
            mfa=rng.choice(["no", "no", "no", "login", "session"]),
            approval=some(rng, NAMES, 2) if rng.random() < 0.2 else [],
            strict=rng.random() < 0.5,
        )

    kinds = {"user": ("joe", "ann"), "target": HOSTS[1:], "login": LOGINS[:4], "session": ("x",)}
    kind = rng.choice(tuple(kinds))
    locks = [Locked(kind, rng.choice(kinds[kind]), moment(rng))] if rng.random() < 0.15 else []
    roles = [role(name) for name in NAMES[: rng.randint(0, len(NAMES))]]
    return World(
        roles=roles,
        grants={name: moment(rng) for name in some(rng, NAMES, len(NAMES))},
        locks=locks,
        user="joe",
        factor=rng.choice(["", "totp"]),
        host=rng.choice(["web1", "web2", "db1", "www"]),
        port=rng.choice([22, 22, 2222]),
        addresses=some(rng, ADDRESSES, 3),
        login=rng.choice(["root", "joe", "app-1", "nobody"]),
        source=rng.choice(["198.51.100.7", "198.51.100.8", "203.0.113.1"]),
        now=NOW,
    )


def policy(made: World) -> Policy:
    return Policy(
        roles={role.name: role_of(role) for role in made.roles},
        ends={("joe", name): end for name, end in made.grants.items() if end is not None},
        locks=tuple(Lock(kind=LockKind(lock.kind), name=lock.name, until=lock.until) for lock in made.locks),
    )


def role_of(written: Written) -> Role:
    windows = None
    if written.hours is not None:
        windows = tuple(Window.parse(f"{begin:02}:00-{end:02}:00 UTC") for begin, end in written.hours)
    return Role(
        name=written.name,
        logins=tuple(written.logins),
        hosts=tuple(map(HostPattern.parse, written.hosts)),
        deny_hosts=tuple(map(HostPattern.parse, written.deny_hosts)),
        deny_logins=tuple(written.deny_logins),
        source=None if written.source is None else tuple(map(parse_network, written.source)),
        times=windows,
        expires=written.ends,
        options=RoleOptions(
            switches=written.switches,
            commands=None if written.commands is None else tuple(map(CommandPattern.parse, written.commands)),
            max_sessions=written.max_sessions,
            require_mfa=Mfa(written.mfa),
            approval=frozenset(written.approval),
            record=Record.STRICT if written.strict else Record.BEST_EFFORT,
        ),
    )


def decision_of(made: World, having: Policy | None = None, now: datetime | None = None) -> Decision:
    identity = Identity(
        user=made.user, method="publickey", roles=tuple(made.grants), second_factor=made.factor
    )
    target = Target(host=made.host, port=made.port)
    return decide(
        having or policy(made), identity, target, made.addresses, made.login, made.source, now or made.now
    )


def test_denies_target_at_every_address_when_denied_without_addresses() -> None:
    """And what isn't may be allowed: a name is looked up where that may change the answer."""
    rng = random.Random(9)
    count = 0
    for _ in range(COUNT // 2):
        made = world(rng)
        identity = Identity(user=made.user, method="publickey", roles=tuple(made.grants))
        target, having = Target(host=made.host, port=made.port), policy(made)
        never = denial_without_addresses(having, identity, target, made.source, NOW)
        answers = [
            may_reach(having, identity, target, some(rng, ADDRESSES, 3), made.source, NOW) for _ in range(3)
        ]
        if never is not None:
            count += 1
            assert all(isinstance(answer, Deny) for answer in answers), (made, never, answers)
    assert COUNT // 20 < count < COUNT // 2


def test_remembers_no_decision_longer_than_it_holds() -> None:
    """One policy that is asked at several moments says what a new one says at each of them."""
    rng = random.Random(11)
    changes = 0
    for _ in range(COUNT // 5):
        made = world(rng)
        having = policy(made)
        moments = [NOW + timedelta(minutes=rng.randint(-24 * 60, 24 * 60)) for _ in range(4)]
        answers = [decision_of(made, having, now) for now in (*moments, *moments)]
        assert answers == [decision_of(made, policy(made), now) for now in (*moments, *moments)], made
        changes += len({isinstance(answer, Allow) for answer in answers}) > 1
    assert changes > COUNT // 100


def test_remembers_what_certificates_withhold() -> None:
    having = Policy(roles={"ops": Role(name="ops", logins=("root",), hosts=(HostPattern.parse("*"),))})
    identity = Identity(user="joe", method="publickey", roles=("ops",))
    limited = replace(identity, withheld=frozenset({"permit-pty"}))
    for subject, pty in ((identity, True), (limited, False), (identity, True)):
        answer = decide(having, subject, Target(host="web1"), ["10.0.0.1"], "root", "", NOW)
        assert isinstance(answer, Allow) and answer.options.pty is pty


def as_dict(decision: Allow) -> dict[str, object]:
    options = decision.options
    count: dict[str, object] = {switch: getattr(options, switch) for switch in SWITCHES}
    return count | {
        "commands": None
        if options.commands is None
        else sorted(pattern.text for pattern in options.commands),
        "max_sessions": options.max_sessions,
        "require_mfa": options.require_mfa.value,
        "strict": options.record is Record.STRICT,
        "approval": sorted(tuple(sorted(approvers)) for approvers in options.approval),
    }


def test_decides_like_model_for_random_policies() -> None:
    rng = random.Random(6)
    allowed = 0
    for number in range(COUNT):
        made = world(rng)
        decision, expected = decision_of(made), slow.decide(made)
        assert isinstance(decision, Allow) is expected.allowed, (number, made, decision)
        if isinstance(decision, Allow):
            allowed += 1
            assert list(decision.addresses) == expected.addresses, (number, made, decision)
            assert as_dict(decision) == expected.options, (number, made, decision)
    # Neither answer is the usual one.
    assert COUNT * 0.05 < allowed < COUNT * 0.8


def allows_no_more(before: Decision, after: Decision) -> bool:
    if not isinstance(after, Allow):
        return True
    if not isinstance(before, Allow):
        return False
    opened = any(
        getattr(after.options, switch) and not getattr(before.options, switch) for switch in SWITCHES
    )
    return set(after.addresses) <= set(before.addresses) and not opened


def test_never_allows_more_with_additional_restrictions() -> None:
    rng = random.Random(7)
    changed = 0
    for _ in range(COUNT // 2):
        made = world(rng)
        having, before = policy(made), decision_of(made)
        lock = Lock(kind=LockKind.TARGET, name=rng.choice(HOSTS))
        after = [decision_of(made, replace(having, locks=(*having.locks, lock)))]
        if made.roles:
            name = rng.choice(made.roles).name
            role = having.roles[name]
            deny = HostPattern.parse(rng.choice(HOSTS))
            switches = {**role.options.switches, rng.choice(SWITCHES): False}
            for narrower in (
                replace(role, deny_hosts=(*role.deny_hosts, deny)),
                replace(role, deny_logins=(*role.deny_logins, rng.choice(LOGINS))),
                replace(role, options=replace(role.options, switches=switches)),
            ):
                after.append(decision_of(made, replace(having, roles={**having.roles, name: narrower})))
        assert all(allows_no_more(before, decision) for decision in after), (made, before, after)
        changed += sum(decision != before for decision in after)
    assert changed > COUNT // 20


def test_keeps_decision_until_its_end() -> None:
    rng = random.Random(8)
    looked = 0
    for _ in range(COUNT // 2):
        made = world(rng)
        now = decision_of(made)
        if not isinstance(now, Allow):
            continue
        end = now.until or NOW + timedelta(days=3)
        for _ in range(3):
            later = decision_of(made, now=NOW + (end - NOW) * rng.random() * 0.999)
            assert isinstance(later, Allow), (made, later)
            assert (later.options, later.addresses) == (now.options, now.addresses)
            looked += now.until is not None
    assert looked > 100
