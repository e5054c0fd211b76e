"""``conchrec lock``, ``unlock`` and ``locks``, and the file behind them."""

from __future__ import annotations

import io
import json
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from conchrec.access.lock_file import Locks, check_name
from conchrec.access.locks import Lock, LockKind
from conchrec.cli.main import CONFIGURATION, DONE, NO, USAGE, main
from conchrec.errors import ConfigError
from tests.support.auditlog import events

NOW = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)

CONFIG = """
state_dir: state
audit: {file: audit.jsonl}
users: {joe: {roles: [ops]}}
roles: {ops: {logins: [root], hosts: [web1]}}
targets: {one: {hosts: [grouped], address: 198.51.100.1}}
"""


class Command:
    def __init__(self, directory: Path) -> None:
        self.file = directory / "config.yaml"
        self.file.write_text(CONFIG)
        self.state = directory / "state"
        self.state.mkdir(0o700)
        self.audit = directory / "audit.jsonl"
        self.out = self.err = ""

    def __call__(self, *words: str) -> int:
        out, err = io.StringIO(), io.StringIO()
        code = main([*words, "-c", str(self.file)], out, err)
        self.out, self.err = out.getvalue(), err.getvalue()
        return code

    def events(self) -> list[dict[str, object]]:
        return events(self.audit)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_locks_lists_and_unlocks(command: Command) -> None:
    assert command("lock", "--user", "joe", "--for", "2h", "--reason", "stolen laptop") == DONE
    assert command.out.startswith("user joe is locked until ") and command.out.endswith(
        "; reason: stolen laptop\n"
    )
    assert command("lock", "--target", "*.Example.com") == DONE
    assert command("lock", "--login", "ro?t") == DONE
    assert command("lock", "--session", "06c3x68ez002d40xt47acfpg49") == DONE
    assert stat.S_IMODE((command.state / "locks.json").stat().st_mode) == 0o600
    assert command("locks") == DONE
    assert [line.split(" is locked")[0] for line in command.out.splitlines()] == [
        "user joe", "target *.example.com", "login ro?t", "session 06c3x68ez002d40xt47acfpg49",
    ]  # fmt: skip
    assert command("locks", "--json") == DONE
    (joe, *others) = json.loads(command.out)
    assert (joe["kind"], joe["name"], joe["reason"]) == ("user", "joe", "stolen laptop")
    assert joe["until"] and [lock["until"] for lock in others] == [None, None, None]
    assert command("unlock", "--user", "joe") == DONE
    assert command("unlock", "--user", "joe") == NO
    assert command.err == "conchrec: user joe is not locked; list the locks with: conchrec locks\n"
    created, *_, removed = command.events()
    assert (created["event"], created["kind"], created["name"]) == ("lock.create", "user", "joe")
    assert created["by"] and created["until"] and created["reason"] == "stolen laptop"
    assert (removed["event"], removed["name"]) == ("lock.remove", "joe")


def test_replaces_lock_and_warns_of_unknown_user(command: Command) -> None:
    assert command("lock", "--user", "jeo") == DONE
    assert "has no user 'jeo'; did you mean joe?" in command.err
    assert command("lock", "--user", "jeo", "--for", "1h") == DONE
    command("locks")
    assert command.out.count("jeo") == 1 and "until" in command.out


@pytest.mark.parametrize(
    "words",
    [
        ("lock",),
        ("lock", "--user", "joe", "--target", "web1"),
        ("lock", "--user", ""),
        ("lock", "--user", "a\nb"),
        ("lock", "--target", "10.0.0.1/8"),
        ("lock", "--target", "a b"),
        ("lock", "--login", "[a-z]"),
        ("lock", "--user", "joe", "--for", "2"),
        ("lock", "--user", "joe", "--reason", "a\nb"),
        ("unlock",),
    ],
)
def test_rejects_wrong_arguments(command: Command, words: tuple[str, ...]) -> None:
    assert command(*words) == USAGE
    assert not (command.state / "locks.json").exists()


