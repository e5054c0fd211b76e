"""Patterns for the commands that a role allows. Pure.

A pattern is compared word by word, and words are separated by single spaces. ``*`` stands for any part of a
word and ``?`` for one character of it; neither stands for a character that means something to a shell, so
that ``systemctl restart *`` is not also ``systemctl restart x; reboot``; nor, beside other characters, for a
``/``, so that ``cat /var/log/*`` is a file in that very directory; and a word that begins with a wildcard is
no option. ``*`` alone is any one word, ``**`` as the last word any number of them, options too, both without
such characters. No wildcard stands for a ``..``.

A command line that is written out is allowed as it is, character by character, whatever is in it.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

#: Longer command lines match nothing but themselves.
LONGEST = 4096
REST = "**"
#: What is nothing but itself in the shells that there are, at any place of a word but its beginning.
_PLAIN = re.compile(r"[\w@%+=:,./-]")
#: What parts of a word are paths: ``--file=/a``, ``host:/a``.
_PATHS = re.compile(r"[/=:,]")


@dataclass(frozen=True, slots=True)
class CommandPattern:
    """One entry of ``commands``."""

    text: str

    @classmethod
    def parse(cls, text: str) -> CommandPattern:
        """ValueError says what is wrong with it, for the administrator."""
        if not text.strip() or text != text.strip() or not text.isprintable():
            raise ValueError(f"{text!r} is not a command, or a pattern of one (systemctl restart *)")
        if len(text) > LONGEST:
            raise ValueError(f"a pattern of {len(text)} characters is too long")
        words = text.split(" ")
        if "[" in text and _has_wildcards(text):
            raise ValueError(f"{text!r}: of wildcards there are * and ? alone; a command with [ has none")
        if _has_wildcards(words[0]):
            raise ValueError(f"{text!r}: the program has to be named")
        if any(REST in word for word in words[:-1]) or (REST in words[-1] and words[-1] != REST):
            raise ValueError(f"{text!r}: ** stands for all the words that follow, and is the last one")
        return cls(text)

    def matches(self, command: str) -> bool:
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
    """Zsh takes ``=ls`` for the path of ls."""
    return bool(word) and not word.startswith("=") and _special(word) == 0 and not _ups(word)


def _is_word(pattern: str, word: str) -> bool:
    """All that is special in the word is in the pattern, too: no wildcard stands for that, for an option, for
    a way up, or for nothing at all."""
    if pattern[:1] in ("*", "?") and (not word or word.startswith(("-", "="))):
        return False
    if pattern == "*":
        return _is_plain(word)
    fixed = _special(pattern) - sum(map(pattern.count, "*?"))
    if _special(word) != fixed or _ups(word) != _ups(pattern):
        return False
    parts, wanted = word.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _ups(word: str) -> int:
    return _PATHS.split(word).count("..")


def _special(word: str) -> int:
    return sum(1 for letter in word if not _PLAIN.match(letter))
