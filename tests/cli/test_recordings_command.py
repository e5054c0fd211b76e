"""``conchrec recordings``."""

from __future__ import annotations

import argparse
import io
import json
import os
import pwd
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from twisted.internet.defer import execute
from twisted.internet.task import Clock

from conchrec.cli.main import main
from conchrec.cli.parsers.arguments import moment
from conchrec.cli.recordings.common import DONE, NO
from conchrec.cli.recordings.find import listing, show
from conchrec.cli.recordings.view import export, follow, play, text
from conchrec.keys import open_signer
from conchrec.model import SessionInfo, Target
from conchrec.recording.capture.lifecycle import RecordingState
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.catalogue.library import Library
from conchrec.recording.catalogue.listing import Filter
from conchrec.recording.evidence.finisher import Finisher
from conchrec.recording.evidence.ledger import Ledger
from conchrec.recording.format.asciicast import Header
from conchrec.recording.format.session_id import new_session_id
from conchrec.recording.format.signatures import RecordingSigner
from conchrec.recording.storage.layout import RecordingTree
from conchrec.recording.store import LocalStore
from conchrec.recording.terminal.sanitize import RESET
from conchrec.text import escape
from tests.support.auditlog import events as audited

NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class RecordingsDirectory:
    """A directory of recordings, and what a command says about them."""

    def __init__(self, directory: Path, signer: RecordingSigner | None = None) -> None:
        self.clock = Clock()
        self.directory = directory
        self.library = Library(directory)
        self.out = io.StringIO()
        self.errors = io.StringIO()
        self._store = LocalStore(
            finisher=Finisher(RecordingTree(directory), signer or RecordingSigner.generate(), self.now),
            clock=self.clock,
            in_thread=execute,
            monotonic=self.clock.seconds,
            now=self.now,
        )

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.clock.seconds())

    def recorder(self, user: str = "joe", host: str = "web1") -> SessionRecorder:
        return self._store.open(
            SessionInfo(
                sid=new_session_id(self.now()),
                cid="c1",
                user=user,
                login="root",
                target=Target(host=host),
                address="192.0.2.7:50000",
                started=self.now(),
            )
        )

    def recorded(self, *parts: bytes, command: str = "ls -l", user: str = "joe", host: str = "web1") -> str:
        """A finished recording in which each part comes two seconds after the one before."""
        recorder = self.recorder(user, host)
        recorder.start("exec", command)
        for part in parts:
            self.clock.advance(2)
            recorder.output(part)
        recorder.exit_status(0)
        recorder.close("done")
        return recorder.info.sid


@pytest.fixture
def recordings(tmp_path: Path) -> RecordingsDirectory:
    return RecordingsDirectory(tmp_path / "recordings")


def test_lists_recordings(recordings: RecordingsDirectory) -> None:
    first = recordings.recorded(b"hello")
    live = recordings.recorder()
    assert listing(recordings.library, recordings.out, as_json=False) == DONE
    lines = recordings.out.getvalue().splitlines()
    assert [text.split()[0] for text in lines] == [first, live.info.sid]
    assert lines[0].split(maxsplit=1)[1] == (
        "2026-11-23 12:00:00      2.0s complete    joe root@web1:22 exec ls -l"
    )
    assert " live " in lines[1]


def test_lists_recordings_as_json(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"hello")
    live = recordings.recorder()
    live.start("exec", "vim")
    listing(recordings.library, recordings.out, as_json=True)
    done, running = json.loads(recordings.out.getvalue())
    assert (done["sid"], done["status"], done["exit"], done["stdout"]) == (
        sid, "complete", {"status": 0}, {"bytes": 5},
    )  # fmt: skip
    assert (running["status"], running["command"], running["user"]) == ("live", "vim", "joe")


