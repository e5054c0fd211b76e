"""Recorded output as plain lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.terminal.transcript import Transcript


def read(*parts: str) -> str:
    transcript = Transcript()
    return "".join([transcript.feed(part) for part in parts]) + transcript.end()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", ""),
        ("a\r\nb", "a\nb\n"),
        ("a\nb\n", "a\nb\n"),
        ("\r\n\r\n", "\n\n"),
        ("10%\r20%\r100%\r\n", "100%\n"),
        ("long\rab\x1b[K\n", "ab\n"),
        ("abc\b\bX\n", "aXc\n"),
        ("a\tb\n", "a       b\n"),
        ("ab\x1b[2Dx\n", "xb\n"),
        ("ab\r\x1b[Cx\n", "ax\n"),
        ("abcd\x1b[3D\x1b[2P\n", "ad\n"),
        ("ad\b\x1b[2@bc\n", "abcd\n"),
        ("abc\x1b[2K\rx\n", "x\n"),
        ("abc\b\x1b[1Kx\n", "  x\n"),
        ("abc\x1b[2Gx\n", "axc\n"),
        ("\x1b[1;31mred\x1b[0m\x1b(B\n", "red\n"),
        ("\x1b]0;title\x07a\x07\n", "a\n"),
        ("one\x1b[2;5Htwo\x1b[2Jthree", "one\ntwo\nthree\n"),
        ("trailing   \n", "trailing\n"),
        ("\x1b[999999999Cx\n", " " * 4096 + "\nx\n"),
        ("\u202eevil\u200b\n", "\\u202eevil\\u200b\n"),
        ("\x1b[38;5;1", ""),
    ],
)
def test_applies_line_editing(raw: str, expected: str) -> None:
    assert read(raw) == expected.replace(" " * 4096 + "\n", "\n")


def test_breaks_line_without_an_end() -> None:
    assert read("x" * 10_000) == "x" * 4096 + "\n" + "x" * 4096 + "\n" + "x" * 1808 + "\n"


@given(st.text(st.sampled_from("ab\r\n\b\t\x1b[0123456789;KCDGP@HJm\x07\x9b?h")), st.integers(0, 50))
def test_reads_any_parts_alike_and_prints_safe_text(raw: str, at: int) -> None:
    whole = read(raw)
    assert read(raw[:at], raw[at:]) == whole
    assert all(letter.isprintable() or letter == "\n" for letter in whole)


@pytest.mark.parametrize(
    ("output", "new"),
    [
        ("", ""), ("\r\x1b[7m\t", ""), ("cde", "cde"), ("c", "c"), ("\x1b[CX", ""), ("\x1b[P", ""),
        ("\x1b[@X", "X"), ("\x1b[KXY", "XY"), ("\nabXY", "XY"),
    ],
)  # fmt: skip
def test_tells_new_letters_from_earlier_ones(output: str, new: str) -> None:
    transcript = Transcript()
    transcript.feed("abcdef\rab")
    transcript.mark()
    transcript.feed(output)
    assert transcript.new_letters(2, 10) == new
