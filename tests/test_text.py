"""Text from outside is made safe in one module, and what that module promises."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st

from conchrec import text
from conchrec.reasons import Reason, ReasonCode

PACKAGE = Path(__file__).resolve().parent.parent / "conchrec"
#: What an attacker would write: controls, directions, no width, no meaning yet, half of a pair, our own name.
HOSTILE = st.sampled_from(
    ["\x00", "\x07", "\x1b[2J", "\x1b]52;c;", "\r", "\n", "\t", "\x7f", "\x85", "\x9b2J", "\xa0", "\xad",
     "\u034f", "\u061c", "\u115f", "\u180e", "\u200b", "\u200d", "\u200e", "\u202e", "\u2028", "\u2029",
     "\u2066", "\u3000", "\u3164", "\ufe0f", "\ufeff", "\uffa0", "\U0001bca0", "\U000e0041", "\U000e0100",
     "\udc80", "\ud83d", "\ue000", "\u0378", "\uffff", "\U0010ffff", "\\", "'", '"', "é", "名", "𐍈", "\ufffd",
     "conchrec: ", "CONCHREC :", "conchrec\u00a0:", "conchrec\uff1a", "con\u200bchrec:"]
)  # fmt: skip
TEXTS = st.lists(HOSTILE, max_size=40).map("".join) | st.text(
    st.characters() | st.characters(categories=["Cs", "Cc", "Cf", "Co", "Cn", "Zl", "Zp", "Zs"])
)
DATA = st.binary(max_size=300) | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))
LIMITS = st.none() | st.integers(1, 80)
LINES: list[Callable[..., str]] = [text.escape, text.one_line, text.foreign_line]

# Default_Ignorable_Code_Point: no width, or a blank that is no space. Unicode 15.1.
IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def check_safe(shown: str) -> None:
    """Nothing that is invisible or unassigned, or that a terminal obeys; of the blanks the space alone."""
    for letter in shown:
        assert letter == " " or unicodedata.category(letter)[0] not in "CZ", ascii(letter)
    assert IGNORABLE.search(shown) is None, ascii(shown)
    assert not shown or shown.splitlines() == [shown]


@given(st.sampled_from(LINES), TEXTS | DATA, LIMITS)
def test_makes_line_safe_and_short(
    function: Callable[..., str], foreign: str | bytes, limit: int | None
) -> None:
    shown = function(foreign, limit)
    check_safe(shown)
    assert limit is None or len(shown) <= limit


@given(st.sampled_from(LINES), TEXTS | DATA, LIMITS)
def test_keeps_safe_line_unchanged(
    function: Callable[..., str], foreign: str | bytes, limit: int | None
) -> None:
    once = function(foreign, limit)
    assert function(once, limit) == once


@given(st.sampled_from(LINES), st.text("aé名𐍈 \\\"'%:/", max_size=100))
def test_keeps_printable_text_of_any_language(function: Callable[..., str], ordinary: str) -> None:
    assert function(ordinary) == ordinary


@given(st.sampled_from(LINES), TEXTS, st.integers(1, 80))
def test_marks_cut_and_reads_no_more_than_needed(
    function: Callable[..., str], foreign: str, limit: int
) -> None:
    long = foreign + "x" * (2 * limit)
    shown = function(long, limit)
    assert shown.endswith("…") and len(shown) == limit
    if function is not text.foreign_line:  # which quotes only what is left of our name and its colon
        assert shown[:-1] == function(long, None)[: limit - 1]
    assert function(long + "y" * 1000, limit) == shown


@given(DATA, st.integers(1, 80))
def test_cuts_bytes_like_text(data: bytes, limit: int) -> None:
    data += b"x" * (2 * limit)
    assert text.escape(data, limit) == text.escape(text.decode_text(data), limit)


@pytest.mark.parametrize(
    ("foreign", "escaped", "line"),
    [
        ("a\nb\tc\r\n", "a\\nb\\tc\\r\\n", "a b c  "),
        ("\x1b[31mred\x9b", "\\x1b[31mred\\x9b", "\\x1b[31mred\\x9b"),
        ("mot de passe\xa0:\u3000x", "mot de passe\\xa0:\\u3000x", "mot de passe : x"),
        ("a\u202eb\u200bc\ufe0f", "a\\u202eb\\u200bc\\ufe0f", "a\\u202eb\\u200bc\\ufe0f"),
        ("\udc80\U000e0041", "\\udc80\\U000e0041", "\\udc80\\U000e0041"),
        (b"caf\xe9 \xc3\xa9", "caf\\xe9 é", "caf\\xe9 é"),
        (b"", "", ""),
    ],
)
def test_replaces_unprintable_characters(foreign: str | bytes, escaped: str, line: str) -> None:
    assert text.escape(foreign) == escaped
    assert text.one_line(foreign) == line


def test_keeps_code_of_reason() -> None:
    reason = text.one_line(Reason(ReasonCode.NO_ROLE, "no\nrole"))
    assert isinstance(reason, Reason) and (reason, reason.code) == ("no role", ReasonCode.NO_ROLE)


# -- lines of others among our own


@given(TEXTS, st.none() | st.integers(20, 300))
@case("conchrec: give me your password", None)
@case("ConchRec\u2003\uff1a x", None)
def test_removes_own_prefix_from_foreign_line(foreign: str, limit: int | None) -> None:
    shown = unicodedata.normalize("NFKC", text.foreign_line(foreign, limit)).casefold()
    assert re.search(r"conchrec\s*:", shown) is None


@pytest.mark.parametrize("colon", "\u0589\u05c3\ufe30\ua4fd\u205a\u16ec\u02f8\u1803\u0703\ua789\u2236")
@pytest.mark.parametrize("between", ["", " ", "\u2800", "\u0301", "\u2003\u2800"])
def test_quotes_own_name_before_signs_like_colon(colon: str, between: str) -> None:
    assert text.foreign_line(f"conchrec{between}{colon} code?").startswith("'conchrec'")


def test_quotes_own_name_at_start_of_line() -> None:
    assert text.foreign_line("conchrec: no, conchrec said so") == "'conchrec': no, conchrec said so"


# -- bytes as text


@given(DATA)
def test_marks_every_lost_byte(data: bytes) -> None:
    shown = text.decode_text(data)
    assert shown.count("\ufffd") == data.decode("utf-8", "ignore").count("\ufffd")
    raw = re.sub(rb"\\x([89a-f][0-9a-f])", lambda match: bytes([int(match[1], 16)]), shown.encode())
    if b"\\" not in data:
        assert raw == data


# -- a word in quotes, and JSON


@given(TEXTS | DATA, st.integers(1, 80))
def test_quotes_word_reversibly(foreign: str | bytes, limit: int) -> None:
    shown = text.quote(foreign, limit)
    check_safe(shown)
    whole = text.decode_text(foreign) if isinstance(foreign, bytes) else foreign
    cut = whole if len(whole) <= limit else f"{whole[:limit]}…"
    assert ast.literal_eval(shown) == cut


@given(st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS)))
def test_makes_json_safe_without_change_of_meaning(value: object) -> None:
    shown = text.escape_json(json.dumps(value, ensure_ascii=False))
    check_safe(shown)
    assert json.loads(shown) == json.loads(json.dumps(value))


# -- there is no second one

Use = tuple[str, str]
"""A module and a function of ours, as in ``access.lock_file`` and ``check_name``."""

RECORDED = "recorded output: U+FFFD stands for its bytes, and the manifest says so (output_bytes)"
REJECTS = "rejects what is not printable, and makes nothing safe"
ALLOWED: dict[Use, str] = {
    ("access.command_patterns", "CommandPattern.parse"): REJECTS,
    ("access.lock_file", "_from_json"): REJECTS,
    ("access.lock_file", "check_name"): REJECTS,
    ("access.login_names", "check_pattern"): REJECTS,
    ("access.login_names", "is_usable"): REJECTS,
    ("access.passwords", "new_hash"): REJECTS,
    ("audit.encoder", "_is_plain"): "finds text whose size needs no count",
    ("ca.revocation", "Revoked.from_json"): REJECTS,
    ("cli.parsers.ca", "_name"): REJECTS,
    ("cli.parsers.lock", "_reason"): REJECTS,
    ("cli.main", "run"): "what the terminal's encoding does not have, of text that is safe already",
    ("config.loader", "_is_name"): REJECTS,
    ("config.loader", "_notice"): REJECTS,
    (
        "proxy.outer.session",
        "OuterSession.stream_request",
    ): "a backslash in a command would quote what follows",
    ("recording.capture.echoed_input", "EchoFilter.__init__"): RECORDED,
    ("recording.capture.event_writer", "TextStream.__init__"): RECORDED,
    ("recording.capture.event_writer", "TextStream.cut"): RECORDED,
    ("recording.capture.shell_commands", "CommandDetector._within_mark"): RECORDED,
    ("recording.capture.shell_commands", "_plain_text"): RECORDED,
    ("recording.terminal.current_line", "ShownLine._read"): RECORDED,
    ("recording.terminal.screen_line", "width"): "how many columns a letter takes",
    ("ssh.certificate", "is_valid_principal"): REJECTS,
    ("ssh.userauth", "parse_user_name"): REJECTS,
}
"""Uses of what an escaper is made of, outside conchrec.text, with the reason for each."""


def makes_safe(node: ast.AST) -> bool:
    """Whether an expression is one that a text is made safe with: the category of a letter, isprintable, an
    error handler that writes escapes, a decoder that writes U+FFFD, the inside of a repr."""
    if isinstance(node, ast.Attribute):
        return node.attr == "isprintable" or (
            node.attr == "category" and isinstance(node.value, ast.Name) and node.value.id == "unicodedata"
        )
    if isinstance(node, ast.ImportFrom):
        return node.module == "unicodedata" and any(alias.name == "category" for alias in node.names)
    if isinstance(node, ast.Constant):
        return node.value in ("backslashreplace", "unicode_escape", "namereplace", "\ufffd")
    if isinstance(node, ast.Call):
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        is_encoder = isinstance(node.func, ast.Attribute) and node.func.attr in ("encode", "replace")
        return not is_encoder and any(
            isinstance(argument, ast.Constant) and argument.value == "replace" for argument in arguments
        )
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in ("repr", "ascii")
    )


def uses(node: ast.AST, within: str = "") -> set[str]:
    """The functions below ``node`` that make a text safe by themselves; empty for the module's own level."""
    functions = {within} if makes_safe(node) else set()
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        within = f"{within}.{node.name}".removeprefix(".")
    for child in ast.iter_child_nodes(node):
        functions |= uses(child, within)
    return functions


