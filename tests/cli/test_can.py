"""``conchrec can``."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import fields
from datetime import datetime, timezone
from pathlib import Path

import pytest

from conchrec.access.lock_file import Locks
from conchrec.access.locks import Lock, LockKind
from conchrec.access.options import SessionOptions
from conchrec.ca.revocation import Revocations, Revoked
from conchrec.cli.can import NO, YES, command, parse_destination, resolve_target
from conchrec.cli.main import Parser
from conchrec.cli.parsers.can import register
from conchrec.config import loader
from conchrec.model import Target

FILE = Path("/etc/conchrec/config.yaml")
TEXT = """\
users:
  joe: {roles: [ops, far]}
  jane: {}
roles:
  ops:
    logins: [root, "{user}"]
    hosts: ["web*", "10.0.0.0/8"]
    deny: {hosts: [web9]}
    options: {max_session_ttl: 12h, client_idle_timeout: 90s, forward_agent: yes}
  far: {logins: ["*"], hosts: [far1], options: {source: [192.0.2.0/24]}}
targets:
  web: {hosts: ["web*"]}
"""


class CanCommand:
    def __init__(self, *argv: str, addresses: tuple[str, ...] = (), text: str = TEXT) -> None:
        parser = Parser()
        register(parser.add_subparsers())
        words = list(argv)
        if len(words) == 3 and not words[1].startswith("-") and not words[2].startswith("-"):
            words.insert(2, "--from")
        args = parser.parse_args(["can", *words])
        out, err = io.StringIO(), io.StringIO()
        it = loader.parse(text.encode(), FILE)
        self.code = command(it, args, out, err, resolve=lambda target: addresses)
        self.out, self.err = out.getvalue(), err.getvalue()


def test_prints_rule_of_yes() -> None:
    command_run = CanCommand("joe", "root@web1:2222", addresses=("10.0.0.1", "fd00::1"))
    assert command_run.code == YES
    lines = command_run.out.splitlines()
    assert lines[:3] == [
        "yes: joe may log in as root on web1:2222 (role ops allows root (config.yaml:7))",
        "  addresses: 10.0.0.1, fd00::1",
        "  group of targets: web",
    ]
    shown = dict(line.strip().split(": ") for line in lines[3:])
    assert set(shown) == {field.name for field in fields(SessionOptions)}
    expected = {
        "max_session_ttl": "12h", "client_idle_timeout": "90s", "max_sessions": "10", "shell": "yes",
        "max_connections": "no limit", "commands": "every command", "local_forwarding": "no",
        "forward_agent": "yes",
        "record": "strict", "recordings": "own", "approval": "none", "require_mfa": "no",
    }  # fmt: skip
    assert expected.items() <= shown.items()
    assert command_run.err == "", "no role with a source has a say here"


def test_notes_dependence_on_source() -> None:
    note = "note: the answer depends on the user's address (source); give it with --from ADDRESS\n"
    for question in (("joe", "root@far1"), ("--who", "root@far1")):
        command_run = CanCommand(*question, addresses=("192.0.2.9",))
        assert (command_run.code, command_run.err) == (NO, note), question
        command_run = CanCommand(*question, "--from", "192.0.2.7", addresses=("192.0.2.9",))
        assert (command_run.code, command_run.err) == (YES, ""), question


def test_denies_revoked_user(tmp_path: Path) -> None:
    text = TEXT + f"state_dir: {tmp_path}\n"
    assert CanCommand("joe", "root@web1", text=text, addresses=("10.0.0.1",)).code == YES
    Revocations(tmp_path, lambda: datetime.now(timezone.utc)).change(add=Revoked(users=frozenset({"joe"})))
    command_run = CanCommand("joe", "root@web1", text=text, addresses=("10.0.0.1",))
    assert (command_run.code, command_run.out) == (NO, "no: the user joe has been revoked\n")


MORE = """\
users:
  joe: {roles: [ops, "night until 2026-12-31"], totp: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}
  ann: {totp: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ, roles: [ops]}
  jim: {roles: [night]}
roles:
  ops: {logins: [root], hosts: [db1], options: {commands: [uptime, ls *], require_mfa: session, approval: B}}
  night: {logins: [root], hosts: ["10.0.0.0/8"], options: {times: ["22:00-06:00 UTC"]}}
  B: {logins: [root], hosts: [nowhere]}
targets:
  db: {hosts: [db1], address: 10.0.0.5, port: 2222, labels: {tier: data}}
