"""The queue that is small while it is empty."""

from __future__ import annotations

import tracemalloc
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.slim_queue import SlimQueue

STEPS = st.lists(st.sampled_from(("append", "appendleft", "popleft", "take", "replace")), max_size=30)


@given(STEPS)
def test_behaves_as_deque(steps: list[str]) -> None:
    queue: SlimQueue[int] = SlimQueue()
    expected: deque[int] = deque()
    for number, step in enumerate(steps):
        match step:
            case "append":
                queue.append(number)
                expected.append(number)
            case "appendleft":
                queue.appendleft(number)
                expected.appendleft(number)
            case "popleft" if expected:
                assert queue.popleft() == expected.popleft()
            case "take":
                assert queue.take() == expected
                expected.clear()
            case "replace" if expected:
                queue[-1] = expected[-1] = number
        assert (list(queue), len(queue), bool(queue)) == (list(expected), len(expected), bool(expected))
        if expected:
            assert (queue[0], queue[-1]) == (expected[0], expected[-1])


def test_fails_where_deque_fails() -> None:
    queue: SlimQueue[int] = SlimQueue()
    with pytest.raises(IndexError):
        queue.popleft()
    with pytest.raises(IndexError):
        queue[0]
    with pytest.raises(IndexError):
        queue[0] = 1


def test_is_small_again_after_use() -> None:
    def use() -> SlimQueue[int]:
        queue: SlimQueue[int] = SlimQueue()
        queue.append(1)
        queue.popleft()
        return queue

    use()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        queues = [use() for _ in range(100)]
        each = (tracemalloc.get_traced_memory()[0] - before) / len(queues)
    finally:
        tracemalloc.stop()
    assert each < 100
