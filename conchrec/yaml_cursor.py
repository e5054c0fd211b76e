"""YAML as a file that people write by hand: every problem at once, each with its path and its line.

Nothing here knows a setting of ours. The text becomes PyYAML's node tree and nothing is ever
constructed from it: a tag can make no object, and ``off`` is still the word that was written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import partial
from typing import TypeVar

import yaml

from conchrec.errors import ConchrecError, ConfigError
from conchrec.reasons import ReasonCode
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


class ConfigErrors(ConchrecError):
    """The start is refused. ``errors`` are all the problems of ``file``, by line."""

    default_code = ReasonCode.INVALID_CONFIGURATION

    def __init__(self, file: str, errors: Iterable[ConfigError]) -> None:
        self.file = file
        self.errors = tuple(sorted(errors, key=lambda error: (error.line or 0, error.path)))
        count = f"{len(self.errors)} problem{'' if len(self.errors) == 1 else 's'}"
        super().__init__(f"{count} in {file}", "\n".join(self.lines()))

    def lines(self) -> Iterator[str]:
        """One line for each problem, as compilers write them: ``config.yaml:12: roles.ops.hosts[2]: …``."""
        for error in self.errors:
            where = self.file if error.line is None else f"{self.file}:{error.line}"
            yield f"{where}: {error.path}: {error.problem}" if error.path else f"{where}: {error.problem}"

    def __str__(self) -> str:
        return "\n".join(self.lines())


class Problems:
    """What is wrong so far, and what is merely worth saying."""

    def __init__(self) -> None:
        self.errors: list[ConfigError] = []
        self.warnings: list[ConfigError] = []

    def add(self, path: str, problem: str, line: int | None) -> None:
        _note(self.errors, ConfigError(path, problem, line))

    def warn(self, path: str, problem: str, line: int | None) -> None:
        _note(self.warnings, ConfigError(path, problem, line))


def _note(noted: list[ConfigError], error: ConfigError) -> None:
    """Whoever looks twice at a value says it once."""
    if not any((error.path, error.problem, error.line) == (it.path, it.problem, it.line) for it in noted):
        noted.append(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlText:
    """One text, and where it was written."""

    text: str
    path: str
    line: int
    problems: Problems

    @property
    def is_path(self) -> bool:
        """A file can have this name; else that is a problem now."""
        if self.text and "\0" not in self.text:
            return True
        self.problem("a path is expected")
        return False

    def problem(self, text: str) -> None:
        self.problems.add(self.path, text, self.line)

    def warn(self, text: str) -> None:
        self.problems.warn(self.path, text, self.line)


class Section:
    """A mapping. Each getter gives the default where the key is missing, and also (after it has noted
    the problem) where the value makes no sense: reading goes on, and all problems are found."""

    def __init__(
        self,
        node: yaml.MappingNode | None,
        path: str,
        line: int,
        problems: Problems,
        known: Sequence[str] | None,
    ) -> None:
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
            self.problems.add(self.path, "merge keys (<<) are not taken; write the values out", line)
        elif not isinstance(key, yaml.ScalarNode) or key.tag not in _PLAIN:
            self.problems.add(self.path, "a key has to be a word", line)
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
        """Its keys, as they were written."""
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def line_of(self, key: str) -> int:
        """Where the key stands; of one that is missing, the section's own line."""
        return self._key_lines.get(key, self.line)

    def is_wrong(self, key: str) -> bool:
        """There is already a problem with its value as a whole."""
        return any(error.path == self._at(key) for error in self.problems.errors)

    def problem(self, key: str, text: str) -> None:
        """Something is wrong with the value of this key (or with its absence)."""
        self.problems.add(self._at(key), text, self._key_lines.get(key, self.line))

    def warn(self, key: str, text: str) -> None:
        self.problems.warn(self._at(key), text, self._key_lines.get(key, self.line))

    # -- values

    def entry(self, key: str) -> YamlText | None:
        """A text; None without one."""
        node = self._nodes.get(key)
        return None if node is None else self._scalar(node, self._at(key), "a text")

    def text(self, key: str, default: str) -> str:
        found = self.entry(key)
        return default if found is None else found.text

    def word(self, key: str, words: type[_Word], default: _Word) -> _Word:
        """A member of ``words``, whose values are texts. ``no`` may be written as any YAML says it."""
        node = self._nodes.get(key)
        found = None if node is None else self._scalar(node, self._at(key), "a word")
        if found is None:
            return default
        return self.as_word(found, words) or default

    def as_word(self, found: YamlText, words: type[_Word]) -> _Word | None:
        known = {str(word.value): word for word in words}
        lower = found.text.lower()
        same = _YES if lower in _YES else _NO if lower in _NO else frozenset({lower})
        for spelling in (found.text, *sorted(same)):
            if spelling in known:
                return known[spelling]
        found.problem(
            f"{_quoted(found.text)} is not one of {', '.join(known)}{_mean(found.text, tuple(known))}"
        )
        return None

    def flag(self, key: str, default: bool) -> bool:
        found = self.entry(key)
        if found is None:
            return default
        if found.text.lower() in _YES | _NO:
            return found.text.lower() in _YES
        found.problem(f"{_quoted(found.text)} is neither yes nor no")
        return default

    def integer(self, key: str, default: int, *, least: int = 1, most: int = 1_000_000) -> int:
        found = self.entry(key)
        if found is None:
            return default
        if re.fullmatch("[0-9]{1,12}", found.text) and least <= int(found.text) <= most:
            return int(found.text)
        found.problem(f"{_quoted(found.text)} is not a number from {least} to {most}")
        return default

    def duration(self, key: str, default: timedelta) -> timedelta:
        return self.optional_duration(key) or default

    def optional_duration(self, key: str) -> timedelta | None:
        """More than nothing; None where the key is missing (or wrong)."""
        found = self.entry(key)
        if found is None:
            return None
        try:
            return parse_duration(found.text)
        except ValueError as error:
            found.problem(str(error))
            return None

    def size(self, key: str, default: int) -> int:
        found = self.entry(key)
        if found is None:
            return default
        try:
            return parse_size(found.text)
        except ValueError as error:
            found.problem(str(error))
            return default

    # -- lists and sections

    def texts(self, key: str, *, or_one: bool = False) -> tuple[YamlText, ...]:
        """A list of texts; empty where the key is missing or has nothing. ``or_one``: one alone will do."""
        node = self._nodes.get(key)
        if node is None or _is_nothing(node):
            return ()
        if or_one and isinstance(node, yaml.ScalarNode):
            found = self._scalar(node, self._at(key), "a text")
            return () if found is None else (found,)
        if not isinstance(node, yaml.SequenceNode):
            wrong = (
                f"a list is expected, like [{_quoted(node.value)}]"
                if _is_plain(node)
                else "a list is expected"
            )
            self.problem(key, wrong)
            return ()
        path = self._at(key)
        entries = (self._scalar(item, f"{path}[{index}]", "a text") for index, item in enumerate(node.value))
        return tuple(entry for entry in entries if entry is not None)

    def words(
        self, key: str, words: type[_Word], default: tuple[_Word, ...], *, later: Sequence[str] = ()
    ) -> tuple[_Word, ...]:
        """A list of members of ``words``, none of them twice. ``later`` are words of later versions."""
        if key not in self:
            return default
        chosen: list[_Word] = []
        for entry in self.texts(key):
            if entry.text in later:
                entry.problem(f"{entry.text} is not available in this version")
            elif (word := self.as_word(entry, words)) is not None:
                if word in chosen:
                    entry.problem(f"{entry.text} is there twice")
                chosen.append(word)
        return tuple(chosen)

    def section(self, key: str, known: Sequence[str] | None) -> Section:
        """A mapping with these keys (any, where None); an empty one where the key is missing."""
        node = self._nodes.get(key)
        if node is not None and not isinstance(node, yaml.MappingNode):
            if not _is_nothing(node):
                self.problem(key, "a mapping is expected (key: value)")
            node = None
        line = self._key_lines.get(key, self.line)
        return Section(node, self._at(key), line, self.problems, known)

    def _scalar(self, node: yaml.Node, path: str, what: str) -> YamlText | None:
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN:
            return YamlText(text=node.value, path=path, line=_line(node), problems=self.problems)
        if node.tag.startswith(_TAG):
            found = (
                "nothing"
                if _is_nothing(node)
                else "a list"
                if isinstance(node, yaml.SequenceNode)
                else "a mapping"
            )
        else:
            found = f"the tag {node.tag}"
        if isinstance(node, yaml.ScalarNode) and node.tag not in (*_PLAIN, _NULL):
            found = f"the tag {node.tag.replace(_TAG, '!!')}"
        if isinstance(node, yaml.MappingNode) and len(node.value) == 1 and _is_nothing(node.value[0][1]):
            found += " (a text that begins with { has to be in quotes)"
        self.problems.add(path, f"{what} is expected, not {found}", _line(node))
        return None


