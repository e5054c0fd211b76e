"""Reads YAML that people write by hand, and reports every problem at once, with its path and line.

Nothing here knows a setting of ours. The text becomes PyYAML's tree of nodes and no object is constructed
from it: a tag cannot create an object, and ``off`` stays the word that was written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import TypeVar

import yaml

from conchrec.errors import ConfigError
from conchrec.text import is_printable, quote

_TAG = "tag:yaml.org,2002:"
_NULL, _BOOL, _MERGE = _TAG + "null", _TAG + "bool", _TAG + "merge"
_PLAIN = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "timestamp", "value"))
_YES = frozenset({"yes", "on", "true"})
_NO = frozenset({"no", "off", "false"})
_DURATION = re.compile(r"([0-9]+)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST = timedelta(days=100 * 366)
_SIZE = re.compile(r"([0-9]+)\s*([kmgt]i?b|b)?", re.IGNORECASE)
_LONGEST_SHOWN = 60
_quoted = partial(quote, limit=_LONGEST_SHOWN)

_Word = TypeVar("_Word", bound=Enum)


class Problems:
    """The errors and warnings that were reported so far, each of them once."""

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []
        self.warnings: list[ConfigError] = []

    def add(self, path: str, problem: str, line: int | None) -> None:
        """Report an error."""
        _add_once(self.errors, ConfigError(path, problem, line))

    def warn(self, path: str, problem: str, line: int | None) -> None:
        """Report a warning."""
        _add_once(self.warnings, ConfigError(path, problem, line))


def _add_once(reported: list[ConfigError], error: ConfigError) -> None:
    """A value that is read twice is reported once."""
    same = (error.path, error.problem, error.line)
    if not any(same == (other.path, other.problem, other.line) for other in reported):
        reported.append(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlText:
    """A text of the file, and where it stands."""

    text: str
    path: str
    line: int
    problems: Problems

    @property
    def is_path(self) -> bool:
        """Whether a file can have this name; if not, an error is reported."""
        if self.text and "\0" not in self.text:
            return True
        self.problem("expected a path")
        return False

    def problem(self, text: str) -> None:
        """Report an error in this text."""
        self.problems.add(self.path, text, self.line)

    def warn(self, text: str) -> None:
        """Report a warning about this text."""
        self.problems.warn(self.path, text, self.line)


class Section:
    """A mapping. Each getter returns the default where the key is missing.

    It does so too where the value is invalid, after it has reported the error: reading continues, so that
    all errors are reported.
    """

    def __init__(
        self,
        node: yaml.MappingNode | None,
        path: str,
        line: int,
        problems: Problems,
        known: Sequence[str] | None,
    ) -> None:
        """``known`` are the keys that it may have (any, where None); ``node`` is None for an empty one."""
        self.path = path
        self.line = line
        self.problems = problems
        self._known = known
        self._nodes: dict[str, yaml.Node] = {}
        self._key_lines: dict[str, int] = {}
        for key, value in node.value if node is not None else ():
            self._take(key, value)

    def _take(self, key: yaml.Node, value: yaml.Node) -> None:
        line = _line(key)
        if key.tag == _MERGE:
            self.problems.add(self.path, "merge keys (<<) are not supported; write out the values", line)
        elif not isinstance(key, yaml.ScalarNode) or key.tag not in _PLAIN:
            self.problems.add(self.path, "invalid key: must be plain text", line)
        elif key.value in self._nodes:
            first = self._key_lines[key.value]
            self.problems.add(self._at(key.value), f"is already set in line {first}", line)
        elif self._known is not None and key.value not in self._known:
            self.problems.add(self._at(key.value), f"unknown key{nearest(key.value, self._known)}", line)
        else:
            self._nodes[key.value] = value
            self._key_lines[key.value] = line

    def _at(self, key: str) -> str:
        name = key if re.fullmatch(r"[^\s.\[\]'\"]+", key) and is_printable(key) else _quoted(key)
        return f"{self.path}.{name}" if self.path else name

    def __contains__(self, key: str) -> bool:
        return key in self._nodes

    def __iter__(self) -> Iterator[str]:
        """Its keys, in the order of the file."""
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def line_of(self, key: str) -> int:
        """The line of the key; that of the section where the key is missing."""
        return self._key_lines.get(key, self.line)

    def is_wrong(self, key: str) -> bool:
        """Whether an error was reported for its value as a whole."""
        return any(error.path == self._at(key) for error in self.problems.errors)

    def problem(self, key: str, text: str) -> None:
        """Report an error in the value of this key, or that the key is missing."""
        self.problems.add(self._at(key), text, self._key_lines.get(key, self.line))

    def warn(self, key: str, text: str) -> None:
        """Report a warning about the value of this key."""
        self.problems.warn(self._at(key), text, self._key_lines.get(key, self.line))

    # -- values

    def entry(self, key: str) -> YamlText | None:
        """The text of the key, with its position; None where the key is missing or its value is invalid."""
        node = self._nodes.get(key)
        return None if node is None else self._scalar(node, self._at(key), "text")

    def text(self, key: str, default: str) -> str:
        """The text of the key."""
        entry = self.entry(key)
        return default if entry is None else entry.text

    def word(self, key: str, words: type[_Word], default: _Word) -> _Word:
        """A member of ``words``, whose values are texts. ``no`` may be written in any form of YAML (off)."""
        node = self._nodes.get(key)
        entry = None if node is None else self._scalar(node, self._at(key), "a word")
        if entry is None:
            return default
        return self.as_word(entry, words) or default

    def as_word(self, entry: YamlText, words: type[_Word]) -> _Word | None:
        """The member of ``words`` that a text names; None and an error where it names none."""
        known = {str(word.value): word for word in words}
        lower = entry.text.lower()
        same = _YES if lower in _YES else _NO if lower in _NO else frozenset({lower})
        for spelling in (entry.text, *sorted(same)):
            if spelling in known:
                return known[spelling]
        hint = _similar(entry.text, tuple(known))
        entry.problem(f"invalid value {_quoted(entry.text)}: must be one of {', '.join(known)}{hint}")
        return None

    def flag(self, key: str, default: bool) -> bool:
        """Whether the key says yes; ``on`` and ``true`` mean the same."""
        entry = self.entry(key)
        if entry is None:
            return default
        if entry.text.lower() in _YES | _NO:
            return entry.text.lower() in _YES
        entry.problem(f"invalid value {_quoted(entry.text)}: must be yes or no")
        return default

    def integer(self, key: str, default: int, *, least: int = 1, most: int = 1_000_000) -> int:
        """A number from ``least`` to ``most``."""
        entry = self.entry(key)
        if entry is None:
            return default
        if re.fullmatch("[0-9]{1,12}", entry.text) and least <= int(entry.text) <= most:
            return int(entry.text)
        entry.problem(f"invalid number {_quoted(entry.text)}: must be a whole number from {least} to {most}")
        return default

    def duration(self, key: str, default: timedelta) -> timedelta:
        """A duration, which is longer than zero."""
        return self.optional_duration(key) or default

    def optional_duration(self, key: str) -> timedelta | None:
        """A duration, which is longer than zero; None where the key is missing or invalid."""
        entry = self.entry(key)
        if entry is None:
            return None
        try:
            return parse_duration(entry.text, zero_hint="; to use the default, remove the setting")
        except ValueError as error:
            entry.problem(str(error))
            return None

    def size(self, key: str, default: int, *, least: int = 0, most: int | None = None) -> int:
        """A number of bytes, from ``least`` to ``most``."""
        entry = self.entry(key)
        if entry is None:
            return default
        try:
            size = parse_size(entry.text)
        except ValueError as error:
            entry.problem(str(error))
            return default
        if size < least:
            entry.problem(f"invalid size {_quoted(entry.text)}: must be at least {format_size(least)}")
            return default
        if most is not None and size > most:
            entry.problem(f"invalid size {_quoted(entry.text)}: must be at most {format_size(most)}")
            return default
        return size

    # -- lists and sections

    def texts(self, key: str, *, or_one: bool = False) -> tuple[YamlText, ...]:
        """A list of texts; empty where the key is missing or has no value.

        With ``or_one`` the value may also be a single text.
        """
        node = self._nodes.get(key)
        if node is None or _is_nothing(node):
            return ()
        if or_one and isinstance(node, yaml.ScalarNode):
            entry = self._scalar(node, self._at(key), "text")
            return () if entry is None else (entry,)
        if not isinstance(node, yaml.SequenceNode):
            example = f", like [{_quoted(node.value)}]" if _is_plain(node) else ""
            self.problem(key, f"expected a list{example}")
            return ()
        path = self._at(key)
        entries = (self._scalar(item, f"{path}[{index}]", "text") for index, item in enumerate(node.value))
        return tuple(entry for entry in entries if entry is not None)

    def words(
        self, key: str, words: type[_Word], default: tuple[_Word, ...], *, later: Sequence[str] = ()
    ) -> tuple[_Word, ...]:
        """A list of different members of ``words``. ``later`` are words of later versions: errors."""
        if key not in self:
            return default
        chosen: list[_Word] = []
        for entry in self.texts(key):
            if entry.text in later:
                entry.problem(f"{entry.text} is not available in this version")
            elif (word := self.as_word(entry, words)) is not None:
                if word in chosen:
                    entry.problem(f"{entry.text} is listed twice")
                chosen.append(word)
        return tuple(chosen)

    def section(self, key: str, known: Sequence[str] | None) -> Section:
        """A mapping with these keys (any, where None); an empty one where the key is missing."""
        node = self._nodes.get(key)
        if node is not None and not isinstance(node, yaml.MappingNode):
            if not _is_nothing(node):
                self.problem(key, "expected a mapping (key: value)")
            node = None
        line = self._key_lines.get(key, self.line)
        return Section(node, self._at(key), line, self.problems, known)

    def _scalar(self, node: yaml.Node, path: str, what: str) -> YamlText | None:
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
            return YamlText(text=node.value, path=path, line=_line(node), problems=self.problems)
        if node.tag.startswith(_TAG):
            actual = (
                "an empty value"
                if _is_nothing(node)
                else "a list"
                if isinstance(node, yaml.SequenceNode)
                else "a mapping"
            )
        else:
            actual = f"the tag {node.tag}"
        if isinstance(node, yaml.ScalarNode) and node.tag not in (*_PLAIN, _NULL):
            actual = f"the tag {node.tag.replace(_TAG, '!!')}"
        if isinstance(node, yaml.MappingNode) and len(node.value) == 1 and _is_nothing(node.value[0][1]):
            actual += " (put text that begins with { in quotes)"
        self.problems.add(path, f"expected {what}, not {actual}", _line(node))
        return None


def read(text: bytes, problems: Problems, known: Sequence[str]) -> Section | None:
    """The contents of a file with these keys; None, and an error, where it is not a YAML mapping."""
    try:
        node = yaml.compose(text.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        problems.add("", "the file is not UTF-8", text.count(b"\n", 0, error.start) + 1)
        return None
    except yaml.reader.ReaderError as error:
        before = text.decode("utf-8-sig")[: error.position]
        problems.add("", f"the character U+{int(error.character):04X} is not allowed", before.count("\n") + 1)
        return None
    except yaml.MarkedYAMLError as error:
        problems.add("", f"invalid YAML: {_yaml_problem(error)}", _mark_line(error))
        return None
    except RecursionError:
        problems.add("", "invalid YAML: too many nested lists or mappings", None)
        return None
    if node is None:
        problems.add("", "the file is empty", None)
        return None
    if not isinstance(node, yaml.MappingNode):
        problems.add("", "expected a mapping (key: value)", _line(node))
        return None
    return Section(node, "", 1, problems, known)


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    """The text of a syntax error, with what to do about the most frequent ones."""
    problem = error.problem or "cannot be parsed"
    if "'\\t'" in problem:
        return "a tab is not allowed here; indent with spaces"
    if "alias" in (error.context or ""):
        problem += " (put text that begins with * in quotes)"
    return problem if error.context is None else f"{problem}, {error.context}"


def _mark_line(error: yaml.MarkedYAMLError) -> int | None:
    mark = error.problem_mark or error.context_mark
    line: int | None = None if mark is None else mark.line
    return None if line is None else line + 1


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1


def _is_nothing(node: yaml.Node) -> bool:
    return bool(node.tag == _NULL)


def _is_plain(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN


def _similar(word: str, known: Sequence[str]) -> str:
    """``; did you mean hosts?``; empty where no word is similar."""
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def nearest(word: str, known: Sequence[str]) -> str:
    """``; did you mean hosts?``, or else ``; known: …`` with all words, for the end of a sentence."""
    return _similar(word, known) or (f"; known: {', '.join(known)}" if known else "")


def parse_duration(text: str, *, zero_hint: str = ", like 30s, 15m, 12h or 90d") -> timedelta:
    """``30s``, ``15m``, ``12h``, ``90d``, ``2w``, ``1h30m``; longer than zero.

    Raises ValueError, whose text is for the user. ``zero_hint`` ends the text for a duration of zero.
    """
    if re.fullmatch("0+[smhdw]?", text):
        raise ValueError(f"invalid duration {_quoted(text)}: must be longer than zero{zero_hint}")
    if not text or _DURATION.sub("", text):
        if re.fullmatch("[0-9]+", text):
            raise ValueError(
                f"invalid duration {_quoted(text)}: add a unit: {text}s, {text}m, {text}h or {text}d"
            )
        raise ValueError(f"invalid duration {_quoted(text)}: write it like 30s, 15m, 12h or 90d")
    if len(text) > 40:
        raise ValueError(f"invalid duration {_quoted(text)}: too long")
    seconds = sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise ValueError(
            f"invalid duration {_quoted(text)}: must be longer than zero and shorter than 100 years"
        )
    return timedelta(seconds=seconds)


def as_written(duration: timedelta) -> str:
    """``12h``, ``90s``: whole seconds in the largest unit that needs no fraction."""
    seconds = int(duration.total_seconds())
    unit = next((unit for unit in "dhm" if seconds and seconds % _UNITS[unit] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"


def format_size(size: int) -> str:
    """Return ``size`` with the largest unit that it is a multiple of: ``32GiB``, ``1MiB``."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size}B"


def parse_size(text: str) -> int:
    """The bytes of ``500MiB``, ``2GiB``, ``10GB``, ``0``. Raises ValueError, whose text is for the user."""
    match = _SIZE.fullmatch(text)
    if match is None or len(match[1]) > 15 or (match[2] is None and int(match[1]) != 0):
        raise ValueError(f"invalid size {_quoted(text)}: write it with a unit, like 500MiB, 2GiB or 10GB")
    unit = (match[2] or "b").lower()
    bytes_in: int = (1024 if "i" in unit else 1000) ** "bkmgt".index(unit[0])
    return int(match[1]) * bytes_in