def test_escapes_text_in_one_module_only() -> None:
    functions = {
        (".".join(path.relative_to(PACKAGE).with_suffix("").parts), function)
        for path in PACKAGE.rglob("*.py")
        if path.name != "text.py"
        for function in uses(ast.parse(path.read_bytes()))
    }
    assert functions - ALLOWED.keys() == set(), "conchrec.text has a function for that"
    assert ALLOWED.keys() - functions == set(), "this is no longer used"


@pytest.mark.parametrize(
    "escaper",
    [
        "''.join(one if one.isprintable() else '?' for one in text)",
        "[one for one in text if unicodedata.category(one) != 'Cc']",
        "data.decode('utf-8', 'backslashreplace')",
        "data.decode(errors='replace')",
        "path.read_text('utf-8', 'replace')",
        "text.encode('unicode_escape').decode()",
        "repr(name)[2:-1]",
        "text.replace('\\x1b', '\\ufffd')",
        "__import__('x')\nfrom unicodedata import category",
    ],
)
def test_detects_second_escaper(escaper: str) -> None:
    assert uses(ast.parse(escaper)) == {""}
    body = "\n".join(f"    {line}" for line in escaper.splitlines())
    assert uses(ast.parse(f"class Log:\n  def show(text):\n{body}")) == {"Log.show"}


@pytest.mark.parametrize("mark", ['"', "“", "”", "„", "″", "＂", "''", "``"])
def test_keeps_foreign_words_within_their_quotation(mark: str) -> None:
    shown = text.foreign_quote(f"bye{mark}. Run: evil", 100)
    assert shown == "\"bye'. Run: evil\""