"""


def test_prints_conditions_of_decision() -> None:
    day, night = "2026-12-24 12:00", "2026-12-24 23:00"
    at_night = CanCommand("joe", "root@db1", "--at", night, text=MORE)
    assert at_night.code == YES
    for line in (
        "yes: joe may log in as root on db1:2222 (roles ops, night allow root (config.yaml:6))",
        "  addresses: 10.0.0.5",
        "  group of targets: db",
        "  requires a second factor (session)",
        "  requires approval by B",
        "  this answer is valid until 2026-12-25 06:00:00 UTC, or longer",
        "  commands: every command",
    ):
        assert line in at_night.out.splitlines()
    assert "  commands: uptime, ls *" in CanCommand("joe", "root@db1", "--at", day, text=MORE).out
    no = CanCommand("jim", "root@db1", "--at", day, text=MORE)
    assert (no.code, no.out) == (
        NO,
        "no: jim may not reach db1:2222 (role night cannot be used at this time) (config.yaml:7)\n",
    )
    allowed = CanCommand("ann", "root@db1", "--command", "ls /srv", text=MORE)
    assert allowed.code == YES and allowed.out.endswith("yes: ann may run this command\n")
    forbidden = CanCommand("ann", "root@db1", "--command", "ls; id", text=MORE)
    assert forbidden.code == NO
    assert forbidden.out.endswith("no: ann may not run this command (role ops: commands (line 6))\n")


def test_lists_allowed_users() -> None:
    who = CanCommand("--who", "root@db1", "--at", "2026-12-24 23:00Z", text=MORE)
    assert (who.code, [line.split(":")[0] for line in who.out.splitlines()]) == (
        YES,
        ["joe", "ann", "jim"],
    )
    assert (
        "ann: role ops allows root (config.yaml:6); requires a second factor (session); requires "
        "approval by B\n" in who.out
    )
    nobody = CanCommand("--who", "root@elsewhere", text=MORE)
    assert (nobody.code, nobody.out) == (NO, "no user\n")
    listed = json.loads(CanCommand("--who", "root@db1", "--at", "2026-12-24 12:00", "--json", text=MORE).out)
    assert [row["user"] for row in listed] == ["joe", "ann"]
    assert listed[0]["options"]["require_mfa"] == "session" and listed[0]["line"] == 6
    row = json.loads(CanCommand("jim", "root@elsewhere", "--json", text=MORE).out)
    assert row["allowed"] is False and "jim may not reach elsewhere" in row["reason"]


def test_prints_lock(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    locks = Locks(tmp_path / "state", lambda: datetime.now(timezone.utc))
    locks.add(Lock(kind=LockKind.USER, name="ann", reason="on holiday"))
    text = f"state_dir: {tmp_path}/state\n" + MORE
    assert CanCommand("ann", "root@db1", text=text).out == "no: user ann is locked; reason: on holiday\n"
    (tmp_path / "state" / "locks.json").write_text("{")
    assert "locks were not checked" in CanCommand("ann", "root@db1", text=text).err


def test_prints_reason_of_no() -> None:
    command_run = CanCommand("joe", "ubuntu@web1", addresses=("10.0.0.1",))
    assert command_run.code == NO
    assert (
        command_run.out
        == "no: joe may not log in as ubuntu on web1 (role ops allows: root, joe) (config.yaml:6)\n"
    )
    command_run = CanCommand("joe", "root@web9", addresses=("10.0.0.1",))
    assert command_run.out == "no: joe may not reach web9 (role ops denies it) (config.yaml:8)\n"


def test_decides_by_name_without_addresses() -> None:
    command_run = CanCommand("joe", "root@web1")
    assert command_run.code == YES
    assert "cannot resolve" in command_run.err


def test_reports_unknown_user() -> None:
    command_run = CanCommand("jo", "root@web1")
    assert (command_run.code, command_run.err) == (
        NO,
        f"conchrec: {FILE} has no user 'jo'; did you mean joe?\n",
    )
    assert CanCommand("jane", "root@web1").out == "no: jane may not reach web1 (jane has no role)\n"


def test_uses_source_of_user() -> None:
    assert CanCommand("joe", "x@far1", "192.0.2.7").code == YES
    command_run = CanCommand("joe", "x@far1", "198.51.100.7")
    assert (command_run.code, command_run.out) == (
        NO,
        "no: joe may not reach far1 (role far cannot be used from 198.51.100.7) (config.yaml:10)\n",
    )
    command_run = CanCommand("joe", "x@far1")
    assert command_run.code == NO
    assert "--from ADDRESS" in command_run.err
    with pytest.raises(SystemExit):
        CanCommand("joe", "x@far1", "home")


@pytest.mark.parametrize(
    ("text", "login", "target"),
    [
        ("root@web1", "root", Target(host="web1")),
        ("root@Web1:2222", "root", Target(host="web1", port=2222)),
        ("root@[fd00::1]:2222", "root", Target(host="fd00::1", port=2222)),
        ("root@[fd00::1]", "root", Target(host="fd00::1")),
        ("a@b@web1", "a@b", Target(host="web1")),
    ],
)
def test_parses_destinations(text: str, login: str, target: Target) -> None:
    assert parse_destination(text) == (login, target)


@pytest.mark.parametrize(
    "text", ["", "web1", "@web1", "root@", "root@web1:", "root@web1:0", "root@web1:99999"]
)
def test_rejects_invalid_destination(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="like root@web1:22"):
        parse_destination(text)


def test_resolves_with_machine_resolver() -> None:
    assert resolve_target(Target(host="127.0.0.1")) == ("127.0.0.1",)
    assert resolve_target(Target(host="name.invalid")) == ()
    assert resolve_target(Target(host="x" * 300)) == ()


def test_decides_about_copy_command() -> None:
    text = TEXT.replace("max_session_ttl: 12h", "file_copy: no")
    for copies in ("scp -t .", "/usr/lib/openssh/sftp-server"):
        command_run = CanCommand("joe", "root@web1", "--command", copies, text=text)
        assert command_run.code == NO
        assert "may not run this command (role ops: file_copy (line 9))" in command_run.out, command_run.out
    assert CanCommand("joe", "root@web1", "--command", "cat a", text=text).code == YES


def test_denies_user_without_required_second_factor() -> None:
    """Whoever can't log in can't go anywhere, also where that very role asks for none."""
    text = MORE.replace(", totp: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "")
    command_run = CanCommand("joe", "root@db1", "--at", "2026-12-24 23:00", text=text)
    assert command_run.code == NO
    assert command_run.out == (
        "no: joe cannot log in (role ops requires a second factor, but joe has neither totp nor a "
        "hardware key)"
        " (config.yaml:6)\n"
    )
    who = CanCommand("--who", "root@db1", "--at", "2026-12-24 23:00Z", text=text)
    assert [line.split(":")[0] for line in who.out.splitlines()] == ["ann", "jim"]
