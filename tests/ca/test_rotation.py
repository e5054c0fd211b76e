"""The phases of a rotation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.ca.rotation import NEXT, OutOfStep, Rotation, RotationPhase, RotationStep

FIRST = Rotation(old="user_ca")


def after_steps(*steps: RotationStep) -> Rotation:
    rotation = FIRST
    for step in steps:
        rotation = rotation.after(step, "user_ca")
    return rotation


@pytest.mark.parametrize(
    ("steps", "phase", "signs", "trusted"),
    [
        ((), RotationPhase.IDLE, "user_ca", {"user_ca"}),
        ((RotationStep.INIT,), RotationPhase.INIT, "user_ca", {"user_ca", "user_ca-2"}),
        (
            (RotationStep.INIT, RotationStep.UPDATE),
            RotationPhase.UPDATE,
            "user_ca-2",
            {"user_ca", "user_ca-2"},
        ),
        (
            (RotationStep.INIT, RotationStep.UPDATE, RotationStep.FINISH),
            RotationPhase.IDLE,
            "user_ca-2",
            {"user_ca-2"},
        ),
        ((RotationStep.INIT, RotationStep.ROLLBACK), RotationPhase.IDLE, "user_ca", {"user_ca"}),
        (
            (RotationStep.INIT, RotationStep.UPDATE, RotationStep.ROLLBACK),
            RotationPhase.ROLLBACK,
            "user_ca",
            {"user_ca", "user_ca-2"},
        ),
        (
            (RotationStep.INIT, RotationStep.UPDATE, RotationStep.ROLLBACK, RotationStep.FINISH),
            RotationPhase.IDLE,
            "user_ca",
            {"user_ca"},
        ),
        (
            (RotationStep.INIT, RotationStep.ROLLBACK, RotationStep.INIT),
            RotationPhase.INIT,
            "user_ca",
            {"user_ca", "user_ca-3"},
        ),
    ],
)
def test_changes_signing_and_trusted_keys_by_phase(
    steps: tuple[RotationStep, ...], phase: RotationPhase, signs: str, trusted: set[str]
) -> None:
    rotation = after_steps(*steps)
    assert (rotation.phase, rotation.signs, set(rotation.trusted)) == (phase, signs, trusted)
    assert rotation.trusted[0] == signs


@given(st.lists(st.sampled_from(RotationStep), max_size=12))
def test_trusts_key_that_signed_in_previous_phase(steps: list[RotationStep]) -> None:
    """Only ``finish`` ends trust in certificates that there may be, and it says so. Names are never used
    twice, and what is written down is read back."""
    rotation, names = FIRST, [FIRST.old]
    for step in steps:
        before = rotation
        if (before.phase, step) not in NEXT:
            with pytest.raises(OutOfStep, match=before.phase.value):
                before.after(step, "user_ca")
            continue
        rotation = before.after(step, "user_ca")
        if step is not RotationStep.FINISH:
            assert before.signs in rotation.trusted
        if step is RotationStep.INIT:
            assert rotation.new not in names
            names.append(rotation.new)
        assert Rotation.from_json(json.loads(json.dumps(rotation.to_json()))) == rotation


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "soon"},
        {"old": "../user_ca"},
        {"old": None},
        {"old": "host_key"},
        {"generation": 0},
        {"generation": True},
        {"generation": "1"},
        {"phase": "init", "new": ""},
        {"more": 1},
    ],
)
def test_rejects_invalid_rotation_file(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Rotation.from_json({**FIRST.to_json(), **change})


@pytest.mark.parametrize("fields", [None, [], "idle", {}])
def test_is_idle_without_file(fields: object) -> None:
    with pytest.raises(ValueError, match="not the fields"):
        Rotation.from_json(fields)
