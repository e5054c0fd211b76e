"""bcrypt hashes and TOTP codes, against the vectors of others."""

from __future__ import annotations

import base64
import time
import unicodedata

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.access.passwords import (
    Passwords,
    code_at,
    new_hash,
    new_secret,
    otpauth,
    parse_hash,
    parse_secret,
    step_at,
    step_of,
)

SALT = b"salt of the tests"
#: RFC 6238 appendix B, the rows of SHA-1. Ours have six of the eight digits.
VECTORS = {
    59: "94287082",
    1111111109: "07081804",
    1111111111: "14050471",
    1234567890: "89005924",
    2000000000: "69279037",
    20000000000: "65353130",
}
RFC_SECRET = b"12345678901234567890"
#: RFC 4226 appendix D.
COUNTED = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]


def cheap(password: str, cost: int = 4) -> bytes:
    """A hash with a low cost, which the configuration rejects."""
    return new_hash(password, cost).encode()


# --- codes


@pytest.mark.parametrize("seconds", VECTORS)
def test_computes_codes_of_rfc_6238(seconds: int) -> None:
    assert code_at(RFC_SECRET, step_at(seconds)) == VECTORS[seconds][-6:]
    assert step_of(RFC_SECRET, VECTORS[seconds][-6:], seconds) == step_at(seconds)


def test_computes_codes_of_rfc_4226() -> None:
    assert [code_at(RFC_SECRET, count) for count in range(10)] == COUNTED


def test_accepts_code_with_one_step_of_drift() -> None:
    code, step = COUNTED[5], 5
    good = [now for now in range(30, 600) if step_of(RFC_SECRET, code, now) == step]
    assert good == list(range(120, 210))


def test_rejects_code_after_same_or_later_one() -> None:
    for after, expected in ((3, 5), (4, 5), (5, None), (6, None)):
        assert step_of(RFC_SECRET, COUNTED[5], 165, after) == expected


@pytest.mark.parametrize("typed", ["254 676", " 254676\r\n", "254\t676"])
def test_accepts_code_with_spaces(typed: str) -> None:
    assert step_of(RFC_SECRET, typed, 165) == 5


@given(st.text())
def test_handles_any_typed_text(typed: str) -> None:
    assert step_of(RFC_SECRET, typed, 165) in (None, 4, 5, 6)


@pytest.mark.parametrize("typed", ["", "254676254676", "54676", "254677", "٢٥٤٦٧٦", "０００"])
def test_rejects_invalid_codes(typed: str) -> None:
    assert step_of(RFC_SECRET, typed, 165) is None


# --- secrets


@pytest.mark.parametrize(
    "text",
    [
        "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
        "gezd gnbv gy3t qojq gezd gnbv gy3t qojq",
        "GEZDGNBV-GY3TQOJQ-GEZDGNBV-GY3TQOJQ",
        "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ====",
    ],
)
def test_parses_every_spelling_of_secret(text: str) -> None:
    assert parse_secret(text) == RFC_SECRET


def test_parses_secret_without_padding() -> None:
    padded = base64.b32encode(bytes(range(17))).decode()
    assert padded.endswith("=")
    assert parse_secret(padded) == parse_secret(padded.rstrip("=")) == bytes(range(17))


