"""Text of a target outside a session cannot imitate the proxy."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import LoginRejected, UpstreamError
from conchrec.proxy import refusals
from conchrec.proxy.upstream.target_text import CUT, MAX_BANNER, MAX_BANNER_LINES, TargetText
from conchrec.ssh.userauth import Challenge, Prompt
from conchrec.text import PREFIX, one_line

NAMES = st.sampled_from(["web1:22", "conchrec:22", "conchrec", "[fd00::1]:2222", "x" * 253 + ":22", "Code"])
#: What an attacker would build a text from.
PIECES = st.sampled_from(
    [
        "conchrec: ", "CONCHREC:", "conchrec :", "conchrec\u00a0:", "conchrec\uff1a", "con\x00chrec: ",
        "con\u200bchrec: ", "Code: ", "Password: ", "[web2:22] ", "\r", "\n", "\r\n", "\x0b", "\x0c", "\x1c",
        "\x85", "\u2028", "\u2029", "\x1b[2K\r", "\x1b[1A", "\x08" * 30, "\t", " " * 200, "\n" * 200,
        "." * 77, "\u3000" * 40, "\u202e", "\ufeff", "\x9b2J", "\x00", "\x7f", "e\u0301" * 50, "名" * 60,
        "", "x",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=300)


def rows(text: str, width: int) -> list[str]:
    """What a terminal of so many columns shows: it wraps, and obeys line ends alone (no other control
    character is left)."""
    shown = []
    for line in text.replace("\r\n", "\n").split("\n"):
        assert all(unicodedata.category(letter) not in ("Cc", "Cf", "Zl", "Zp") for letter in line), repr(
            line
        )
        row, columns = "", 0
        for letter in line:
            takes = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
            if columns + takes > width:
                shown.append(row)
                row, columns = "", 0
            row, columns = row + letter, columns + takes
        shown.append(row)
    return shown


def is_like_ours(row: str) -> bool:
    shown = unicodedata.normalize("NFKC", row).strip().casefold()
    return re.match(r"conchrec\s*:|code:|password:", shown) is not None


def check(shown: str, mark: str, before: str = "") -> None:
    """On a usual terminal every row has the mark, on any other one none begins like one of the proxy's."""
    assert all(line.startswith(mark) for line in shown.split("\n") if line), shown
    for row in rows(before + shown, 80) if shown else ():
        assert not row or row.startswith((mark, before + mark)), (row, shown)
    for width in (20, 37, 60, 132):
        assert not any(re.match(r"\s*conchrec\s*:", row, re.IGNORECASE) for row in rows(shown, width))


def mark_of(name: str) -> str:
    return f"[{one_line(name, 32)}] "


@given(NAMES, st.lists(TEXTS, max_size=4))
def test_marks_each_line_of_banner(name: str, banners: list[str]) -> None:
    text = TargetText(name)
    for banner in banners:
        shown = text.banner(banner)
        check(shown, mark_of(name))
        assert not any(is_like_ours(row) for row in rows(shown, 80))
        assert shown == "" or shown.endswith("\n")


@given(NAMES, TEXTS, TEXTS, st.lists(st.tuples(TEXTS, st.booleans()), max_size=3))
def test_marks_each_line_of_challenge(
    name: str, title: str, instruction: str, prompts: list[tuple[str, bool]]
) -> None:
    challenge = Challenge(
        name=title,
        instruction=instruction,
        prompts=tuple(Prompt(text=text, echo=echo) for text, echo in prompts),
    )
    shown = TargetText(name).challenge(challenge)
    assert [prompt.echo for prompt in shown.prompts] == [prompt.echo for prompt in challenge.prompts]
    for text in (shown.name, shown.instruction, *(prompt.text for prompt in shown.prompts)):
        check(text, mark_of(name), before="(root@web1) ")
    assert all(prompt.text.startswith(mark_of(name)) for prompt in shown.prompts), "an empty one, too"


@given(NAMES, TEXTS)
def test_marks_reason_of_disconnect(name: str, words: str) -> None:
    shown = TargetText(name).line(words.encode("utf-8", "surrogatepass")).decode()
    assert shown.startswith(mark_of(name)) and "\n" not in shown and len(shown) < 300
    assert not any(re.match(r"\s*conchrec\s*:", row, re.IGNORECASE) for row in rows(shown, 37))


@given(TEXTS)
def test_quotes_our_name_in_errors_with_text_of_target(words: str) -> None:
    for error in (UpstreamError(f"web1:22 closed the connection: {words}"), LoginRejected(words)):
        shown = refusals.error_line(error)
        assert shown.startswith(PREFIX) and len(shown) < 1200
        rest = shown.removeprefix(PREFIX)
        assert not any(re.match(r"\s*conchrec\s*:", row, re.IGNORECASE) for row in rows(rest, 37))


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("Authorized use only.\n", "[web1:22] Authorized use only.\n"),
        ("\n\n  Hello\n\n\n\nthere", "[web1:22] \n[web1:22]   Hello\n[web1:22] \n[web1:22] there\n"),
        ("good\rconchrec: bad", "[web1:22] good\n[web1:22] 'conchrec': bad\n"),
        ("", ""),
    ],
)
def test_shows_banner_with_mark(given_: str, shown: str) -> None:
    assert TargetText("web1:22").banner(given_) == shown


def test_keeps_prompt_of_several_lines_readable() -> None:
    """As Duo's: what people type stands behind the last line."""
    text = "Enter a passcode or select one:\n\n 1. Push to XXX-1234\n 2. Phone\n\nPasscode or option (1-2): "
    shown = TargetText("web1:22").challenge(Challenge(prompts=(Prompt(text=text),))).prompts[0].text
    assert shown.replace("[web1:22] ", "") == text
    assert shown.endswith("\n[web1:22] Passcode or option (1-2): ")


def test_cuts_long_banner() -> None:
    text = TargetText("web1:22")
    shown = [text.banner("x\n" * 1000), text.banner("again\n"), text.banner("x" * MAX_BANNER)]
    assert len(shown[0].splitlines()) == MAX_BANNER_LINES and shown[0].rstrip().endswith(CUT)
    assert shown[1:] == ["", ""]


@given(TEXTS)
def test_refusal_cannot_imitate_proxy(words: str) -> None:
    shown = TargetText("web1").refusal(words.encode("utf-8", "surrogatepass")).decode()
    assert "\n" not in shown
    assert shown.startswith("[web1] ") or (shown.isascii() and "conchrec" not in shown.casefold())


@pytest.mark.parametrize("words", ["conchrec: no", "ConchRec: no", "\N{CYRILLIC SMALL LETTER ES}onchrec: no"])
def test_marks_refusal_that_imitates_proxy(words: str) -> None:
    assert TargetText("web1").refusal(words.encode()).startswith(b"[web1] ")


def test_leaves_ordinary_refusal_unmarked() -> None:
    assert TargetText("web1").refusal(b"Connection refused") == b"Connection refused"
