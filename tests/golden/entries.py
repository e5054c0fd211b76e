"""Entries of the golden messages: what was run, its exit status, and what it said.

``out| `` and ``err| `` stand before each line of standard output and standard error, ``in | `` before what
was given.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from conchrec.cli import main as command_line
from conchrec.cli.rights import account
from tests.support.defaults import INSTALLED, NOT_INSTALLED

#: Of the terminal that argparse wraps its help for.
COLUMNS = "80"
_TIME = r"(?:\b20\d\d-\d\d-\d\d[T ]|\b)\d\d:\d\d:\d\d(?:\.\d+)?(?: ?UTC|Z|[+-]\d\d:\d\d)?"
_PLACEHOLDERS = (
    (re.compile(r"SHA256:[A-Za-z0-9+/]{43}"), "<fingerprint>"),
    (re.compile(r"\bAAAA[A-Za-z0-9+/]{40,}=*"), "<key>"),
    (re.compile(r"\b0[0-9a-hjkmnp-tv-z]{25}\b"), "<sid>"),
    (re.compile(r"\b[0-9a-f]{16,64}\b"), "<hex>"),
    (re.compile(_TIME), "<time>"),
    (re.compile(r"\$2b\$12\$[./A-Za-z0-9]{53}"), "<hash>"),
    (re.compile(r"\b[A-Z2-7]{32}\b"), "<secret>"),
    (re.compile(r"\b20\d\d/\d\d/\d\d\b"), "<date>"),
    (re.compile(r"\b\d+\.\d{3,} ?s\b"), "<seconds> s"),
)
#: argparse of Python 3.13 writes these otherwise.
_OPTION = re.compile(r"(-\w) ([A-Z]+), (--[\w-]+) \2")
_JOINED = re.compile(r"^(  -\S[^\n]{0,19})\n {24}(?=\S)", re.MULTILINE)
_CHOICES = re.compile(r"\(choose from [^)]*\)")


class Entries:
    """One golden file of messages, as it grows. ``directory``, and the account that runs this, are replaced
    in all of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._names = (
            (str(NOT_INSTALLED), str(INSTALLED)),
            (str(directory), "<directory>"),
            (f"by {account()}", "by <account>"),
            (f'"by": "{account()}"', '"by": "<account>"'),
        )
        self._entries: list[str] = []

    def add(self, label: str, status: int | str, out: str = "", err: str = "", given: str = "") -> None:
        """What ``label`` said of what it was ``given``, and its exit status."""
        texts = [("in ", given), ("out", self.shown(out)), ("err", self.shown(err))]
        self.lines(self.shown(label), status if isinstance(status, str) else f"exit {status}", texts)

    def lines(self, label: str, status: str, texts: Sequence[tuple[str, str]]) -> None:
        """An entry of texts, each with a mark before each of its lines."""
        shown = [f"{mark}| {line}".rstrip() for mark, text in texts for line in text.splitlines()]
        self._entries.append("\n".join([f"[{label}] {status}".rstrip(), *shown]) + "\n")

    def run(self, *argv: str, stdin: str = "", label: str = "", given: str = "") -> str:
        """Run ``conchrec`` with these arguments; returns its standard output."""
        out, err = io.StringIO(), io.StringIO()
        with _environment(self.directory), patch.object(sys, "stdin", io.StringIO(stdin)):
            status = command_line.main(argv, out, err)
        label = label or "conchrec " + " ".join(map(_quoted, argv))
        self.add(label, status, out.getvalue(), err.getvalue(), given or stdin)
        return out.getvalue()

    def shown(self, text: str) -> str:
        """``text`` with placeholders."""
        for name, placeholder in self._names:
            text = text.replace(name, placeholder)
        for pattern, placeholder in _PLACEHOLDERS:
            text = pattern.sub(placeholder, text)
        text = _CHOICES.sub(lambda match: match[0].replace("'", ""), text)
        text = _OPTION.sub(r"\1, \3 \2", text)
        return _JOINED.sub(lambda match: f"{match[1]:<24}", text)

    def text(self) -> str:
        """The golden file."""
        return "\n".join(self._entries)


def _quoted(word: str) -> str:
    return f"'{word}'" if not word or " " in word else word


@contextmanager
def _environment(directory: Path) -> Iterator[None]:
    """In that directory, with a terminal of a fixed width and no user behind sudo."""
    before = Path.cwd()
    os.chdir(directory)
    fixed = {name: value for name, value in os.environ.items() if name != "SUDO_USER"}
    try:
        with patch.dict(os.environ, fixed | {"COLUMNS": COLUMNS, "LC_ALL": "C.UTF-8"}, clear=True):
            yield
    finally:
        os.chdir(before)
