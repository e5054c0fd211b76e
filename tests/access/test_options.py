"""How options of several roles become one, and what they allow to start."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.access.command_patterns import CommandPattern
from conchrec.access.options import (
    SHORTHANDS,
    SWITCHES,
    TABLE,
    Mfa,
    Record,
    RoleOptions,
    SessionOptions,
    combine,
    switches,
    why_not,
)


def commands(*texts: str) -> tuple[CommandPattern, ...]:
    return tuple(map(CommandPattern.parse, texts))


def together(*roles: RoleOptions) -> SessionOptions:
    return combine(roles, roles)


def test_lists_every_option_in_table() -> None:
    assert {row.name for row in TABLE} - set(SHORTHANDS) == {field.name for field in fields(SessionOptions)}
    assert all(set(names) <= set(SWITCHES) for names in SHORTHANDS.values())


def test_combines_role_without_options_to_defaults() -> None:
    assert together(RoleOptions()) == SessionOptions()


def test_prefers_option_over_shorthand() -> None:
    resolved = switches(port_forwarding=True, remote_forwarding=False, file_copy=False, scp=True)
    assert dict(resolved) == {
        "local_forwarding": True, "remote_forwarding": False, "streamlocal_forwarding": True,
        "sftp": False, "scp": True,
    }  # fmt: skip


@pytest.mark.parametrize("switch", SWITCHES)
def test_prefers_no_over_yes_of_other_roles(switch: str) -> None:
    yes, no, nothing = (
        RoleOptions(switches=switches(**{switch: True})),
        RoleOptions(switches=switches(**{switch: False})),
        RoleOptions(),
    )
    assert getattr(together(yes, nothing), switch)
    assert getattr(together(nothing), switch) is SWITCHES[switch]
    assert not getattr(together(yes, no, nothing), switch)
    assert getattr(combine([yes, nothing], [nothing]), switch) is SWITCHES[switch]
    assert not getattr(combine([no, yes], [yes]), switch)


def test_unites_commands_and_closes_shell() -> None:
    some, others, every = (
        RoleOptions(commands=commands("uptime")),
        RoleOptions(commands=commands("date", "uptime")),
        RoleOptions(),
    )
    options = together(some)
    assert (options.shell, options.subsystem, options.sftp, options.exec) == (False, False, False, True)
    assert together(some, others).commands == commands("uptime", "date")
    assert together(some, every).commands is None and together(some, every).shell
    assert not together(some, RoleOptions(switches=switches(shell=False))).shell
    with_shell = RoleOptions(commands=commands("uptime"), switches=switches(shell=True))
    assert together(with_shell).shell
    no_exec = RoleOptions(commands=commands("uptime"), switches=switches(exec=False))
    assert not together(no_exec).exec and together(no_exec).commands == ()


def test_keeps_strictest_limit() -> None:
    some = RoleOptions(require_mfa=Mfa.LOGIN, approval=frozenset({"lead"}), record=Record.BEST_EFFORT)
    others = RoleOptions(require_mfa=Mfa.SESSION, approval=frozenset({"lead", "boss"}))
    options = together(some, others, some)
    assert (options.require_mfa, options.record) == (Mfa.SESSION, Record.STRICT)
    assert options.approval == (frozenset({"lead"}), frozenset({"lead", "boss"}))
    assert together(some).record is Record.BEST_EFFORT


@pytest.mark.parametrize(
    ("kind", "argument", "programs", "closed", "rule"),
    [
        ("shell", "", "", {"shell": False}, "shell"),
        ("exec", "id", "", {"shell": False}, ""),
        ("exec", "id", "", {"exec": False}, "exec"),
        ("exec", "scp -t x", "scp", {"scp": False}, "scp"),
        ("exec", "scp -t x", "scp", {"exec": False}, "exec"),
        ("exec", "scp -t x", "scp", {"sftp": False}, ""),
        ("exec", "git-upload-pack x; scp -t y", "git-upload-pack scp", {"scp": False}, "scp"),
        ("exec", "scp -t x; sftp-server", "scp sftp", {"scp": False}, "scp"),
        ("exec", "/usr/lib/sftp-server", "sftp", {"sftp": False}, "sftp"),
        ("exec", "rsync --server", "rsync", {"sftp": False, "scp": False}, ""),
        ("subsystem", "sftp", "sftp", {"sftp": False}, "sftp"),
        ("subsystem", "sftp", "sftp", {"subsystem": False}, ""),
        ("subsystem", "netconf", "", {"subsystem": False}, "subsystem"),
        ("exec", "id", "", {"commands": commands("uptime")}, "commands"),
        ("exec", "uptime", "", {"commands": commands("uptime")}, ""),
        ("exec", "scp -t x", "scp", {"commands": commands("scp -t *"), "scp": False}, "scp"),
    ],
)
def test_decides_about_start_requests(
    kind: str, argument: str, programs: str, closed: dict[str, object], rule: str
) -> None:
    assert why_not(SessionOptions(**closed), kind, argument, programs.split()) == rule  # type: ignore[arg-type]


ROLES = st.builds(
    RoleOptions,
    switches=st.dictionaries(st.sampled_from(list(SWITCHES)), st.booleans()),
    commands=st.none() | st.lists(st.sampled_from(["uptime", "date"]).map(CommandPattern.parse)).map(tuple),
    max_sessions=st.none() | st.integers(1, 9),
    require_mfa=st.sampled_from(Mfa),
)
STARTS = st.sampled_from(
    [("shell", "", ()), ("exec", "uptime", ()), ("exec", "id", ()), ("exec", "scp -t x", ("scp",)),
     ("subsystem", "sftp", ("sftp",)), ("subsystem", "netconf", ())]
)  # fmt: skip


@given(st.lists(ROLES, min_size=1, max_size=4), st.sampled_from(list(SWITCHES)), STARTS, st.data())
def test_never_allows_more_with_additional_no(
    roles: list[RoleOptions], switch: str, start: tuple[str, str, tuple[str, ...]], data: st.DataObject
) -> None:
    before = together(*roles)
    number = data.draw(st.integers(0, len(roles) - 1))
    changed = RoleOptions(
        switches={**roles[number].switches, switch: False},
        commands=roles[number].commands,
        max_sessions=roles[number].max_sessions,
        require_mfa=roles[number].require_mfa,
    )
    after = together(*roles[:number], changed, *roles[number + 1 :])
    assert not any(getattr(after, name) and not getattr(before, name) for name in SWITCHES)
    if why_not(before, *start):
        assert why_not(after, *start)
