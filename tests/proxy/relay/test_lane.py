"""Lanes and replies keep their order, in each state."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import RecordingError, RemoteViolation
from conchrec.proxy.relay.lane import HELD_BYTES, HELD_MESSAGES, Lane, ReplyOrder

Messages = list[tuple[int, bytes]]


def lane_of(log: list[tuple[str, int, bytes]]) -> Lane:
    return Lane(
        lambda message, body: log.append(("observed", message, body)),
        lambda message, body: log.append(("passed", message, body)),
    )


messages = st.lists(st.tuples(st.integers(93, 100), st.binary(max_size=4)), max_size=20)


@given(messages, messages)
def test_forwards_held_messages_first(before: Messages, after: Messages) -> None:
    log: list[tuple[str, int, bytes]] = []
    lane = lane_of(log)
    for message in before:
        lane.push(*message)
    assert log == []
    lane.open()
    for message in after:
        lane.push(*message)
    assert [entry[1:] for entry in log if entry[0] == "passed"] == before + after
    # Each was observed just before it was forwarded.
    assert [entry[0] for entry in log] == ["observed", "passed"] * len(before + after)


def test_queues_messages_that_arrive_during_open() -> None:
    passed: list[bytes] = []

    def forward(message: int, body: bytes) -> None:
        passed.append(body)
        if body == b"1":
            lane.push(94, b"3")

    lane = Lane(lambda message, body: None, forward)
    lane.push(94, b"1")
    lane.push(94, b"2")
    lane.open()
    assert passed == [b"1", b"2", b"3"]


@given(messages, st.lists(st.integers(0, 25)))
def test_observes_at_once_and_forwards_when_released(pushed: Messages, marks: list[int]) -> None:
    log: list[tuple[str, int, bytes]] = []
    lane = lane_of(log)
    gate_calls = 0

    def gate() -> None:
        nonlocal gate_calls
        gate_calls += 1

    lane.open(gate)
    for message in pushed:
        lane.push(*message)
    assert gate_calls == len(pushed)
    assert [entry[0] for entry in log] == ["observed"] * len(pushed)
    highest = 0
    for mark in marks:
        lane.release(mark)
        highest = max(highest, min(mark, len(pushed)))
        assert [entry[1:] for entry in log if entry[0] == "passed"] == pushed[:highest]
    lane.release(lane.mark())
    assert [entry[1:] for entry in log if entry[0] == "passed"] == pushed
    assert lane.pending == 0


def test_does_not_forward_when_observer_fails() -> None:
    passed: list[bytes] = []

    def observe(message: int, body: bytes) -> None:
        raise RecordingError("full")

    lane = Lane(observe, lambda message, body: passed.append(body))
    lane.open()
    with pytest.raises(RecordingError):
        lane.push(94, b"x")
    assert passed == []


def test_rejects_flood_while_held() -> None:
    lane = Lane(lambda message, body: None, lambda message, body: None)
    for _ in range(HELD_MESSAGES):
        lane.push(98, b"")
    with pytest.raises(RemoteViolation):
        lane.push(98, b"")
    other = Lane(lambda message, body: None, lambda message, body: None)
    with pytest.raises(RemoteViolation):
        other.push(94, b"x" * (HELD_BYTES + 1))


def test_delays_own_answers_until_earlier_replies() -> None:
    sent: list[bool] = []
    order = ReplyOrder(sent.append)
    order.expect()
    order.answer(False)
    order.expect()
    assert sent == []
    order.accept_reply(True)
    assert sent == [True, False]
    order.accept_reply(False)
    assert sent == [True, False, False]
    order.accept_reply(True)  # without a request
    assert sent == [True, False, False]


@given(st.lists(st.sampled_from(["pass", "yes", "no"]), max_size=20), st.data())
def test_sends_replies_in_order_of_requests(kinds: list[str], data: st.DataObject) -> None:
    sent: list[bool] = []
    order = ReplyOrder(sent.append)
    expected: list[bool] = []
    for kind in kinds:
        if kind == "pass":
            order.expect()
            expected.append(data.draw(st.booleans()))
        else:
            order.answer(kind == "yes")
            expected.append(kind == "yes")
    for kind, reply in zip(kinds, expected, strict=True):
        if kind == "pass":
            order.accept_reply(reply)
    assert sent == expected


def test_settle_answers_all_open_requests() -> None:
    sent: list[bool] = []
    order = ReplyOrder(sent.append)
    order.expect()
    order.answer(False)
    order.expect()
    order.settle(True)
    assert sent == [True, False, True]
