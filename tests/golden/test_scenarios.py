"""Each scenario leaves what its golden file says: on the wire, in the audit and in the manifests."""

from __future__ import annotations

import re

import pytest

from conchrec.reasons import ReasonCode
from tests.golden import (
    commands,
    endings,
    files,
    forwards,
    limits,
    refusals,
    second_factor,
    sessions,
    targets,
)
from tests.golden.codes import Codes
from tests.golden.conftest import HERE, Compare, difference
from tests.golden.registry import SCENARIOS

MODULES = (commands, endings, files, forwards, limits, refusals, second_factor, sessions, targets)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_keeps_scenario(name: str, golden: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    # The ciphers in our KEXINIT depend on the processor.
    monkeypatch.setattr("conchrec.service.settings.knows_aes", lambda: True)
    codes = Codes()
    with codes.record_codes():
        scene = SCENARIOS[name](codes)
        try:
            text = scene.transcript()
        finally:
            scene.close()
    golden(f"scenarios/{name}.txt", text)


def test_lists_codes_without_scenario(golden: Compare) -> None:
    """The list grows only by a decision."""
    texts = (file.read_text() for file in sorted((HERE / "scenarios").glob("*.txt")))
    shown = {code for text in texts for code in re.findall(r"<(\w+)>", text)}
    without = [code.value for code in ReasonCode if code.value not in shown]
    golden("codes_without_scenario.txt", "".join(f"{code}\n" for code in without))


def test_has_scenario_for_every_file() -> None:
    assert {file.stem for file in (HERE / "scenarios").glob("*.txt")} == set(SCENARIOS)


def test_shows_difference() -> None:
    assert difference("a.txt", "one\ntwo\n", "one\n2\n").endswith("\n one\n-two\n+2")
    assert difference("a.txt", "one\n", "one\n") == ""
