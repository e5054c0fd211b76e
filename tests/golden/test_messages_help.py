"""The help of every command."""

from __future__ import annotations

import io
import re
from pathlib import Path

from conchrec.cli import main as command_line
from tests.golden.conftest import Compare
from tests.golden.entries import Entries

_COMMAND = re.compile(r"^    ([a-z][a-z-]*)(?: |$)", re.MULTILINE)


def _subcommands(words: tuple[str, ...]) -> list[str]:
    out = io.StringIO()
    assert command_line.main([*words, "--help"], out, io.StringIO()) == 0
    _, separator, commands = out.getvalue().partition("\n  COMMAND\n")
    return _COMMAND.findall(commands) if separator else []


def test_keeps_help_of_commands(golden: Compare, tmp_path: Path) -> None:
    entries = Entries(tmp_path)
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        words = waiting.pop(0)
        entries.run(*words, "--help")
        waiting += [(*words, name) for name in _subcommands(words)]
    entries.run()
    entries.run("--version")
    golden("messages/help.txt", re.sub(r"conchrec \d+\.\d+\.\d+", "conchrec <version>", entries.text()))
