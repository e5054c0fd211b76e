"""The JSON lines of the audit log: escapes, and limits on what a stranger may write."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from datetime import datetime, timezone

import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st

from conchrec.audit import encoder
from conchrec.audit.encoder import CUT_MINIMUM, DEFAULT_LIMIT, LIMITS, LIST_ITEMS, LIST_LIMIT, LONGEST
from conchrec.audit.events import CATALOGUE, AuditEvent, AuthRefused, CaRotate, Exec, SessionEnd, Sftp
from conchrec.text import escape_json, is_printable
from tests.support.auditlog import line

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp"]))
#: The longest escape, the shortest, some that end in the middle of a character, and those that JSON has.
LETTERS = '\x00\x7f\U000e0041\udc80\ud800é日a\\"\n𐍈'


# -- foreign text


@given(ANY_TEXT.filter(lambda text: len(text) <= DEFAULT_LIMIT // 12))
def test_escapes_any_text_and_loses_none_of_it(text: str) -> None:
    written = line(AuthRefused(reason=text, user=text), NOON)
    assert written.count(b"\n") == 1
    shown = written.decode()[:-1]
    assert shown == "".join(shown.splitlines())
    assert is_printable(shown)
    read = json.loads(shown)
    assert read.get("reason", "") == text and read["user"] == text


@pytest.mark.parametrize(
    "letter",
    ["\x00", "\x07", "\x1b", "\n", "\r", "\x7f", "\x85", "\x9b", "\u061c", "\u200b", "\u200e", "\u202e",
     "\u2028",
     "\u2029", "\u2066", "\ufeff", "\udc80", "\U000e0041", "\u00ad", "\u00a0", "\u3000", "\u3164", "\ufe0f",
     "\ue000", "\u0378"],
)  # fmt: skip
def test_escapes_each_dangerous_character(letter: str) -> None:
    written = line(Exec(command=f"a{letter}b", user=letter), NOON).rstrip(b"\n")
    assert written.isascii() and letter not in written.decode()
    assert json.loads(written)["command"] == f"a{letter}b"


def test_keeps_ordinary_text_of_any_language_readable() -> None:
    assert "grep 'größe' 日本語".encode() in line(Exec(command="grep 'größe' 日本語"), NOON)


# -- limits


def cut(raw: bytes, name: str) -> bytes:
    """A string member as it is written, without its quotes."""
    start = raw.index(f'"{name}":"'.encode()) + len(name) + 4
    end = start
    while raw[end : end + 1] != b'"':
        end += 2 if raw[end : end + 1] == b"\\" else 1
    return raw[start:end]


@given(ANY_TEXT | st.text(LETTERS, min_size=60), st.integers(1, 400))
@case("\\", 2000)
@case('a\\"', 2000)
@case("\U000e0041", 2000)
@case("\U000e0041", 43)
def test_cuts_long_text_to_its_limit(text: str, times: int) -> None:
    # JSON has one text for two halves of a pair and for the pair.
    text = (text * times).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    raw = line(AuthRefused(reason=text), NOON)
    read, written = json.loads(raw), cut(raw, "reason") if text else b""
    assert len(written) <= DEFAULT_LIMIT
    assert len(written) <= max(CUT_MINIMUM, 2 * len(text.encode("utf-8", "surrogatepass")))
    kept = read.get("reason", "")
    if "reason_size" not in read:
        assert kept == text
        return
    assert text.startswith(kept) and kept != text
    # No room is wasted: one character more would not fit, and none has more than 12 bytes.
    sent = len(text[:DEFAULT_LIMIT].encode("utf-8", "surrogatepass"))
    assert len(written) > min(DEFAULT_LIMIT, max(CUT_MINIMUM, 2 * sent)) - 24
    try:
        original = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        original = text.encode("utf-8", "surrogatepass")
    assert read["reason_size"] == len(original)
    assert read["reason_sha256"] == hashlib.sha256(original).hexdigest()


@pytest.mark.parametrize("name", ["command", "forced_upon"])
def test_gives_commands_more_room(name: str) -> None:
    values = {"command": "ls", name: "x" * 9000}
    read = json.loads(line(Exec(**values), NOON))  # type: ignore[arg-type]
    assert read[name] == "x" * LIMITS[name] and read[f"{name}_size"] == 9000
    assert "command_size" not in read or name == "command"


def test_hashes_bytes_that_are_not_text_unchanged() -> None:
    original = b"cat > /tmp/x" + bytes(range(128, 256)) * 100
    read = json.loads(line(Exec(command=original.decode("utf-8", "surrogateescape")), NOON))
    assert read["command_sha256"] == hashlib.sha256(original).hexdigest()
    assert read["command_size"] == len(original)


@given(st.lists(ANY_TEXT, max_size=200).map(tuple), st.integers(1, 50))
@case(("x" * 5000,), 1)
@case(("x" * LIST_LIMIT, ""), 1)
@case(("",) * (LIST_ITEMS + 1), 1)
def test_cuts_long_lists(items: tuple[str, ...], times: int) -> None:
    halves = ((item * times).encode("utf-16", "surrogatepass") for item in items)
    items = tuple(item.decode("utf-16", "surrogatepass") for item in halves)
    raw = line(CaRotate(type="user", phase="init", signs="x", trusted=items), NOON)
    read = json.loads(raw)
    kept = read.get("trusted", [])
    assert len(raw) < LIST_LIMIT + 1000 + 3 * LIST_ITEMS
    if "trusted_count" not in read:
        assert tuple(kept) == items
        return
    assert read["trusted_count"] == len(items)
    assert len(kept) <= LIST_ITEMS and all(map(str.startswith, items, kept))
    assert tuple(kept[1:]) == items[1 : len(kept)], "but for the first, items are whole"


@pytest.mark.parametrize("kind", CATALOGUE)
@pytest.mark.parametrize("letter", ["\x01", "\U000e0041", "\\", "日"])
def test_writes_no_long_line_for_any_event(kind: type[AuditEvent], letter: str) -> None:
    values = {
        "str": letter * 100_000,
        "tuple[str, ...]": (letter * 1000,) * 1000,
        "int": 2**64 - 1,
        "float": 1e300 / 3,
        "bool": True,
    }
    full = kind(**{item.name: values[str(item.type).removesuffix(" | None")] for item in fields(kind)})  # type: ignore[arg-type]
    assert len(line(full, NOON)) < LONGEST // 2


@pytest.mark.parametrize("size", [10, 40, 100, 300, 700, 1500, 4000, 100_000])
@pytest.mark.parametrize("letter", ["\x01", "\x7f", "\u202e", "\U000e0041"])
def test_writes_no_more_than_was_sent_for_files_with_odd_names(letter: str, size: int) -> None:
    """Events of files are always written and never only counted, so their lines have to be small."""
    path = letter * size
    event = Sftp(operation="mkdir", path=path, result="failed", user="joe", cid="0123456789abcdef")
    assert len(line(event, NOON)) < 2 * len(path.encode()) + CUT_MINIMUM + 400


def test_spends_no_time_on_the_part_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """To escape each character of a large name took half a second of the reactor's time."""
    seen: list[int] = []

    def count(text: str) -> str:
        seen.append(len(text))
        return escape_json(text)

    monkeypatch.setattr(encoder, "escape_json", count)
    line(Sftp(operation="read", path="\x7f" * 1_000_000, result="ok", other="\x7f" * 1_000_000), NOON)
    assert max(seen) < 100_000


@given(ANY_TEXT, st.integers(0, 2**80), st.integers(0, 10**9))
def test_writes_what_json_writes(text: str, size: int, milliseconds: int) -> None:
    event = SessionEnd(reason=text, user=text[:9], stdout=size, duration=milliseconds / 1000)
    written = line(event, NOON).decode()
    same = json.dumps(json.loads(written), ensure_ascii=False, separators=(",", ":"))
    assert written == escape_json(same) + "\n"
