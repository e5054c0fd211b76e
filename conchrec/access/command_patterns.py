"""Patterns for the commands that a role allows. Pure.

A pattern is compared word by word; words are separated by single spaces. ``*`` matches any part of a word
and ``?`` one character of it.

- No wildcard matches a character that is special in a shell: ``systemctl restart *`` does not match
  ``systemctl restart x; reboot``.
- In a word with other characters, no wildcard matches a ``/``: ``cat /var/log/*`` matches only files in that
  directory.
- A word of a pattern that begins with a wildcard does not match an option.
- ``*`` alone matches any word, and ``**`` as the last word any number of words, also options.
- No wildcard matches ``..``.

A pattern without wildcards matches exactly the same command line, with all characters in it.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

#: Longer command lines match no wildcards.
LONGEST = 4096
REST = "**"
#: Characters without a special meaning in any shell, except at the beginning of a word.
_PLAIN = re.compile(r"[\w@%+=:,./-]")
#: These separate the paths within a word: ``--file=/a``, ``host:/a``.
_PATHS = re.compile(r"[/=:,]")


@dataclass(frozen=True, slots=True)
class CommandPattern:
    """One entry of ``commands``."""

    text: str

    @classmethod
    def parse(cls, text: str) -> CommandPattern:
        """The pattern that ``text`` is. Raises ValueError, whose text is for the administrator."""
        if not text.strip() or text != text.strip() or not text.isprintable():
            raise ValueError(f"invalid command {text!r}: write it like systemctl restart *")
        if len(text) > LONGEST:
            raise ValueError(
                f"invalid command: {len(text)} characters are too many; at most {LONGEST} are allowed"
            )
        words = text.split(" ")
        if "[" in text and _has_wildcards(text):
            raise ValueError(
                f"invalid command {text!r}: the only wildcards are * and ?, and they cannot be used with ["
            )
        if _has_wildcards(words[0]):
            raise ValueError(f"invalid command {text!r}: the first word, the program, cannot have wildcards")
        if any(REST in word for word in words[:-1]) or (REST in words[-1] and words[-1] != REST):
            raise ValueError(f"invalid command {text!r}: ** must be the last word, alone")
        return cls(text)

    def matches(self, command: str) -> bool:
        """Whether the pattern allows this command line."""
        if command == self.text:
            return True
        if not _has_wildcards(self.text) or len(command) > LONGEST:
            return False
        wanted, words = self.text.split(" "), command.split(" ")
        if wanted[-1] == REST:
            wanted.pop()
            if not all(map(_is_plain, words[len(wanted) :])):
                return False
            words = words[: len(wanted)]
        return len(words) == len(wanted) and all(map(_is_word, wanted, words))


def _has_wildcards(text: str) -> bool:
    return "*" in text or "?" in text


def _is_plain(word: str) -> bool:
    """Whether the word has no special meaning in a shell. Zsh replaces ``=ls`` by the path of ls."""
    return bool(word) and not word.startswith("=") and _count_special(word) == 0 and not _count_parents(word)


def _is_word(pattern: str, word: str) -> bool:
    """Whether a word matches: no wildcard matches special characters, an option, ``..`` or an empty word."""
    if pattern[:1] in ("*", "?") and (not word or word.startswith(("-", "="))):
        return False
    if pattern == "*":
        return _is_plain(word)
    fixed = _count_special(pattern) - sum(map(pattern.count, "*?"))
    if _count_special(word) != fixed or _count_parents(word) != _count_parents(pattern):
        return False
    parts, wanted = word.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _count_parents(word: str) -> int:
    return _PATHS.split(word).count("..")


def _count_special(word: str) -> int:
    return sum(1 for letter in word if not _PLAIN.match(letter))
