"""Sockets are read in smaller pieces while somebody types on a terminal, through the whole proxy."""

from __future__ import annotations

import pytest

from conchrec.ssh.fair_turns import READ_AT_MOST, READ_WHILE_TYPING
from fuzz.channels import wire as w
from tests.golden.codes import Codes
from tests.golden.scene import Scene
from tests.golden.sessions import PTY


@pytest.mark.parametrize("has_terminal", [True, False])
def test_notes_keys_of_sessions_with_terminal(has_terminal: bool) -> None:
    """Not the input of a command, which may be a bulk transfer."""
    scene = Scene(Codes())
    try:
        scene.begin()
        scene.session()
        if has_terminal:
            scene.ask(b"pty-req", PTY)
        scene.ask(b"exec", w.text(b"cat"))
        scene.say(b"x")
        size = scene.proxy.context.services.turns.read_size
        assert size == (READ_WHILE_TYPING if has_terminal else READ_AT_MOST)
    finally:
        scene.close()
