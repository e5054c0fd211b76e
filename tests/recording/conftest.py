"""Fixtures: a directory for recordings, a clock, and stores on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recording.recording_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(directory=tmp_path / "recordings")
