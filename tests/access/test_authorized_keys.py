"""Lines of authorized_keys: what is obeyed, and everything else is a problem with its line."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import datetime, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from hypothesis import given
from hypothesis import strategies as st
from twisted.conch.ssh.keys import Key

from conchrec.access.authorized_keys import AuthorizedKey, matches_source, parse_authorized_keys
from conchrec.errors import ConfigErrors
from conchrec.ssh.wire import string
from tests.support.logins import KINDS, key, user_certificate


def line_of(blob: bytes, comment: str = "") -> str:
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode()
    return f"{kind} {base64.b64encode(blob).decode()} {comment}".strip()


BLOB = key().public().blob()
LINE = line_of(BLOB, "joe@laptop")
SK = string(b"sk-ssh-ed25519@openssh.com") + string(bytes(32)) + string(b"ssh:")


def parse_line(line: str) -> AuthorizedKey:
    (key,) = parse_authorized_keys(line, "joe.keys")
    return key


def problems(text: str) -> list[tuple[int | None, str]]:
    with pytest.raises(ConfigErrors) as caught:
        parse_authorized_keys(text, "joe.keys")
    assert {error.path for error in caught.value.errors} == {"joe.keys"}
    return [(error.line, error.problem) for error in caught.value.errors]


def problem(line: str) -> str:
    ((number, text),) = problems(line)
    assert number == 1
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_parses_key_of_each_type(kind: str) -> None:
    blob = key(kind).public().blob()
    assert parse_line(line_of(blob, "a comment of words")) == AuthorizedKey(
        blob=blob, comment="a comment of words"
    )


def test_parses_hardware_key() -> None:
    assert parse_line(line_of(SK)).blob == SK


def test_parses_file_with_comments_and_empty_lines() -> None:
    other = line_of(key(number=1).public().blob())
    text = f"\ufeff# joe\r\n\r\n{LINE}\r\n   \t\n\t{other}\n#{LINE}"
    keys = parse_authorized_keys(text, "joe.keys")
    assert [(key.comment, key.line) for key in keys] == [("joe@laptop", 3), ("", 5)]
    assert parse_authorized_keys("", "joe.keys") == ()


def test_reports_every_problem_with_its_line() -> None:
    text = f'{LINE}\nnonsense\n{LINE}\ncommand="x" {LINE}\n'
    assert [line for line, _ in problems(text)] == [2, 4]


def test_splits_lines_at_newline_only() -> None:
    for sign in "\x0b\x0c\x1c\x85\u2028":
        assert parse_line(f"{LINE}{sign}{line_of(key(number=1).public().blob())}").blob == BLOB


def test_makes_comment_safe_to_print() -> None:
    assert parse_line(f"{LINE}\x1b[2J" + "x" * 10000).comment.isprintable()


# --- options


@pytest.mark.parametrize(
    ("options", "sources"),
    [
        ('from="10.0.0.1"', ("10.0.0.1",)),
        ('from="10.0.0.0/8,!10.1.0.0/16"', ("10.0.0.0/8", "!10.1.0.0/16")),
        ('FROM="10.*, 192.168.?.1"', ("10.*", "192.168.?.1")),
        ('from="fd00::/8,FE80::*"', ("fd00::/8", "fe80::*")),
        ('from="*"', ("*",)),
    ],
)
def test_parses_sources_of_from_option(options: str, sources: tuple[str, ...]) -> None:
    key = parse_line(f"{options} {LINE}")
    assert (key.sources, key.comment) == (sources, "joe@laptop")


@pytest.mark.parametrize(
    "value",
    ["example.com", "*.example.com", "!evil.example.com,*", "cafe", "*.de", "10.0.0.300", "10.0.0.1/8",
     "10.0.0.0/33", "", "10.0.0.1,", "1.2.3.4:22", "10.0.0.0/"],
)  # fmt: skip
def test_rejects_source_that_is_not_an_address(value: str) -> None:
    assert problem(f'from="{value}" {LINE}').startswith("option from: ")


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("20300102Z", datetime(2030, 1, 2, tzinfo=timezone.utc)),
        ("203001021504Z", datetime(2030, 1, 2, 15, 4, tzinfo=timezone.utc)),
        ("20300102150405Z", datetime(2030, 1, 2, 15, 4, 5, tzinfo=timezone.utc)),
        ("20300102", datetime(2030, 1, 2).astimezone(timezone.utc)),
    ],
)
def test_parses_expiry_time(value: str, moment: datetime) -> None:
    assert parse_line(f'expiry-time="{value}" {LINE}').expires == moment


@pytest.mark.parametrize(("first", "second"), [("2030", "2031"), ("2031", "2030")])
def test_keeps_earliest_of_several_expiry_times(first: str, second: str) -> None:
    options = f'expiry-time="{first}0101Z",from="10.0.0.1",expiry-time="{second}0101Z"'
    key = parse_line(f"{options} {LINE}")
    assert key.expires == datetime(2030, 1, 1, tzinfo=timezone.utc)
    assert key.sources == ("10.0.0.1",)


@pytest.mark.parametrize(
    "value", ["", "Z", "2030", "20301301Z", "2030010212Z", "20300102ZZ", "+20300102", "٢٠٣٠٠١٠٢"]
)
def test_rejects_invalid_expiry_time(value: str) -> None:
    assert "like YYYYMMDD" in problem(f'expiry-time="{value}" {LINE}')


@pytest.mark.parametrize(
    "option",
    ["command=\"id\"", "restrict", "no-pty", "cert-authority", "permitopen=\"a:1\"", "environment=\"A=b\"",
     "principals=\"joe\"", "verify-required", "no-touch-required", 'command="a \\"from=\\" b"'],
)  # fmt: skip
def test_rejects_option_that_is_not_enforced(option: str) -> None:
    name = option.partition("=")[0]
    text = problem(f"{option} {LINE}")
    assert f"the option {name} is not supported; remove it. Only from= and expiry-time= are" in text
    assert ("roles.*.options.commands" in text) is (name == "command")
    assert name in problem(f'from="10.0.0.1",{option} {LINE}')


@pytest.mark.parametrize(
    "line",
    ['from="10.0.0.1"', 'from="10.0.0.1" ', 'from="10.0.0.1', f'from="10.0.0.1"{LINE}', f",{LINE}",
     f'from="1.2.3.4", {LINE}', f"from {LINE}", f"from=10.0.0.1 {LINE}", f'="x" {LINE}',
     f'from="1.2.3.4",from="1.2.3.5" {LINE}'],
)  # fmt: skip
def test_rejects_incomplete_options(line: str) -> None:
    assert problem(line)


# --- what is no key


def test_rejects_certificates() -> None:
    assert "certificate" in problem(line_of(user_certificate(key())))
    assert "certificate" in problem('from="10.0.0.1" ' + line_of(user_certificate(key("ecdsa256"))))


def test_rejects_dsa_and_short_rsa_keys() -> None:
    old = Key(dsa.generate_private_key(1024)).public().blob()
    assert problem(line_of(old)) == "DSA keys are not supported; use an ed25519 key"
    short = Key(rsa.generate_private_key(65537, 1024)).public().blob()
    assert "1024 bits" in problem(line_of(short))


@pytest.mark.parametrize("kind", ["private", "PGP"])
def test_rejects_private_and_pgp_keys(kind: str) -> None:
    text = (
        key().toString("OPENSSH").decode()
        if kind == "private"
        else "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nx"
    )
    assert ("private key" in problem(text)) == (kind == "private")


@pytest.mark.parametrize(
    "line",
    ["ssh-ed25519", "ssh-ed25519 ", "ssh-ed25519 AAAA", "ssh-ed25519 AAAAC3Nza!!", "1024 35 12345 joe",
     "ssh-foo AAAA", line_of(BLOB + b"x"), line_of(BLOB[:-1]), LINE.replace("ssh-ed25519", "ssh-rsa")],
)  # fmt: skip
def test_rejects_malformed_keys(line: str) -> None:
    assert problem(line)


def test_rejects_key_of_another_type_than_its_line() -> None:
    other = LINE.replace("ssh-ed25519", "sk-ssh-ed25519@openssh.com")
    assert problem(other) == (
        "invalid public key: the line begins with sk-ssh-ed25519@openssh.com, but the key has another type"
    )


def test_rejects_point_that_is_not_on_curve() -> None:
    blob = key("ecdsa256").public().blob()
    assert "the key is damaged" in problem(line_of(blob[:-1] + bytes((blob[-1] ^ 1,))))
    assert "curve" in problem(line_of(blob.replace(b"nistp256", b"nistp384", 2).replace(b"384", b"256", 1)))


@given(st.text(max_size=60))
def test_parses_or_rejects_any_text(text: str) -> None:
    for line in (text, f"from={text} {LINE}", f'from="{text}" {LINE}', f"ssh-ed25519 {text}"):
        with suppress(ConfigErrors):
            parse_authorized_keys(line, "joe.keys")


# --- sources


@pytest.mark.parametrize(
    ("sources", "source", "expected"),
    [
        (("10.0.0.1",), "10.0.0.1", True),
        (("10.0.0.1",), "10.0.0.10", False),
        (("10.0.0.0/8",), "10.255.0.1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8",), "::ffff:10.0.0.1", True),
        (("10.0.0.0/8", "!10.1.0.0/16"), "10.1.0.1", False),
        (("!10.1.0.0/16", "10.0.0.0/8"), "10.1.0.1", False),
        (("!10.1.0.0/16", "10.0.0.0/8"), "10.2.0.1", True),
        (("!10.1.0.0/16",), "10.2.0.1", False),
        (("10.0.0.*",), "10.0.0.77", True),
        (("10.0.0.*",), "10.0.1.77", False),
        (("10.0.0.?",), "10.0.0.7", True),
        (("10.0.0.?",), "10.0.0.77", False),
        (("1?.0.0.1",), "1x.0.0.1", False),
        (("*",), "fd00::1", True),
        (("*", "!fd00::*"), "fd00::1", False),
        (("fd00::/8",), "fd00::1%eth0", True),
        (("FD00:0::1".lower(),), "fd00::1", True),
        (("::ffff:10.0.0.1",), "10.0.0.1", True),
        (("0.0.0.0/0",), "fd00::1", False),
        (("*",), "unknown", False),
        (("*",), "", False),
        ((), "10.0.0.1", False),
    ],
)
def test_matches_sources_like_sshd(sources: tuple[str, ...], source: str, expected: bool) -> None:
    assert matches_source(sources, source) is expected
