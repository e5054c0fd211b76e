"""The option that writes the golden files again, and the comparison with them."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conchrec.ssh.algorithms import MODERN
from conchrec.ssh.kex_methods import is_usable

HERE = Path(__file__).resolve().parent
OPTION = "--update-golden"
Compare = Callable[[str, str], None]


@pytest.fixture(scope="session", autouse=True)
def every_key_exchange() -> None:
    """The scenarios have the lists of a machine that supports every method."""
    assert all(map(is_usable, MODERN.kex)), "a package is missing, for example pqcrypto: run tests/prepare"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", default=False, help="write tests/golden/ again")


#: From this version on argparse breaks lines elsewhere, and docstrings have no indentation.
_OTHER_LAYOUT = (3, 13)
_LINE_BREAK = re.compile(r"\n(?:(?:out|err|about)\|)?\s*|[ \t]+")


def is_same(known: str, text: str) -> bool:
    """Tell whether the texts are equal; from Python 3.13 on, but for line breaks and spaces."""
    if sys.version_info < _OTHER_LAYOUT:
        return known == text
    return _LINE_BREAK.sub("", known) == _LINE_BREAK.sub("", text)


def difference(name: str, known: str, text: str) -> str:
    """A unified diff; empty where the texts are the same."""
    before, after = known.splitlines(), text.splitlines()
    lines = difflib.unified_diff(before, after, f"golden/{name}", "now", lineterm="", n=4)
    return "\n".join(lines)


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Compare:
    """``golden(name, text)`` fails with a unified diff where the file ``name`` in this directory has another
    text; with the option it writes the file."""
    update = bool(pytestconfig.getoption(OPTION, default=False))

    def compare(name: str, text: str) -> None:
        file = HERE / name
        if update:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            return
        known = file.read_text(encoding="utf-8") if file.exists() else ""
        if not is_same(known, text):
            pytest.fail(difference(name, known, text) or f"{name}: other line ends", pytrace=False)

    return compare
