"""What is probably a mistake is said, and what is right is not."""

from __future__ import annotations

import io
from datetime import datetime, timezone
from pathlib import Path

import pytest

from conchrec.access.patterns import HostPattern
from conchrec.cli.main import DONE, main
from conchrec.config.lint import covers, warnings
from conchrec.config.loader import parse

NOW = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
RIGHT = """\
users:
  joe: {roles: [ops, lead, "oncall until 2026-12-24"], totp: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}
  ann: {roles: [lead]}
roles:
  ops:
    logins: [root, "{user}"]
    hosts: ["*.example.com", "group:db"]
    deny: {hosts: [vault.example.com], logins: [backup]}
    options: {require_mfa: login, approval: [lead], commands: [uptime]}
  oncall: {logins: ["*"], hosts: ["10.0.0.0/8"], options: {times: ["22:00-06:00"], expires: 2027-01-01}}
  lead: {logins: [nobody], hosts: [nowhere]}
targets:
  db: {hosts: [db1], known_hosts: [known]}
  rest: {hosts: ["db*"], known_hosts: [known]}
"""


def lint(text: str) -> list[str]:
    config = parse(text.encode(), Path("/etc/conchrec/config.yaml"))
    problems = warnings(config, NOW, lambda group: bool(group.known_hosts))
    return [f"{problem.line or '-'} {problem.path}: {problem.problem}" for problem in problems]


def test_reports_nothing_about_correct_configuration() -> None:
    assert lint(RIGHT) == []


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        (
            "  lead: {",
            "  spare: {logins: [a], hosts: [b]}\n  lead: {",
            "11 roles.spare: no user has this role",
        ),
        ('"*"], hosts: ["10.0.0.0/8"]', '"*"], hosts: ["*"]', "10 roles.oncall.hosts: the role allows every"),
        ("[vault.example.com]", '["*.example.com"]', "7 roles.ops.hosts: '*.example.com' is"),
        ("[vault.example.com]", '["db?"]', "7 roles.ops.hosts: 'db1 (group:db)' is allowed and denied"),
        ("logins: [backup]", "logins: ['ro?t']", "6 roles.ops.logins: 'root' is allowed and denied"),
        ("expires: 2027-01-01", "expires: 2026-01-01", "10 roles.oncall.options.expires: is in the past"),
        ('times: ["22:00-06:00"]', "times: []", "10 roles.oncall.options.times: is empty"),
        (
            "commands: [uptime]",
            "commands: [uptime], exec: no",
            "9 roles.ops.options.commands: has no effect: exec is no",
        ),
        ("commands:", "direct: yes, commands:", "9 roles.ops.options.direct: has no effect"),
        ("ann: {roles: [lead]}", "ann: {roles: []}", "9 roles.ops.options.approval: no other user"),
        ("until 2026-12-24", "until 2026-11-24", "2 users.joe.roles: the grant of role oncall"),
        ("lead: {", "lead: {options: {expires: 2026-01-01}, ", "9 roles.ops.options.approval: no other user"),
        ("commands: [uptime]", "commands: []", "9 roles.ops.options.commands: is empty: the role allows no"),
        ("commands: [uptime]", "commands: [^uptime$]", "9 roles.ops.options.commands: '^uptime$' looks like"),
        ("logins: [root,", "logins: [root@web1,", "6 roles.ops.logins: 'root@web1' contains @"),
        ("logins: [root,", "logins: ['*', root,", "8 roles.ops.deny.logins: '*' allows all other names"),
        ("logins: [backup]", "logins: [Root]", "6 roles.ops.logins: 'root' is allowed and denied"),
        (
            "  ann: {roles",
            "  Joe: {roles: [lead]}\n  ann: {roles",
            "3 users.Joe: differs from joe only in case",
        ),
        (
            '"*"], hosts: ["10.0.0.0/8"]',
            '"**"], hosts: ["0.0.0.0/0"]',
            "10 roles.oncall.hosts: the role allows every",
        ),
        (
            "users:",
            "session_recording: off\nusers:",
            "10 roles.ops.options.approval: with session_recording off",
        ),
        ("users:", "session_recording: node\nusers:", "9 roles.ops.deny.logins: has no effect"),
        (
            "{logins: [nobody]",
            "{logins: [backup]",
            "2 users.joe.roles: role lead allows backup, and role ops denies it: it is denied,",
        ),
        (
            "hosts: [nowhere]",
            "hosts: [vault.example.com, nowhere]",
            "2 users.joe.roles: role lead allows vault.example.com, and role ops denies it",
        ),
        (", totp: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "", "2 users.joe: role ops requires a second factor"),
        (
            "[db1], known_hosts: [known]",
            "[db1]",
            "13 targets.db: no known_hosts file has keys of these hosts",
        ),
        ('rest: {hosts: ["db*"]', "rest: {hosts: [db1]", "14 targets.rest: has no effect: groups before it"),
    ],
)
def test_warns_of_probable_mistake(old: str, new: str, warning: str) -> None:
    assert old in RIGHT
    problems = lint(RIGHT.replace(old, new))
    assert any(problem.startswith(warning) for problem in problems), problems


