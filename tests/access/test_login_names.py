"""No spelling of a denied account is allowed, and a wildcard allows plain account names only."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.access.lock_file import check_name
from conchrec.access.locks import Lock, LockKind
from conchrec.access.login_names import allows, check_allowed_pattern, covers, denies
from conchrec.access.policy import Allow, Deny
from tests.access.test_policy import decision_of, joe, role

PLAIN = (
    "root", "Oracle", "app-1", "_apt", "0", "1000", "a.b", "name.", "host$", "x" * 256, "a--b", "systemd-x",
)  # fmt: skip
NEVER = (
    "", "root/x", "/root", "root/", "root:x", ":root", "root ", " root", "ro ot", "root\t", "root\n", "a\x00",
    "root／x", "ro\u200bot", "root\u00a0", "root\u3000", "\x1b[2J", "x" * 257, "CORP/joe", "r\u2028",
)  # fmt: skip
NOT_BY_WILDCARD = (
    "oracle@x", "CORP\\oracle", "@oracle", "oracle@", "-oX", "-l", ".ssh", "$", "a$b", "a$$", "+sched", "a+b",
    "oräcle", "ora\u0301cle", "оracle", "ｏracle", "ſu", "user;id", "a'b", "%h", "*", "?", "[a]", "~root",
    "a,b", "#0", "!x",
)  # fmt: skip


@pytest.mark.parametrize("login", PLAIN)
def test_allows_plain_account_name_by_wildcard(login: str) -> None:
    assert allows("*", login, "joe")


@pytest.mark.parametrize("login", [*NEVER, *NOT_BY_WILDCARD])
@pytest.mark.parametrize("pattern", ["*", "**", "?*", "*?", "*o*", "{user}*"])
def test_allows_no_other_name_by_wildcard(pattern: str, login: str) -> None:
    assert not allows(pattern, login, "joe")
    assert isinstance(decision_of(joe(role(logins=(pattern,))), login=login), Deny)


@pytest.mark.parametrize("login", NEVER)
def test_allows_no_name_that_sshd_splits(login: str) -> None:
    assert isinstance(decision_of(joe(role(logins=(login, "*"))), login=login), Deny)


@pytest.mark.parametrize("login", [name for name in NOT_BY_WILDCARD if not set("*?[") & set(name)])
def test_allows_exactly_literal_name(login: str) -> None:
    assert isinstance(decision_of(joe(role(logins=(login,))), login=login), Allow)
    assert not allows(login, login.swapcase(), "joe") or login == login.swapcase()


@pytest.mark.parametrize(
    ("pattern", "login", "expected"),
    [
        ("*@corp.example", "oracle@corp.example", True),
        ("*@corp.example", "oracle", False),
        ("*@corp.example", "oracle@corp.example.org", False),
        ("*@corp.example", "a@b@corp.example", False),
        ("*@corp.example", "CORP\\a@corp.example", False),
        ("*@corp.example", "a b@corp.example", False),
        ("*@corp.example", "-a@corp.example", False),
        ("*@*", "oracle@x", True),
        ("*@*", "oracle\\x", False),
        ("CORP\\*", "CORP\\oracle", True),
        ("CORP\\*", "CORP@oracle", False),
        ("CORP\\*", "CORP\\oracle@x", False),
        ("CORP\\*", "corp\\oracle", False),
        ("CORP\\*", "CORP\\", False),
        ("{user}-?", "joe-1", True),
        ("{user}-?", "joe-@", False),
        ("{user}@corp.example", "joe@corp.example", True),
        ("*$", "host$", True),
    ],
)
def test_requires_domain_in_pattern(pattern: str, login: str, expected: bool) -> None:
    assert check_allowed_pattern(pattern) == pattern
    assert allows(pattern, login, "joe") is expected


def test_treats_user_name_as_literal() -> None:
    assert allows("{user}", "joe@corp", "joe@corp") and allows("adm-{user}", "adm-j+x", "j+x")
    assert allows("{user}-*", "joe@corp-1", "joe@corp") and not allows("{user}-*", "joe-1", "joe@corp")
    assert not allows("{user}", "root", "*") and not allows("{user}", "Joe", "joe")
    assert not allows("{user}", "joe/x", "joe/x"), "wherever the name comes from"


@pytest.mark.parametrize(
    "pattern", ["root/*", "root/x", "root:*", "a b", "*:", "-*", "*+*", "ü*", ".?", "$*", "*@"]
)
def test_rejects_pattern_that_can_allow_nothing(pattern: str) -> None:
    with pytest.raises(ValueError, match="can match no login"):
        check_allowed_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["root", "{user}", "*", "svc-*", "ü", "-x", "+x", "a?", "*.*", "x*$", "??"]
)
def test_accepts_pattern_that_can_allow_a_login(pattern: str) -> None:
    assert check_allowed_pattern(pattern) == pattern


# -- denies and locks: every spelling that some target may take for the account


def _accented(name: str) -> str:
    return "".join(letter + "\u0301" if letter in string.ascii_letters else letter for letter in name)


def _fullwidth(name: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in name)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "itself": lambda name: name,
    "upper case": str.upper,
    "capitalised": str.capitalize,
    "long s": lambda name: name.replace("s", "\u017f"),
    "accents": _accented,
    "accents, composed": lambda name: unicodedata.normalize("NFC", _accented(name)),
    "full width": _fullwidth,
    "dot at the end": lambda name: name + ".",
    "domain behind": lambda name: name + "@corp.example",
    "two domains behind": lambda name: name + "@corp@example",
    "domain before": lambda name: "CORP\\" + name,
    "two domains before": lambda name: "CORP\\sub\\" + name,
    "domains around": lambda name: "CORP\\" + name + "@x",
    "sshd's style": lambda name: name + ":x",
    "sshd's role": lambda name: name + "/x",
    "style and role": lambda name: name + ":x/y",
    "space behind": lambda name: name + " ",
    "space before": lambda name: " " + name,
    "tab behind": lambda name: name + "\t",
}

ACCOUNTS = st.text("abcdrostu0189_-.", min_size=1, max_size=12).filter(
    lambda name: name[0] in string.ascii_lowercase + string.digits + "_" and name[-1] != "."
)


@given(ACCOUNTS, st.lists(st.sampled_from(sorted(SPELLINGS)), max_size=3))
def test_denies_and_locks_every_spelling(account: str, spellings: list[str]) -> None:
    """Whichever of these a target folds, and in whatever order, and even if the role names it itself."""
    login = account
    for spelling in spellings:
        login = SPELLINGS[spelling](login)
    policy, identity = joe(role(logins=("*", "*@*", "*\\*", "*\\*@*", login), deny_logins=(account,)))
    assert isinstance(decision_of((policy, identity), login=login), Deny), spellings
    lock = Lock(kind=LockKind.LOGIN, name=check_name(LockKind.LOGIN, account))
    without = joe(role(logins=("*", "*@*", login)))[0]
    locked = type(policy)(roles=without.roles, locks=(lock,))
    assert isinstance(decision_of((locked, identity), login=login), Deny), spellings


@given(ACCOUNTS, ACCOUNTS)
def test_denies_no_other_account(account: str, other: str) -> None:
    assert denies(account, other, "joe") is (account == other)


@pytest.mark.parametrize(
    ("pattern", "login", "expected"),
    [
        ("ora*", "ORACLE@x", True), ("{user}", "Joe", True), ("{user}2", "CORP\\JOE2", True),
        ("Root", "root", True), ("root", "rooted", False), ("root", "x@root", False),
        ("corp", "CORP\\joe", False),         ("*@x", "a@X", True), ("oracle@x", "oracle", False),
        ("root.", "root", False), ("*.", "root", False), ("a?c", "ABC", True),
    ],
)  # fmt: skip
def test_denies_matching_login(pattern: str, login: str, expected: bool) -> None:
    assert denies(pattern, login, "joe") is expected


def test_matches_many_wildcards_quickly() -> None:
    """Backtracking would take longer than the universe lasts."""
    assert not denies("*a" * 40 + "b", "a" * 256, "joe") and not allows("*a" * 40 + "b", "a" * 256, "joe")


def test_locks_user_in_any_case() -> None:
    lock = Lock(kind=LockKind.USER, name="Joe")
    assert lock.is_of_user("joe") and lock.is_of_user("JOE") and not lock.is_of_user("joe@x")


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [("*", "a", True), ("Root", "root", True), ("r?ot", "root", True), ("root", "r*", False),
     ("r*", "ro*", False), ("{user}", "{user}", True), ("joe", "{user}", False), ("root", "root@x", True)],
)  # fmt: skip
def test_detects_allow_that_deny_covers(wide: str, narrow: str, expected: bool) -> None:
    assert covers(wide, narrow) is expected
