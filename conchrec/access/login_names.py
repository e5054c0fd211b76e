"""Names of accounts at targets: which login a role allows, and which a deny or a lock means. Pure.

Between the name that a user types and the account that it opens stand programs that split and fold names:
sshd reads ``root:x`` and, with Debian's SELinux patch, ``root/x`` as root; the name services of domains
ignore case, some ignore accents and surrounding white space, and open ``oracle`` for ``oracle@corp.example``
and ``CORP\\oracle``. So the two directions are asymmetric:

- *Allowed* is what is certainly the account that the role means: a literal pattern allows that very name,
  and a wildcard stands only for characters of plain account names.
- *Denied* is every spelling that may be the account that the deny means.
"""

from __future__ import annotations

import fnmatch
import glob
import re
import unicodedata
from collections.abc import Iterator

#: In a pattern: the user's own name.
USER = "{user}"
LONGEST_LOGIN = 256

#: A plain account name: what ``useradd`` and Samba (``host$``) make, and nothing that a program splits.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\$?")
#: They separate an account's name from its domain: ``joe@corp.example``, ``CORP\joe``.
_DOMAIN = re.compile(r"([@\\])")
_WILDCARDS = frozenset("*?")
#: What sshd splits at.
_SPLIT = frozenset("/:")


def is_usable(login: str) -> bool:
    """Can ``login`` be sent to a target at all? Not with what sshd or a name service splits or strips."""
    return (
        0 < len(login) <= LONGEST_LOGIN
        and login.isprintable()
        and not any(letter.isspace() or letter in _SPLIT for letter in folded(login))
    )


def check_pattern(text: str) -> str:
    """The pattern of a deny or a lock, as it is. ValueError says what is wrong, for the administrator."""
    rest = text.replace(USER, "")
    if not text or not text.isprintable() or text != text.strip() or any(sign in rest for sign in "[]{}"):
        raise ValueError(f"{text!r} is not a login (a name, {USER}, or a pattern with * and ?)")
    return text


def check_allowed_pattern(text: str) -> str:
    """The same for ``logins`` of a role, which must be able to allow something."""
    check_pattern(text)
    rest = text.replace(USER, "u")
    if not is_usable(rest):
        why = "sshd splits names at / and :, and no account has spaces in its name"
        raise ValueError(f"{text!r} can allow no login: {why}")
    if is_wildcard(text) and not all(map(_PLAIN.fullmatch, map(_shortest, _DOMAIN.split(rest)[::2]))):
        raise ValueError(
            f"{text!r} can allow no login: * and ? stand for letters, digits and _ . - (a letter, digit or _ "
            "first), and so must what is beside them; write other names in full"
        )
    return text


def _shortest(part: str) -> str:
    """A name that this part of a pattern matches."""
    first = "x" if part.startswith("*") else ""
    return first + part.replace("*", "").replace("?", "x")


def is_wildcard(pattern: str) -> bool:
    """Does the pattern stand for more than one name (of the same user)?"""
    return not _WILDCARDS.isdisjoint(pattern)


def allows(pattern: str, login: str, user: str) -> bool:
    """Is ``login`` a name that ``pattern`` of a role allows to ``user``?

    Case counts. A wildcard matches plain account names only; ``@`` and ``\\`` have to be in the pattern.
    The user's own name stands for itself, whatever is in it.
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
    """May ``login`` be an account that ``pattern`` of a deny or a lock means?

    Compared without case, accents, compatibility forms and dots at the end, as name services do; and the
    name without its domain counts, too.
    """
    folded_pattern = _expanded(folded(pattern), folded(user))
    return any(fnmatch.fnmatchcase(name, folded_pattern) for name in _spellings(folded(login)))


def _spellings(login: str) -> Iterator[str]:
    """The login, and what may be its account's name in some domain."""
    in_domain = {login, login.partition("@")[0], login.rpartition("@")[0]}
    for name in in_domain:
        for account in (name, name.partition("\\")[2], name.rpartition("\\")[2]):
            yield from filter(None, {account, account.rstrip(".")})


def folded(name: str) -> str:
    """One spelling for all that name services take for the same."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def covers(wide: str, narrow: str) -> bool:
    """Does the deny ``wide`` certainly take back all that ``narrow`` allows, for every user?"""
    if wide == "*" or folded(wide) == folded(narrow):
        return True
    return not is_wildcard(narrow) and USER not in narrow and denies(wide, narrow, USER)
