"""Keeps the tests of commands apart from an installed conchrec."""

from __future__ import annotations

from pathlib import Path

import pytest

from conchrec.config import loader


@pytest.fixture(autouse=True)
def default_state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the default state directory: a command of root takes on the rights of its owner."""
    monkeypatch.setattr(loader, "DEFAULT_STATE_DIR", str(tmp_path / "default-state"))
