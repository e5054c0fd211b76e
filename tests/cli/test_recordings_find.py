"""``conchrec recordings ls`` and ``search``: what is asked for, what is printed, and who hears of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conchrec.cli.recordings.find import CONTEXT, search
from conchrec.recording.catalogue import listing
from conchrec.recording.catalogue.index import NAME
from conchrec.recording.catalogue.indexer import fill
from conchrec.recording.catalogue.listing import Filter
from tests.cli.test_recordings_command import RecordingsDirectory, Terminal, run
from tests.support.auditlog import events as audited


@pytest.fixture
def recordings(tmp_path: Path) -> RecordingsDirectory:
    return RecordingsDirectory(tmp_path / "recordings")


def test_filters_by_status_and_kind(recordings: RecordingsDirectory) -> None:
    recordings.recorded(b"one\r\n")
    shell = recordings.recorder()
    shell.start("shell")
    shell.close("done")
    bad = recordings.recorded(b"two\r\n")
    next(recordings.directory.rglob(f"{bad}.json")).write_bytes(b"\0")
    live = recordings.recorder()
    for _ in range(2):  # from the files, and from the index
        for filters, sids in (
            (["--kind", "shell"], [shell.info.sid]),
            (["--status", "unreadable"], [bad]),
            (["--status", "live"], [live.info.sid]),
            (["--status", "c*", "--kind", "shell"], [shell.info.sid]),
            (["--status", "failed"], []),
        ):
            _, out, err = run(recordings, "ls", *filters)
            note = "" if sids else "no recordings found\n"
            assert ([line.split()[0] for line in out.splitlines()], err) == (sids, note), filters
        assert fill(recordings.directory) == []


def test_lists_same_with_and_without_index(recordings: RecordingsDirectory) -> None:
    recordings.recorded(b"one\r\n", command="ls \x1b[c", user="ann", host="db1")
    recordings.recorder().close("nothing was run")
    recordings.recorded(b"two\r\n", command="x" * 100)
    lists = [run(recordings, "ls"), run(recordings, "ls", "--json")]
    assert fill(recordings.directory) == []
    assert [run(recordings, "ls"), run(recordings, "ls", "--json")] == lists


@pytest.mark.parametrize("wrong", [["--limit", "0"], ["--limit", "x"], ["--since", "soon"], ["--nonsense"]])
def test_rejects_invalid_filters(recordings: RecordingsDirectory, wrong: list[str]) -> None:
    assert run(recordings, "ls", *wrong)[0] == 64
    assert run(recordings, "search", "x", *wrong)[0] == 64
    assert run(recordings, "search")[0] == 64


def test_hints_at_missing_index(recordings: RecordingsDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MANY_WITHOUT_INDEX", 2)
    recordings.recorded(b"one")
    recordings.recorder()
    assert run(recordings, "ls")[2] == ""
    recordings.recorded(b"two")
    recordings.recorded(b"three")
    code, listed, errors = run(recordings, "ls")
    assert (code, errors.count("\n")) == (0, 1) and "conchrec recordings rebuild-index" in errors
    assert run(recordings, "rebuild-index") == (0, "the index has 3 recordings\n", "")
    assert run(recordings, "ls") == (0, listed, "")
    (recordings.directory / NAME).write_bytes(b"no database" * 1000)
    code, again, errors = run(recordings, "ls")
    assert (code, again) == (0, listed) and "rebuild-index" in errors


def test_audits_search_with_hits(recordings: RecordingsDirectory, tmp_path: Path) -> None:
    sids = [recordings.recorded(b"the word\r\nthe word\r\n"), recordings.recorded(b"the word\r\n")]
    recordings.recorded(b"something else\r\n")
    fill(recordings.directory)
    audit = tmp_path / "audit"
    audit.touch(mode=0o600)
    assert run(recordings, "search", "nowhere") == (1, "", "no recordings found\n")
    assert run(recordings, "search", "nowhere", "--json") == (1, "[]\n", "")
    assert audit.read_bytes() == b""
    assert run(recordings, "search", "the word", "--json")[0] == 0
    events = audited(audit)
    assert [(event["action"], event["sid"]) for event in events] == [("search", sid) for sid in sids[::-1]]
    audit.unlink()
    audit.mkdir()
    code, out, err = run(recordings, "search", "the word")
    assert (code, out) == (1, "") and err, "a hit that cannot be audited is not shown"


def searched(recordings: RecordingsDirectory, phrase: str, *, terminal: bool = False) -> str:
    out = Terminal() if terminal else recordings.out
    fill(recordings.directory)
    search(recordings.library, [phrase], out, recordings.errors, wanted=Filter(), limit=9, as_json=False)
    return out.getvalue().rpartition("web1:22: ")[2]


def test_shortens_long_line_around_match(recordings: RecordingsDirectory) -> None:
    recordings.recorded(b"a" * 500 + b" word " + b"b" * 500 + b" word " + b"c" * 500 + b"\r\n")
    n = CONTEXT - 1
    assert searched(recordings, "word") == f"…{'a' * n} word {'b' * n}…{'b' * n} word {'c' * n}…\n"


def test_prints_short_line_completely(recordings: RecordingsDirectory) -> None:
    recordings.recorded(b"db=# drop table users;\r\n")
    assert searched(recordings, "DROP TABLE", terminal=True) == "db=# \x1b[1mdrop table\x1b[m users;\n"


HOSTILE = (
    b"\x1b]0;title\x07\x1b]52;c;?\x07\x1b[c\x1b[6n\x1bP$qm\x1b\\\xc2\x9b6n\x01\x02"
    b"evil\x08\x08word\x7f\xe2\x80\xae \x1b[31mred\r\n"
)


def test_escapes_foreign_line(recordings: RecordingsDirectory) -> None:
    recordings.recorded(HOSTILE, command="word \x1b]52;c;?\x07 \u202e", user="joe")
    errors = searched(recordings, "red") + searched(recordings, "word")
    assert errors.replace("\n", "").isprintable() and "red" in errors and "\\x1b]52" in errors


def test_hides_removed_recordings(recordings: RecordingsDirectory) -> None:
    kept, gone = recordings.recorded(b"word\r\n"), recordings.recorded(b"word\r\n")
    fill(recordings.directory)
    for path in recordings.directory.rglob(f"{gone}.*"):
        path.unlink()
    code, out, err = run(recordings, "search", "word")
    assert (code, [line.split()[0] for line in out.splitlines()], err) == (0, [kept], "")
