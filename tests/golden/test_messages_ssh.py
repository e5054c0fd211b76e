"""All that a user reads over ssh in the scenarios: banners, questions, refusals, ends, and the output of
commands for the proxy."""

from __future__ import annotations

import re
from pathlib import Path

from tests.golden.codes import Codes
from tests.golden.conftest import Compare
from tests.golden.entries import Entries
from tests.golden.registry import SCENARIOS
from tests.golden.test_scenarios import MODULES

_PLACEHOLDERS = ((re.compile(r"\bconchrec \d+\.\d+\.\d+"), "conchrec <version>"),)


def _without(text: str, requests: list[str]) -> str:
    for request in requests:
        text = text.replace(request, "<request>")
    return text


def test_keeps_texts_of_scenarios(golden: Compare) -> None:
    assert MODULES
    entries = Entries(Path("/nowhere"))
    for name, play in sorted(SCENARIOS.items()):
        scene = play(Codes())
        scene.disconnect()
        texts = [(mark, entries.shown(_without(text, scene.requests))) for mark, text in scene.read]
        scene.close()
        if any(mark not in ("exit", "ran") for mark, _ in texts):
            entries.lines(name, "", [("about", play.__doc__ or ""), *texts])
    text = entries.text()
    for pattern, placeholder in _PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    golden("messages/ssh.txt", text)
