"""Account names at targets: which logins a role allows, and which a deny or a lock matches. Pure.

Programs at the target split and fold the name that a user types: sshd reads ``root:x`` and, with Debian's
SELinux patch, ``root/x`` as root; the name services of domains ignore case, some ignore accents and
surrounding white space, and open ``oracle`` for ``oracle@corp.example`` and ``CORP\\oracle``. So allow and
deny are not symmetric:

- *Allowed* is a name that certainly opens the account of the pattern: a literal pattern allows exactly that
  name, and a wildcard stands only for characters of plain account names.
- *Denied* is every spelling that may open the account of the pattern.
"""

from __future__ import annotations

import fnmatch
import glob
import re
import unicodedata
from collections.abc import Iterator

#: Stands for the user's own name in a pattern.
USER = "{user}"
LONGEST_LOGIN = 256

#: A plain account name, as ``useradd`` and Samba (``host$``) create it. No program splits such a name.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\$?")
#: They separate an account's name from its domain: ``joe@corp.example``, ``CORP\joe``.
_DOMAIN = re.compile(r"([@\\])")
_WILDCARDS = frozenset("*?")
#: sshd splits a name at these.
_SPLIT = frozenset("/:")


def is_usable(login: str) -> bool:
    """Whether ``login`` may be sent to a target: sshd and name services neither split nor strip it."""
    return (
        0 < len(login) <= LONGEST_LOGIN
        and login.isprintable()
        and not any(letter.isspace() or letter in _SPLIT for letter in folded(login))
    )


def check_pattern(text: str) -> str:
    """Return the pattern of a deny or a lock. Raises ValueError, whose text is for the administrator."""
    rest = text.replace(USER, "")
    if not text or not text.isprintable() or text != text.strip() or any(sign in rest for sign in "[]{}"):
        raise ValueError(f"invalid login {text!r}: must be a name, {USER}, or a pattern with * and ?")
    return text


def check_allowed_pattern(text: str) -> str:
    """Return a pattern of a role's ``logins``, which can allow a login. Raises ValueError."""
    check_pattern(text)
    rest = text.replace(USER, "u")
    if not is_usable(rest):
        raise ValueError(
            f"invalid login {text!r}: it can match no login, because sshd splits names at / and :, and"
            " account names have no spaces"
        )
    if is_wildcard(text) and not all(map(_PLAIN.fullmatch, map(_shortest_match, _DOMAIN.split(rest)[::2]))):
        raise ValueError(
            f"invalid login {text!r}: it can match no login, because * and ? match only letters, digits, _, ."
            " and -, and the first character must be a letter, a digit or _; write other names in full"
        )
    return text


def _shortest_match(part: str) -> str:
    """The shortest name that this part of a pattern matches."""
    first = "x" if part.startswith("*") else ""
    return first + part.replace("*", "").replace("?", "x")


def is_wildcard(pattern: str) -> bool:
    """Whether the pattern has wildcards."""
    return not _WILDCARDS.isdisjoint(pattern)


def allows(pattern: str, login: str, user: str) -> bool:
    """Whether ``pattern`` of a role allows ``login`` to ``user``.

    Case counts. A wildcard matches plain account names only; ``@`` and ``\\`` must be in the pattern. The
    user's own name is literal, also where it has wildcards.
    """
    if not is_usable(login):
        return False
    if not is_wildcard(pattern):
        return login == pattern.replace(USER, user)
    names, patterns = _DOMAIN.split(login), _DOMAIN.split(_expanded(pattern, user))
    return (
        len(names) == len(patterns)
        and names[1::2] == patterns[1::2]
        and all(map(_PLAIN.fullmatch, names[::2]))
        and all(map(fnmatch.fnmatchcase, names[::2], patterns[::2]))
    )


def _expanded(pattern: str, user: str) -> str:
    return pattern.replace(USER, glob.escape(user))


def denies(pattern: str, login: str, user: str) -> bool:
    """Whether ``login`` may open an account that ``pattern`` of a deny or a lock matches.

    Like name services, it ignores case, accents, compatibility forms and dots at the end. It also compares
    the name without its domain.
    """
    folded_pattern = _expanded(folded(pattern), folded(user))
    return any(fnmatch.fnmatchcase(name, folded_pattern) for name in _spellings(folded(login)))


def _spellings(login: str) -> Iterator[str]:
    """The login, and the names that its account may have in a domain."""
    in_domain = {login, login.partition("@")[0], login.rpartition("@")[0]}
    for name in in_domain:
        for account in (name, name.partition("\\")[2], name.rpartition("\\")[2]):
            yield from filter(None, {account, account.rstrip(".")})


def folded(name: str) -> str:
    """The same spelling for all names that name services treat as equal."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def covers(wide: str, narrow: str) -> bool:
    """Whether the deny ``wide`` certainly denies every login that ``narrow`` allows, for every user."""
    if wide == "*" or folded(wide) == folded(narrow):
        return True
    return not is_wildcard(narrow) and USER not in narrow and denies(wide, narrow, USER)