@pytest.mark.parametrize(
    "text", ["", "GEZDGNBVGY3TQOJQ", "0189" * 8, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQA", "é" * 32]
)
def test_rejects_invalid_secret(text: str) -> None:
    with pytest.raises(ValueError, match=r"base32|at least 128 bits") as caught:
        parse_secret(text)
    assert not text or text not in str(caught.value)
    assert caught.value.__cause__ is None


def test_creates_secret_that_parses() -> None:
    assert len(parse_secret(new_secret())) == 20
    assert new_secret() != new_secret()


def test_formats_uri_for_apps() -> None:
    """Google's Key URI Format: label ``issuer:account``, and the issuer again."""
    assert otpauth("SECRET", "joe@x", "Example Co") == (
        "otpauth://totp/Example%20Co:joe%40x?secret=SECRET&issuer=Example%20Co"
    )


# --- hashes

#: Of the test vectors of OpenBSD's and OpenWall's bcrypt, as $2b$.
KNOWN = {
    "U*U": "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "U*U*": "$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK",
    "U*U*U": "$2b$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a",
}


VALID = "$2b$10$EWtcDqkjuwl0fjcb7ex5KObXvXCzGNc2PBq.1e2ZsPPk62KL7spai"
"""Of the password x."""


@pytest.mark.parametrize("password", KNOWN)
def test_verifies_known_hashes(password: str) -> None:
    passwords = Passwords({"joe": KNOWN[password].encode()}, {}, SALT)
    assert passwords.is_right("joe", password)
    assert not passwords.is_right("joe", password + "*")
    assert not passwords.is_right("ann", password)


def test_parses_hash() -> None:
    made = new_hash("corr€ct horse", 10)
    assert parse_hash(made) == made.encode()
    assert bcrypt.checkpw("corr€ct horse".encode(), made.encode())
    assert parse_hash(VALID) == VALID.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "corr€ct horse battery staple",
        KNOWN["U*U"],  # cost 5
        VALID.replace("$2b$", "$2y$"),
        VALID.replace("$10$", "$31$"),
        VALID + "x",
        VALID + "\n",
        VALID[:-1],
        VALID[:28] + "/" + VALID[29:],  # a salt that bcrypt would not take
    ],
)
def test_rejects_invalid_hash(text: str) -> None:
    with pytest.raises(ValueError, match="invalid hash") as caught:
        parse_hash(text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "empty"),
        ("x" * 73, "72 bytes"),
        ("€" * 25, "72 bytes"),
        ("a\0b", "control"),
        ("a\x7fb", "control"),
    ],
)
def test_rejects_invalid_password(password: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        new_hash(password, 4)


def test_compares_all_bytes_of_password() -> None:
    """Of 72 bytes all count, and one more is not overlooked, as bcrypt would."""
    longest = "x" * 72
    passwords = Passwords({"joe": cheap(longest)}, {}, SALT)
    assert passwords.is_right("joe", longest)
    for wrong in (longest + "y", longest[:-1], longest + "\0", "", "\0"):
        assert not passwords.is_right("joe", wrong)


def test_normalizes_typed_password() -> None:
    composed = unicodedata.normalize("NFC", "Ångström")
    passwords = Passwords({"joe": cheap(composed)}, {}, SALT)
    assert passwords.is_right("joe", unicodedata.normalize("NFD", composed))


def test_rejects_password_of_unknown_user() -> None:
    passwords = Passwords({"joe": cheap("x")}, {}, SALT)
    assert [passwords.is_right("nobody", wrong) for wrong in ("", "x")] == [False, False]


def test_takes_same_time_for_every_name() -> None:
    """CPU of this thread, the least of three: a name that nobody has, a hash that costs a quarter, and a
    password that can be none are no quicker than the most expensive hash."""
    passwords = Passwords({"joe": cheap("x", 9), "ann": cheap("x", 7)}, {}, SALT)

    def cost(user: str, password: str) -> float:
        def once() -> float:
            began = time.thread_time()
            passwords.is_right(user, password)
            return time.thread_time() - began

        return min(once() for _ in range(3))

    expected = cost("joe", "x")
    for user, password in (("joe", "y"), ("ann", "x"), ("nobody", "x"), ("nobody", ""), ("joe", "x" * 99)):
        assert 0.7 < cost(user, password) / expected < 1.4, (user, password[:1])


# --- who is asked for a code


def test_hides_existing_users_in_questions() -> None:
    hashed = cheap("x")
    mixed = Passwords({"joe": hashed, "ann": hashed}, {"joe": RFC_SECRET}, SALT)
    assert mixed.asks_code("joe") and not mixed.asks_code("ann")
    strangers = [f"stranger{number}" for number in range(200)]
    questions = [mixed.asks_code(name) for name in strangers]
    assert 60 < sum(questions) < 140
    assert questions == [mixed.asks_code(name) for name in strangers]
    other = Passwords({"joe": hashed, "ann": hashed}, {"joe": RFC_SECRET}, b"another salt")
    assert questions != [other.asks_code(name) for name in strangers]


def test_asks_unknown_names_like_uniform_users() -> None:
    hashed = cheap("x")
    for codes in ({}, {"joe": RFC_SECRET}):
        passwords = Passwords({"joe": hashed}, codes, SALT)
        assert {passwords.asks_code(name) for name in ("joe", *"abcdefgh")} == {bool(codes)}