def test_reports_damaged_file_and_keeps_it(command: Command) -> None:
    path = command.state / "locks.json"
    path.write_text('[{"kind": "user"}]')
    assert command("locks") == CONFIGURATION
    assert "locks.json is damaged" in command.err
    assert command("lock", "--user", "joe") == CONFIGURATION
    assert path.read_text() == '[{"kind": "user"}]'


def test_keeps_last_known_locks(tmp_path: Path) -> None:
    locks = Locks(tmp_path, lambda: NOW)
    lock = Lock(kind=LockKind.USER, name="joe", until=NOW + timedelta(hours=1), made=NOW, by="root")
    locks.add(lock)
    assert locks.current == (lock,)
    (tmp_path / "locks.json").write_text("[")
    with pytest.raises(ConfigError, match="damaged"):
        locks.refresh()
    assert locks.current == (lock,)


def test_removes_expired_locks_with_next_change(tmp_path: Path) -> None:
    Locks(tmp_path, lambda: NOW).add(Lock(kind=LockKind.USER, name="joe", until=NOW + timedelta(hours=1)))
    later = Locks(tmp_path, lambda: NOW + timedelta(hours=2))
    assert later.remove(LockKind.USER, "joe") is None
    assert later.current == ()


def test_checks_names() -> None:
    assert check_name(LockKind.TARGET, "10.0.0.0/8") == "10.0.0.0/8"
    with pytest.raises(ValueError, match="invalid user"):
        check_name(LockKind.USER, " joe")


def test_locks_addresses_of_name(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a user could reach the target by its address."""
    addresses: dict[str, tuple[str, ...]] = {"web1": ("192.0.2.7", "2001:db8::7")}
    monkeypatch.setattr("conchrec.cli.lock.resolve_target", lambda target: addresses.get(target.host, ()))
    assert command("lock", "--target", "192.0.2.7") == DONE
    assert command("lock", "--target", "web1", "--reason", "broken in") == DONE
    assert command.out.splitlines() == [
        "target web1 is locked; reason: broken in",
        "target 192.0.2.7 (an address of web1) is locked; reason: broken in",
        "target 2001:db8::7 (an address of web1) is locked; reason: broken in",
    ]
    assert [event.get("of") for event in command.events()] == [None, None, "web1", "web1"]
    assert command("unlock", "--target", "web1") == DONE
    command("locks")
    assert [line.split(" is locked")[0] for line in command.out.splitlines()] == ["target 192.0.2.7"]
    command("unlock", "--target", "192.0.2.7")
    assert command("lock", "--target", "web1:2222") == DONE
    assert "target [2001:db8::7]:2222 (an address of web1:2222) is locked" in command.out
    for words in (("web1", "--name-only"), ("web*",), ("10.0.0.0/8",), ("*",)):
        assert command("lock", "--target", *words) == DONE
        assert len(command.out.splitlines()) == 1 and not command.err
    assert command("lock", "--target", "db7") == DONE
    assert command.err == (
        "warning: this machine cannot resolve db7: only the name is locked; to lock its addresses too, run:"
        " conchrec lock --target ADDRESS\n"
    )
    assert command("lock", "--target", "grouped") == DONE
    assert "target 198.51.100.1 (an address of grouped)" in command.out
    assert Locks(command.state, lambda: NOW).current[-1].of == "grouped"


def test_requires_state_and_valid_options(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conchrec.cli.lock.resolve_target", lambda target: ())
    assert command("lock", "--user", "joe", "--name-only") == USAGE
    assert command.err.endswith("conchrec lock: --name-only works only with --target\n")
    (command.state / ".lock").unlink(missing_ok=True)
    command.state.rmdir()
    for words in (("--user", "joe"), ("--user", "jeo"), ("--target", "db7")):
        assert command("lock", *words) == CONFIGURATION
        assert "state does not exist" in command.err
        assert "locked" not in command.err