def read(text: bytes, problems: Problems, known: Sequence[str]) -> Section | None:
    """The whole file; None where it is no YAML, or no mapping, which is a problem then."""
    try:
        node = yaml.compose(text.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        problems.add("", "this is not UTF-8", text.count(b"\n", 0, error.start) + 1)
        return None
    except yaml.reader.ReaderError as error:
        before = text.decode("utf-8-sig")[: error.position]
        problems.add("", f"the character U+{int(error.character):04X} is not allowed", before.count("\n") + 1)
        return None
    except yaml.MarkedYAMLError as error:
        problems.add("", f"this is not YAML: {_said(error)}", _mark_line(error))
        return None
    except RecursionError:
        problems.add("", "this is nested too deeply", None)
        return None
    if node is None:
        problems.add("", "there is nothing in it", None)
        return None
    if not isinstance(node, yaml.MappingNode):
        problems.add("", "a mapping is expected (key: value)", _line(node))
        return None
    return Section(node, "", 1, problems, known)


def _said(error: yaml.MarkedYAMLError) -> str:
    problem = (error.problem or "it can not be read").replace("'\\t'", "a tab")
    if "a tab" in problem:
        problem += " (indent with spaces)"
    if "alias" in (error.context or ""):
        problem += " (put a text that begins with * in quotes)"
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


def _mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def nearest(word: str, known: Sequence[str]) -> str:
    """``; did you mean hosts?``, or else what there is, to be put after a sentence."""
    return _mean(word, known) or (f" (there are: {', '.join(known)})" if known else "")


def parse_duration(text: str) -> timedelta:
    """``30s``, ``15m``, ``12h``, ``90d``, ``2w``, ``1h30m``; more than nothing. ValueError says why not."""
    if re.fullmatch("0+[smhdw]?", text):
        raise ValueError(f"{_quoted(text)} is no time at all; what has no limit by default is left out")
    if not text or _DURATION.sub("", text):
        if re.fullmatch("[0-9]+", text):
            raise ValueError(f"{_quoted(text)} has no unit; write {text}s, {text}m, {text}h or {text}d")
        raise ValueError(f"{_quoted(text)} is not a duration (30s, 15m, 12h, 90d)")
    if len(text) > 40:
        raise ValueError(f"{_quoted(text)} is too long")
    seconds = sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise ValueError(f"{_quoted(text)} has to be more than nothing, and less than a century")
    return timedelta(seconds=seconds)


def as_written(duration: timedelta) -> str:
    """``12h``, ``90s``: whole seconds in the largest unit that needs no fraction."""
    seconds = int(duration.total_seconds())
    unit = next((unit for unit in "dhm" if seconds and seconds % _UNITS[unit] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"


def parse_size(text: str) -> int:
    """Bytes: ``500MiB``, ``2GiB``, ``10GB``, ``0``. ValueError says why not."""
    found = _SIZE.fullmatch(text)
    if found is None or len(found[1]) > 15 or (found[2] is None and int(found[1]) != 0):
        raise ValueError(f"{_quoted(text)} is not a size (500MiB, 2GiB, 10GB)")
    unit = (found[2] or "b").lower()
    bytes_in: int = (1024 if "i" in unit else 1000) ** "bkmgt".index(unit[0])
    return int(found[1]) * bytes_in
