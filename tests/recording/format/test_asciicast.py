from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.format.asciicast import Damaged, Event, Header, event_line, exit_line, is_valid_size

any_text = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp"]))


@given(st.floats(min_value=0, max_value=1e9), st.sampled_from("oimrx"), st.text())
def test_reads_event_as_it_was_written(time: float, code: str, text: str) -> None:
    line = event_line(time, code, text)
    assert line.endswith(b"\n") and len(line.decode().splitlines()) == 1
    event = Event.parse(line)
    assert (event.code, event.text) == (code, text)
    assert abs(event.time - time) <= 1e-6 * max(time, 1)
    assert json.loads(line) == [event.time, code, text]


@given(any_text)
def test_writes_any_text(text: str) -> None:
    assert len(event_line(0, "o", text).decode().splitlines()) == 1
    header = Header(command=text, title=text, env={"TERM": text}, ours={"user": text}).line()
    assert len(header.decode().splitlines()) == 1


def test_encodes_zeros_like_all_control_characters() -> None:
    """They have an encoder of their own."""
    text = "".join(map(chr, range(128))) + "\0" * 100
    escaped = "".join(map(chr, range(1, 128))) + "\0"
    zeros, others = event_line(0, "o", text), event_line(0, "o", escaped)
    assert zeros[: -len(b'"]\n')].replace(rb"\u0000", b"") == others[: -len(b'"]\n')].replace(rb"\u0000", b"")
    assert Event.parse(zeros).text == text


def test_writes_times_with_six_decimals() -> None:
    assert event_line(0.0000001, "o", "a") == b'[0.000000, "o", "a"]\n'
    assert event_line(12345678.5, "m", "a") == b'[12345678.500000, "m", "a"]\n'


@pytest.mark.parametrize("separator", ["\u0085", "\u2028", "\u2029"])
def test_escapes_line_separators_of_other_languages(separator: str) -> None:
    line = event_line(0, "o", f"a{separator}b")
    assert separator.encode() not in line
    assert Event.parse(line).text == f"a{separator}b"


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "0"), (255, "255"), (2**31 - 1, "2147483647"), (0xC000013A, "-1073741510"), (2**32 - 1, "-1")],
)
def test_writes_exit_status_that_asciinema_3_reads(status: int, text: str) -> None:
    event = Event.parse(exit_line(1, status))
    assert (event.code, event.text) == ("x", text)


def test_replaces_lone_surrogate() -> None:
    assert Header.parse(Header(command="ls \udcff").line()).command == "ls ?"


def test_leaves_out_empty_header_fields() -> None:
    assert json.loads(Header(timestamp=5).line()) == {"version": 2, "width": 80, "height": 24, "timestamp": 5}
    assert b"null" not in Header(ours={"sid": "a", "cid": None, "deep": {"no": None}}).line()


def test_writes_complete_header() -> None:
    header = Header(
        width=100,
        height=30,
        timestamp=1_795_435_200,
        command="ls -l",
        title="root@web1:22",
        env={"TERM": "xterm", "SHELL": "/bin/sh", "LANG": "C"},
        ours={"sid": "abc"},
    )
    fields = json.loads(header.line())
    assert fields == {
        "version": 2,
        "width": 100,
        "height": 30,
        "timestamp": 1_795_435_200,
        "command": "ls -l",
        "title": "root@web1:22",
        "env": {"TERM": "xterm", "SHELL": "/bin/sh"},
        "conchrec": {"sid": "abc"},
    }
    assert next(iter(fields)) == "version"
    read = Header.parse(header.line())
    assert (read.width, read.height, read.command, read.ours) == (100, 30, "ls -l", {"sid": "abc"})


@pytest.mark.parametrize(
    "size", [(0, 0), (0, 24), (80, 0), (1001, 24), (80, 1001), (-1, 5), (2**32 - 1, 2**32 - 1)]
)
def test_replaces_refused_size_by_80x24(size: tuple[int, int]) -> None:
    assert not is_valid_size(*size)
    header = Header.parse(Header(width=size[0], height=size[1]).line())
    assert (header.width, header.height) == (80, 24)


@pytest.mark.parametrize("size", [(1, 1), (1000, 1000), (80, 24)])
def test_accepts_valid_size(size: tuple[int, int]) -> None:
    header = Header.parse(Header(width=size[0], height=size[1]).line())
    assert (header.width, header.height) == size


def test_writes_no_negative_timestamp() -> None:
    assert Header.parse(Header(timestamp=-5).line()).timestamp == 0


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"\0\0\0\n", b"{", b"[]", b'{"version": 1, "width": 80, "height": 24}', b'{"version": 2}',
     b'{"version": 2, "width": "80", "height": 24}', b"[0, \"o\", \"a\"]", b"null"],
)  # fmt: skip
def test_rejects_invalid_header(line: bytes) -> None:
    with pytest.raises(Damaged):
        Header.parse(line)


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"\0\0\n", b"[0.1, \"o\"", b'[0.1, "o"]', b'["0.1", "o", "a"]', b'[0.1, "o", 5]',
     b'[0.1, 5, "a"]',
     b'[0.1, "o", "a", 1]', b"{}", b'[0.1, "o", "\xff"]'],
)  # fmt: skip
def test_rejects_invalid_event(line: bytes) -> None:
    with pytest.raises(Damaged):
        Event.parse(line)
