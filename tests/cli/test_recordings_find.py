"""``conchrec recordings ls`` and ``search``: what is asked for, what is printed, and who hears of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conchrec.cli.recordings.find import CONTEXT, search
from conchrec.recording.catalogue import listing
from conchrec.recording.catalogue.index import NAME
from conchrec.recording.catalogue.indexer import fill
from conchrec.recording.catalogue.listing import Filter
from tests.cli.test_recordings_command import Shelf, Terminal, run
from tests.support.auditlog import events as audited


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "recordings")


def test_filters_by_status_and_kind(shelf: Shelf) -> None:
    shelf.recorded(b"one\r\n")
    shell = shelf.recorder()
    shell.start("shell")
    shell.close("done")
    bad = shelf.recorded(b"two\r\n")
    next(shelf.directory.rglob(f"{bad}.json")).write_bytes(b"\0")
    live = shelf.recorder()
    for _ in range(2):  # from the files, and from the index
        for asked, sids in (
            (["--kind", "shell"], [shell.info.sid]),
            (["--status", "unreadable"], [bad]),
            (["--status", "live"], [live.info.sid]),
            (["--status", "c*", "--kind", "shell"], [shell.info.sid]),
            (["--status", "failed"], []),
        ):
            _, out, err = run(shelf, "ls", *asked)
            assert ([line.split()[0] for line in out.splitlines()], err) == (sids, ""), asked
        assert fill(shelf.directory) == []


def test_lists_same_with_and_without_index(shelf: Shelf) -> None:
    shelf.recorded(b"one\r\n", command="ls \x1b[c", user="ann", host="db1")
    shelf.recorder().close("nothing was run")
    shelf.recorded(b"two\r\n", command="x" * 100)
    lists = [run(shelf, "ls"), run(shelf, "ls", "--json")]
    assert fill(shelf.directory) == []
    assert [run(shelf, "ls"), run(shelf, "ls", "--json")] == lists


@pytest.mark.parametrize("wrong", [["--limit", "0"], ["--limit", "x"], ["--since", "soon"], ["--nonsense"]])
def test_rejects_invalid_filters(shelf: Shelf, wrong: list[str]) -> None:
    assert run(shelf, "ls", *wrong)[0] == 64
    assert run(shelf, "search", "x", *wrong)[0] == 64
    assert run(shelf, "search")[0] == 64


def test_hints_at_missing_index(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MANY", 2)
    shelf.recorded(b"one")
    shelf.recorder()
    assert run(shelf, "ls")[2] == ""
    shelf.recorded(b"two")
    shelf.recorded(b"three")
    code, listed, said = run(shelf, "ls")
    assert (code, said.count("\n")) == (0, 1) and "conchrec recordings rebuild-index" in said
    assert run(shelf, "rebuild-index") == (0, "3 recordings are in the index\n", "")
    assert run(shelf, "ls") == (0, listed, "")
    (shelf.directory / NAME).write_bytes(b"no database" * 1000)
    code, again, said = run(shelf, "ls")
    assert (code, again) == (0, listed) and "rebuild-index" in said


def test_audits_search_with_hits(shelf: Shelf, tmp_path: Path) -> None:
    sids = [shelf.recorded(b"the word\r\nthe word\r\n"), shelf.recorded(b"the word\r\n")]
    shelf.recorded(b"something else\r\n")
    fill(shelf.directory)
    audit = tmp_path / "audit"
    audit.touch(mode=0o600)
    assert run(shelf, "search", "nowhere") == (1, "", "")
    assert audit.read_bytes() == b""
    assert run(shelf, "search", "the word", "--json")[0] == 0
    events = audited(audit)
    assert [(event["action"], event["sid"]) for event in events] == [("search", sid) for sid in sids[::-1]]
    audit.unlink()
    audit.mkdir()
    code, out, err = run(shelf, "search", "the word")
    assert (code, out) == (1, "") and err, "what can not be audited is not shown"


def searched(shelf: Shelf, phrase: str, *, terminal: bool = False) -> str:
    out = Terminal() if terminal else shelf.out
    fill(shelf.directory)
    search(shelf.library, [phrase], out, shelf.errors, wanted=Filter(), limit=9, as_json=False)
    return out.getvalue().rpartition("web1:22: ")[2]


def test_shortens_long_line_around_match(shelf: Shelf) -> None:
    shelf.recorded(b"a" * 500 + b" word " + b"b" * 500 + b" word " + b"c" * 500 + b"\r\n")
    n = CONTEXT - 1
    assert searched(shelf, "word") == f"…{'a' * n} word {'b' * n}…{'b' * n} word {'c' * n}…\n"


def test_prints_short_line_completely(shelf: Shelf) -> None:
    shelf.recorded(b"db=# drop table users;\r\n")
    assert searched(shelf, "DROP TABLE", terminal=True) == "db=# \x1b[1mdrop table\x1b[m users;\n"


HOSTILE = (
    b"\x1b]0;title\x07\x1b]52;c;?\x07\x1b[c\x1b[6n\x1bP$qm\x1b\\\xc2\x9b6n\x01\x02"
    b"evil\x08\x08word\x7f\xe2\x80\xae \x1b[31mred\r\n"
)


def test_escapes_foreign_line(shelf: Shelf) -> None:
    shelf.recorded(HOSTILE, command="word \x1b]52;c;?\x07 \u202e", user="joe")
    said = searched(shelf, "red") + searched(shelf, "word")
    assert said.replace("\n", "").isprintable() and "red" in said and "\\x1b]52" in said


def test_hides_removed_recordings(shelf: Shelf) -> None:
    kept, gone = shelf.recorded(b"word\r\n"), shelf.recorded(b"word\r\n")
    fill(shelf.directory)
    for path in shelf.directory.rglob(f"{gone}.*"):
        path.unlink()
    code, out, err = run(shelf, "search", "word")
    assert (code, [line.split()[0] for line in out.splitlines()], err) == (0, [kept], "")
