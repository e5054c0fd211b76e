"""Ended connections leave nothing that waits for a full garbage collection, and fail at nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.golden import left_objects
from tests.golden.registry import SCENARIOS

Left = dict[str, list[list[str]]]


@pytest.fixture(scope="module")
def left() -> Left:
    """What is left after each scenario."""
    command = [sys.executable, "-m", left_objects.__name__]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    result: Left = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", sorted({*SCENARIOS, *left_objects.MORE} - {"self reference"}))
def test_leaves_nothing(name: str, left: Left) -> None:
    assert left[name] == [[], [], []]


def test_finds_connection_that_refers_to_itself(left: Left) -> None:
    owners, garbage, errors = left["self reference"]
    assert "conchrec.ssh.key_exchange.KexSettings" in garbage
    assert any("ClientKeyExchange" in name for name in owners)
    assert errors == []
