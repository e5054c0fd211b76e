"""Each step of a recording, in each state."""

from __future__ import annotations

import pytest

from conchrec.errors import RecordingError, WriteFailed
from conchrec.recording.capture.lifecycle import RecordingLifecycle, RecordingState, RecordingStep

STATES = ("open", "running", "failed", "sealing", "stored")
#: A row for each step, a column for each state: the state afterwards, "-" where the step is an error.
TABLE = {
    "start": ("running", "running", "-", "-", "-"),
    "fact": ("-", "running", "-", "-", "-"),
    "fail": ("failed", "failed", "-", "-", "-"),
    "close": ("-", "sealing", "sealing", "-", "-"),
    "sealed": ("-", "-", "-", "stored", "-"),
}


def test_table_has_each_state_and_step() -> None:
    assert [state.value for state in RecordingState] == list(STATES)
    assert [step.value for step in RecordingStep] == list(TABLE)


@pytest.mark.parametrize("column", range(len(STATES)), ids=STATES)
@pytest.mark.parametrize("step", TABLE)
def test_step_leads_to_the_state_of_the_table(step: str, column: int) -> None:
    before, after = STATES[column], TABLE[step][column]
    lifecycle = RecordingLifecycle("s1")
    lifecycle.state = RecordingState(before)
    if after == "-":
        with pytest.raises(RecordingError, match="this recording is closed"):
            lifecycle.enter(RecordingStep(step))
        assert lifecycle.state is RecordingState(before)
    else:
        lifecycle.enter(RecordingStep(step))
        assert lifecycle.state is RecordingState(after)


def test_raises_first_failure_in_each_step() -> None:
    lifecycle = RecordingLifecycle("s1")
    first = WriteFailed("the disk is full")
    lifecycle.fail(first)
    lifecycle.fail(WriteFailed("the disk is still full"))
    assert (lifecycle.state, lifecycle.failure) == (RecordingState.FAILED, first)
    with pytest.raises(WriteFailed) as raised:
        lifecycle.enter(RecordingStep.FACT)
    assert raised.value is first


@pytest.mark.parametrize("state", RecordingState)
def test_is_writable_until_it_fails_or_closes(state: RecordingState) -> None:
    lifecycle = RecordingLifecycle("s1")
    lifecycle.state = state
    assert lifecycle.is_writable == (state in (RecordingState.OPEN, RecordingState.RUNNING))
