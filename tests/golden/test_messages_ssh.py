"""All that a user reads over ssh in the scenarios: banners, questions, refusals, ends, and the output of
commands for the proxy."""

from __future__ import annotations

import re
from pathlib import Path

from fuzz.channels import wire as w
from tests.golden.codes import Codes
from tests.golden.conftest import Compare
from tests.golden.entries import Entries
from tests.golden.registry import SCENARIOS
from tests.golden.scene import Scene
from tests.golden.test_scenarios import MODULES

#: The scenarios that end before the user reads the reason. They go on for this file: their transcripts stay
#: as they are.
_CONTINUED = frozenset({"agent_empty", "agent_silent", "approval_without_reason"})
_PLACEHOLDERS = ((re.compile(r"\bconchrec \d+\.\d+\.\d+"), "conchrec <version>"),)


def _without(text: str, requests: list[str]) -> str:
    for request in requests:
        text = text.replace(request, "<request>")
    return text


def _continue(scene: Scene) -> None:
    """The user starts a command if none was started, and waits."""
    if not scene.user.channels:
        scene.session()
        scene.ask(b"exec", w.text(b"id"))
    scene.settle(120)


def test_keeps_texts_of_scenarios(golden: Compare) -> None:
    assert MODULES
    entries = Entries(Path("/nowhere"))
    for name, play in sorted(SCENARIOS.items()):
        scene = play(Codes())
        if name in _CONTINUED:
            _continue(scene)
        scene.disconnect()
        texts = [(mark, entries.shown(_without(text, scene.requests))) for mark, text in scene.read]
        scene.close()
        if any(mark not in ("exit", "ran") for mark, _ in texts):
            entries.lines(name, "", [("about", play.__doc__ or ""), *texts])
    text = entries.text()
    for pattern, placeholder in _PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    golden("messages/ssh.txt", text)
