"""Start requests: how they are parsed, and each step in each state."""

from __future__ import annotations

import pytest

from conchrec.errors import LocalViolation
from conchrec.proxy.inner.start_requests import StartRequest, StartState, StartStep, StartTracker
from conchrec.ssh import messages as m
from conchrec.ssh.wire import Malformed, Truncated, string

LS = StartRequest(kind="exec", argument=b"ls")
#: A row for each state: the steps that lead to it, and the state after REQUEST, FORWARD, ACCEPT and REFUSE;
#: "-" if the step is an error.
TABLE = {
    "NOT_REQUESTED": ("", ("REQUESTED", "-", "-", "-")),
    "REQUESTED": ("REQUEST", ("-", "FORWARDED", "-", "-")),
    "FORWARDED": ("REQUEST FORWARD", ("-", "-", "ACCEPTED", "REFUSED")),
    "ACCEPTED": ("REQUEST FORWARD ACCEPT", ("-", "-", "-", "-")),
    "REFUSED": ("REQUEST FORWARD REFUSE", ("REQUESTED", "-", "-", "-")),
}
STEPS = ("REQUEST", "FORWARD", "ACCEPT", "REFUSE")


def take(tracker: StartTracker, step: str) -> None:
    if step == "REQUEST":
        tracker.request(LS)
    elif step == "FORWARD":
        assert tracker.forward() == LS
    else:
        tracker.answer(step == "ACCEPT")


def tracker_in(state: str) -> StartTracker:
    tracker = StartTracker()
    for step in TABLE[state][0].split():
        take(tracker, step)
    assert tracker.state is StartState[state]
    return tracker


def test_has_row_for_each_state_and_step() -> None:
    assert [state.name for state in StartState] == list(TABLE)
    assert [step.name for step in StartStep] == list(STEPS)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", TABLE)
def test_enters_state_of_table(state: str, step: str) -> None:
    tracker = tracker_in(state)
    after = TABLE[state][1][STEPS.index(step)]
    if after == "-":
        with pytest.raises(LocalViolation):
            take(tracker, step)
        assert tracker.state is StartState[state]
    else:
        take(tracker, step)
        assert tracker.state is StartState[after]


@pytest.mark.parametrize(
    ("state", "is_requested", "is_forwarded", "current"),
    [
        ("NOT_REQUESTED", False, False, None),
        ("REQUESTED", True, False, None),
        ("FORWARDED", True, True, LS),
        ("ACCEPTED", True, True, LS),
        ("REFUSED", True, True, None),
    ],
)
def test_returns_current_request(
    state: str, is_requested: bool, is_forwarded: bool, current: StartRequest | None
) -> None:
    tracker = tracker_in(state)
    assert (tracker.is_requested, tracker.is_forwarded) == (is_requested, is_forwarded)
    assert tracker.current == current
    assert tracker.last == (LS if is_forwarded else None)


def test_keeps_pending_request_until_forwarded() -> None:
    tracker = tracker_in("REQUESTED")
    assert tracker.pending is LS
    tracker.forward()
    with pytest.raises(LocalViolation):
        _ = tracker.pending


def test_keeps_new_request_after_refusal() -> None:
    tracker, other = tracker_in("REFUSED"), StartRequest(kind="shell")
    tracker.request(other)
    assert (tracker.state, tracker.pending, tracker.last) == (StartState.REQUESTED, other, LS)
    assert tracker.is_forwarded and tracker.current is None
    assert tracker.forward() is other
    assert tracker.current is tracker.last is other


@pytest.mark.parametrize(
    ("name", "extra", "argument", "text"),
    [
        (b"shell", b"", b"", ""),
        (b"exec", string(b"ls \xff"), b"ls \xff", "ls \\xff"),
        (b"subsystem", string(b"sftp"), b"sftp", "sftp"),
    ],
)
@pytest.mark.parametrize("want_reply", [True, False])
def test_parses_and_encodes_each_kind(
    name: bytes, extra: bytes, argument: bytes, text: str, want_reply: bool
) -> None:
    request = m.ChannelRequest(name=name, want_reply=want_reply, extra=extra)
    start = StartRequest.parse(request)
    assert (start.kind, start.argument, start.text) == (name.decode(), argument, text)
    assert start.forced_upon == ""
    assert start.message(want_reply=want_reply) == request


def test_rejects_truncated_command() -> None:
    with pytest.raises((Truncated, Malformed)):
        StartRequest.parse(m.ChannelRequest(name=b"exec", want_reply=True, extra=string(b"ls")[:-1]))


@pytest.mark.parametrize(
    ("start", "forced_upon"),
    [(LS, "exec ls"), (StartRequest(kind="shell"), "shell")],
)
def test_replaces_request_by_forced_command(start: StartRequest, forced_upon: str) -> None:
    assert start.force("backup") == StartRequest(kind="exec", argument=b"backup", forced_upon=forced_upon)
