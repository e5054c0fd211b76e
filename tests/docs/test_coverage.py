"""Each word of a manifest's coverage has a meaning in the documentation."""

from __future__ import annotations

from conchrec.recording.format.coverage import MEANINGS, NotKept


def test_has_meaning_of_each_word() -> None:
    assert set(MEANINGS) == set(NotKept)