def test_prune_lists_only_what_it_has_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else holds a recording after it was chosen."""
    signer, _ = open_signer(tmp_path / "state", make=True)
    recordings = RecordingsDirectory(tmp_path / "state/recordings", signer)
    held, free = recordings.recorded(b"a"), recordings.recorded(b"b")
    monkeypatch.setattr(Ledger, "is_held", lambda book, sid: sid == held)
    file = tmp_path / "config.yaml"
    file.write_text("users: {}\nroles: {}\nstate_dir: state\n")
    argv = ["recordings", "prune", "--size", "1B", "-c", str(file)]
    assert main([*argv, "--dry-run"], dry := io.StringIO(), recordings.errors) == DONE
    assert main(argv, recordings.out, recordings.errors) == DONE
    assert [line.split()[0] for line in dry.getvalue().splitlines()] == [held, free, "would"]
    assert [line.split()[0] for line in recordings.out.getvalue().splitlines()] == [free, "removed"]
    assert "removed 1 recording (" in recordings.out.getvalue()
    assert {path.name[:20] for path in recordings.directory.rglob("*.cast")} == {held[:20]}


def test_lists_nothing_in_empty_library(recordings: RecordingsDirectory) -> None:
    assert listing(recordings.library, recordings.out, as_json=True) == DONE
    assert json.loads(recordings.out.getvalue()) == []


def test_lists_damaged_recording(recordings: RecordingsDirectory) -> None:
    bad, good = recordings.recorded(b"a"), recordings.recorded(b"b")
    next(recordings.directory.rglob(f"{bad}.json")).write_bytes(b"\0")
    listing(recordings.library, recordings.out, as_json=False)
    lines = recordings.out.getvalue().splitlines()
    assert lines[0].startswith(bad) and "unreadable" in lines[0]
    assert lines[1].startswith(good) and "complete" in lines[1]
    assert show(recordings.library, bad, recordings.out, recordings.errors, as_json=False) == NO


def test_escapes_foreign_text(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"x", command="ls \x1b[2J\n\u202e", user="j\x9boe")
    listing(recordings.library, recordings.out, as_json=False)
    show(recordings.library, sid, recordings.out, recordings.errors, as_json=False)
    text = recordings.out.getvalue()
    assert "ls \\x1b[2J\\n\\u202e" in text and "j\\x9boe" in text
    assert not set(text) & {"\x1b", "\x9b", "\u202e"}


def test_shows_recording(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"hello")
    assert show(recordings.library, sid, recordings.out, recordings.errors, as_json=False) == DONE
    fields = dict(text.split(maxsplit=1) for text in recordings.out.getvalue().splitlines())
    assert (fields["user"], fields["target"], fields["command"]) == ("joe", "web1:22", "ls -l")
    assert fields["path"].endswith(f"{sid}.cast")


def test_shows_recording_as_json(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"hello")
    show(recordings.library, sid, recordings.out, recordings.errors, as_json=True)
    assert json.loads(recordings.out.getvalue())["sid"] == sid


@pytest.mark.parametrize("sid", ["0" * 26, "../../etc/passwd", "\x1b[2J"])
def test_reports_missing_recording(recordings: RecordingsDirectory, sid: str) -> None:
    assert show(recordings.library, sid, recordings.out, recordings.errors, as_json=False) == NO
    assert play(recordings.library, sid, recordings.out, recordings.errors) == NO
    assert recordings.out.getvalue() == ""
    assert (
        recordings.errors.getvalue()
        == f"conchrec: no recording {escape(sid)}; list them with: conchrec recordings ls\n" * 2
    )


def test_plays_into_pipe_without_delay(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"h\xc3\xa9llo ", b"world\r\n")
    waits: list[float] = []
    assert play(recordings.library, sid, recordings.out, recordings.errors, wait=waits.append) == DONE
    assert (recordings.out.getvalue(), waits) == ("héllo world\r\n", [])


@pytest.mark.parametrize(
    ("speed", "idle", "expected"),
    [(1, None, [2, 2]), (2, None, [1, 1]), (1, 0.5, [0.5, 0.5]), (2, 1, [0.5, 0.5])],
)
def test_plays_raw_with_delays(
    recordings: RecordingsDirectory, speed: float, idle: float | None, expected: list[float]
) -> None:
    sid = recordings.recorded(b"a", b"b")
    terminal = Terminal()
    waits: list[float] = []
    play(
        recordings.library,
        sid,
        terminal,
        recordings.errors,
        speed=speed,
        idle=idle,
        raw=True,
        wait=waits.append,
    )
    assert waits == expected
    assert terminal.getvalue() == f"ab{RESET}\r\n"


def test_plays_without_queries_to_terminal(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"a\x1b[6", b"nb\x1b]52;c;?\x07c\x1b[1m")
    play(recordings.library, sid, recordings.out, recordings.errors)
    assert recordings.out.getvalue() == "abc\x1b[1m"


def test_plays_raw_with_warning(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"a\x1b[6n")
    assert play(recordings.library, sid, recordings.out, recordings.errors, raw=True) == DONE
    assert follow(recordings.library, sid, recordings.out, recordings.errors, raw=True) == DONE
    assert recordings.out.getvalue() == "a\x1b[6na\x1b[6n"
    assert recordings.errors.getvalue().count("--raw prints control sequences unchanged") == 2


def test_follows_live_recording(recordings: RecordingsDirectory) -> None:
    recorder = recordings.recorder()
    answers = iter([b"one\x1b[6", b"nt", b"wo\r\n"])

    def wait(seconds: float) -> None:
        assert 0 < seconds < 1
        if part := next(answers, b""):
            if recorder.state is RecordingState.OPEN:
                recorder.start("shell")
            recorder.output(part)
            recorder.flush()
        else:
            assert recordings.out.getvalue() == "onetwo\r\n", "before it ends"
            recorder.output(b"last")
            recorder.close("done")

    assert follow(recordings.library, recorder.info.sid, recordings.out, recordings.errors, wait=wait) == DONE
    assert recordings.out.getvalue() == "onetwo\r\nlast"
    assert follow(recordings.library, recorder.info.sid, recordings.out, recordings.errors) == DONE
    assert recordings.out.getvalue() == "onetwo\r\nlast" * 2


def test_plays_live_recording(recordings: RecordingsDirectory) -> None:
    recorder = recordings.recorder()
    recorder.start("shell")
    recorder.output(b"so far")
    recorder.flush()
    assert play(recordings.library, recorder.info.sid, recordings.out, recordings.errors) == DONE
    assert recordings.out.getvalue() == "so far"


def test_plays_damaged_recording_until_damage(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"good")
    path = next(recordings.directory.rglob(f"{sid}.cast"))
    path.write_bytes(path.read_bytes() + b"\0\n")
    assert play(recordings.library, sid, recordings.out, recordings.errors) == NO
    assert recordings.out.getvalue() == "good"
    assert sid in recordings.errors.getvalue()


def test_ends_on_keyboard_interrupt(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"a", b"b")
    terminal = Terminal()

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    assert play(recordings.library, sid, terminal, recordings.errors, raw=True, wait=interrupted) == DONE
    assert terminal.getvalue() == f"{RESET}\r\n"


# -- which ones


def sids(recordings: RecordingsDirectory, wanted: Filter) -> list[str]:
    out = io.StringIO()
    assert listing(recordings.library, out, as_json=True, wanted=wanted) == DONE
    return [fields["sid"] for fields in json.loads(out.getvalue())]


def test_filters_recordings(recordings: RecordingsDirectory) -> None:
    joes = recordings.recorded(b"a", user="joe", host="web1")
    recordings.clock.advance(3600)
    janes = recordings.recorded(b"a", user="jane", host="fd00::1")
    live = recordings.recorder("joe", "web2")
    live.start("shell")
    three = [joes, janes, live.info.sid]
    assert sids(recordings, Filter()) == three
    assert sids(recordings, Filter(live=True)) == [live.info.sid]
    assert sids(recordings, Filter(user="joe")) == [joes, live.info.sid]
    assert sids(recordings, Filter(user="j?n*")) == [janes]
    assert sids(recordings, Filter(login="root")) == three
    assert sids(recordings, Filter(login="joe")) == []
    assert sids(recordings, Filter(host="web?")) == [joes, live.info.sid]
    assert sids(recordings, Filter(host="web1:22")) == [joes]
    assert sids(recordings, Filter(host="fd00::1")) == [janes]
    hour = NOON + timedelta(hours=1)
    assert sids(recordings, Filter(since=hour)) == [janes, live.info.sid]
    assert sids(recordings, Filter(until=hour)) == [joes]
    assert sids(recordings, Filter(user="joe", since=hour)) == [live.info.sid]


def test_parses_times() -> None:
    assert moment("2026-11-23") == datetime(2026, 11, 23, tzinfo=timezone.utc)
    assert moment("2026-11-23T14:00") == datetime(2026, 11, 23, 14, tzinfo=timezone.utc)
    assert moment("2026-11-23T14:00+02:00") == NOON
    before = datetime.now(timezone.utc)
    assert timedelta(0) <= moment("2h") + timedelta(hours=2) - before < timedelta(minutes=5)
    with pytest.raises(argparse.ArgumentTypeError, match="invalid time 'nix'"):
        moment("nix")


# -- as text, and as a file


def test_prints_text(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(
        b"\x1b[1mh\xc3\xa9llo\x1b[0m\r\n", b"wrold\b\b\b\bor\x1b[Cd\x1b]0;title\x07", b"!"
    )
    assert text(recordings.library, sid, recordings.out, recordings.errors) == DONE
    assert recordings.out.getvalue() == "héllo\nworld!\n"


def test_prints_text_of_damaged_recording_until_damage(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"good")
    path = next(recordings.directory.rglob(f"{sid}.cast"))
    path.write_bytes(path.read_bytes() + b"\0\n")
    assert text(recordings.library, sid, recordings.out, recordings.errors) == NO
    assert recordings.out.getvalue() == "good\n"
    assert sid in recordings.errors.getvalue()


def test_exports_recording(recordings: RecordingsDirectory, tmp_path: Path) -> None:
    sid = recordings.recorded(b"h\xc3\xa9llo\r\n", b"\xff")
    cast = next(recordings.directory.rglob(f"{sid}.cast"))
    for form, name in (("cast", "a.cast"), ("text", "a.txt"), ("json", "a.json")):
        path = tmp_path / name
        assert (
            export(recordings.library, sid, recordings.out, recordings.errors, form=form, path=path) == DONE
        )
        assert path.stat().st_mode & 0o777 == 0o600
    header, *lines = (tmp_path / "a.cast").read_bytes().splitlines(keepends=True)
    assert sorted(json.loads(header)) == ["command", "height", "timestamp", "title", "version", "width"]
    assert lines == [line for line in cast.read_bytes().splitlines(keepends=True)[1:] if b'"c"' not in line]
    assert (tmp_path / "a.txt").read_text() == "héllo\n\ufffd\n"
    whole = json.loads((tmp_path / "a.json").read_text())
    assert whole["recording"]["sid"] == sid
    assert [2.0, "o", "héllo\r\n"] in whole["events"]
    assert recordings.out.getvalue() == ""


def test_exports_to_standard_output(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"hello")
    assert export(recordings.library, sid, recordings.out, recordings.errors, form="cast") == DONE
    assert Header.parse(recordings.out.getvalue().splitlines()[0].encode()).command == "ls -l"
    terminal = Terminal()
    assert export(recordings.library, sid, terminal, recordings.errors, form="cast") == NO
    assert terminal.getvalue() == ""
    assert export(recordings.library, sid, terminal, recordings.errors, form="text") == DONE
    assert terminal.getvalue() == "hello\n"


def test_exports_without_overwriting(recordings: RecordingsDirectory, tmp_path: Path) -> None:
    sid = recordings.recorded(b"hello")
    there = tmp_path / "there"
    there.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for path in (there, tmp_path / "link"):
        assert (
            export(recordings.library, sid, recordings.out, recordings.errors, form="cast", path=path) == NO
        )
    assert there.read_text() == "mine"
    assert not (tmp_path / "new").exists()
    assert "already exists" in recordings.errors.getvalue()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "recordings", "there"]


def test_exports_live_recording(recordings: RecordingsDirectory) -> None:
    recorder = recordings.recorder()
    recorder.start("shell")
    recorder.output(b"so far")
    recorder.flush()
    with recorder.path.open("ab") as file:
        file.write(b'[9.0, "o", "ha')
    export(recordings.library, recorder.info.sid, recordings.out, recordings.errors, form="cast")
    assert recordings.out.getvalue().endswith('"so far"]\n')


def test_exports_valid_json_of_damaged_recording(recordings: RecordingsDirectory) -> None:
    sid = recordings.recorded(b"good")
    path = next(recordings.directory.rglob(f"{sid}.cast"))
    path.write_bytes(path.read_bytes() + b"\0\n")
    assert export(recordings.library, sid, recordings.out, recordings.errors, form="json") == NO
    assert [event[2] for event in json.loads(recordings.out.getvalue())["events"]][:1] == ["good"]


def test_reports_empty_recording(recordings: RecordingsDirectory, tmp_path: Path) -> None:
    path = tmp_path / "new"
    assert export(recordings.library, "nix", recordings.out, recordings.errors, form="cast", path=path) == NO
    assert text(recordings.library, "nix", recordings.out, recordings.errors) == NO
    assert not path.exists()


# -- from the command line


def run(recordings: RecordingsDirectory, *argv: str) -> tuple[int, str, str]:
    file = recordings.directory.parent / "config.yaml"
    file.write_text(
        f"users: {{}}\nroles: {{}}\nrecordings: {{directory: {recordings.directory}}}\naudit: {{file:"
        f" audit}}\n"
    )
    out, err = io.StringIO(), io.StringIO()
    code = main(["recordings", *argv, "-c", str(file)], out, err)
    return code, out.getvalue(), err.getvalue()


def test_runs_every_command(recordings: RecordingsDirectory, tmp_path: Path) -> None:
    sid = recordings.recorded(b"hello\r\n")
    assert run(recordings, "ls")[1].startswith(sid)
    assert run(recordings, "ls", "--user", "jane") == (0, "", "no recordings found\n")
    assert run(recordings, "ls", "--user", "jane", "--json") == (0, "[]\n", "")
    assert json.loads(run(recordings, "ls", "--json", "--since", "2026-01-01")[1])[0]["sid"] == sid
    assert json.loads(run(recordings, "show", sid, "--json")[1])["sid"] == sid
    assert run(recordings, "play", sid, "--speed", "2", "--idle", "1") == (0, "hello\r\n", "")
    assert run(recordings, "text", sid) == (0, "hello\n", "")
    assert run(recordings, "follow", sid) == (0, "hello\r\n", "")
    assert run(recordings, "export", sid, "--format", "text", "-o", str(tmp_path / "o")) == (0, "", "")
    assert run(recordings, "show", "nix") == (
        1,
        "",
        "conchrec: no recording nix; list them with: conchrec recordings ls\n",
    )


def test_lists_nothing_without_directory(recordings: RecordingsDirectory) -> None:
    assert run(recordings, "ls") == (0, "", "no recordings found\n")


def test_reports_unreadable_directory(
    recordings: RecordingsDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings.recorded(b"hello")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, out, err = run(recordings, "ls")
    assert (code, out) == (1, "")
    assert f"cannot read {recordings.directory}" in err


def test_audits_access(
    recordings: RecordingsDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "jane")
    sid = recordings.recorded(b"hello")
    audit = tmp_path / "audit"
    for argv in (["play", sid], ["text", sid], ["follow", sid], ["export", sid]):
        run(recordings, *argv)
    # nobody has begun a log: a reader does not, either
    assert not audit.exists()
    audit.touch(mode=0o600)
    for argv in (
        ["play", sid], ["text", sid], ["follow", sid], ["export", sid], ["ls"], ["show", sid],
        ["play", "nix"],
    ):  # fmt: skip
        run(recordings, *argv)
    events = audited(audit)
    assert [event["action"] for event in events] == ["play", "text", "follow", "export"]
    for event in events:
        assert (event["event"], event["sid"], event["user"]) == ("session.recording.access", sid, "joe")
        assert (event["by"], event["sudo_user"]) == (pwd.getpwuid(os.getuid()).pw_name, "jane")


def test_shows_nothing_without_audit(recordings: RecordingsDirectory, tmp_path: Path) -> None:
    sid = recordings.recorded(b"hello")
    (tmp_path / "audit").mkdir()
    code, out, err = run(recordings, "play", sid)
    assert (code, out) == (1, "")
    assert "audit" in err
