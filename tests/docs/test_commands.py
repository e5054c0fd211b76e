"""The reference of commands has each command, with help for each of its options."""

from __future__ import annotations

import argparse

import pytest

from conchrec.proxy.commands.command_table import COMMANDS
from tests.docs.commands import page, parsers, ssh_page

PARSERS = list(parsers())


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: str(parser.prog))
def test_shows_command(parser: argparse.ArgumentParser) -> None:
    assert f" `{parser.prog}`\n" in page()


def test_shows_command_to_the_proxy() -> None:
    assert [line for line in ssh_page().splitlines() if line.startswith("| `")] != []
    assert all(command.__doc__ for command in COMMANDS.values())
    assert len(ssh_page().splitlines()) == len(COMMANDS) + 2