def test_warns_when_no_user_can_approve_alone() -> None:
    roles = """\
  more: {logins: [a], hosts: [b], options: {approval: boss}}
  boss: {logins: [a], hosts: [c]}
  lead: {"""
    text = RIGHT.replace("roles: [ops, lead,", "roles: [ops, more,").replace("  lead: {", roles)
    text = text.replace("ann: {roles: [lead]}", "ann: {roles: [lead]}\n  tom: {roles: [boss]}")
    (problem,) = lint(text)
    assert problem.startswith("2 users.joe.roles: if several roles apply, an approver needs lead")
    assert lint(text.replace("[boss]}", "[boss, lead]}")) == []


def test_warns_of_key_of_two_users() -> None:
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJmKgMrdi1SrKeLE4OaoCtdZ/oDwaR9U4cY/2i4w5xy"
    text = RIGHT.replace('12-24"]', f'12-24"], authorized_keys: [{line}]')
    assert lint(text) == []
    (problem,) = lint(text.replace("roles: [lead]}", f"roles: [lead], authorized_keys: [{line}]}}"))
    assert problem.startswith("3 users.ann: the key SHA256:") and "also belongs to joe" in problem


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("*", "web1", True), ("*:22", "web1", False), ("*:22", "web1:22", True), ("web*", "web1", True),
        ("web*", "web1:22", True), ("web1:22", "web1", False), ("web*", "*", False), ("web*", "we*", False),
        ("*.example.com", "web*.example.com", True), ("web?", "web*", False), ("w*b?", "web?", True),
        ("*.example.com:22", "web.example.com:22", True), ("w?", "w*", False), ("**", "web1", True),
        ("10.0.0.0/8", "10.1.0.0/16", True), ("10.1.0.0/16", "10.0.0.0/8", False),
        ("10.0.0.0/8", "web1", False),
        ("web*", "10.0.0.1", False), ("fd00::/8", "10.0.0.1", False), ("[fd00::1]:22", "[fd00::1]:22", True),
    ],
)  # fmt: skip
def test_detects_pattern_that_covers_another(wide: str, narrow: str, expected: bool) -> None:
    assert covers(HostPattern.parse(wide), HostPattern.parse(narrow)) is expected


def test_prints_warnings_in_config_check(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("state_dir: state\n" + RIGHT.replace("ann: {roles: [lead]}", "ann: {roles: []}"))
    out, err = io.StringIO(), io.StringIO()
    assert main(["config", "check", "-c", str(file)], out, err) == DONE
    assert (
        f"warning: {file}:10: roles.ops.options.approval: no other user can approve the requests of joe"
        in err.getvalue()
    )


def test_warns_of_group_without_host_keys(tmp_path: Path) -> None:
    """A known_hosts file about others vouches for nobody in the group."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHJmKgMrdi1SrKeLE4OaoCtdZ/oDwaR9U4cY/2i4w5xy"
    file, known = tmp_path / "config.yaml", tmp_path / "known"

    def warned(lines: str, group: str) -> bool:
        known.write_text(lines)
        file.write_text(
            "state_dir: state\nusers: {}\nroles: {}\ntrusted_hosts: {known_hosts: []}\n"
            f"targets: {{web: {{{group}, known_hosts: [known]}}}}\n"
        )
        err = io.StringIO()
        assert main(["config", "check", "-c", str(file)], io.StringIO(), err) == DONE
        return f"{file}:5: targets.web: no known_hosts file has keys of these hosts" in err.getvalue()

    assert warned(f"web2 {key}\n", "hosts: [web1]")
    assert not warned(f"web1 {key}\n", "hosts: [web1]")
    assert warned(f"web1 {key}\n", "hosts: [web1, web2]")
    assert warned(f"web1 {key}\n", "hosts: [web1], port: 2222")
    assert not warned(f"[web1]:2222 {key}\n", "hosts: [web1], port: 2222")
    assert not warned(
        f"[web1]:2222,[fd00::1]:22 {key}\n[10.0.0.1]:2222 {key}\n", "hosts: ['web1:2222', '10.0.0.1:2222']"
    )
    assert not warned(f"@cert-authority * {key}\n", "hosts: [web1, '[fd00::1]:2222']")
    assert not warned(f"web2 {key}\n", "hosts: ['web*']"), "which these are only the targets know"
    assert warned("", "hosts: ['web*']")
