"""SHA-256 of a stream in batches: correct with any timing of the threads, and in little memory."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.capture.stream_digest import BATCH, BATCHES, PIECE, REST, StreamDigest


class Threads:
    """Work that runs when the test calls it."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []

    def run(self, work: Callable[[], None]) -> None:
        self.work.append(work)

    def go(self) -> None:
        work, self.work = self.work, []
        for each in work:
            each()


STEPS = st.lists(
    st.sampled_from([0, 1, PIECE, 5000, REST, BATCH - 1, BATCH, 2 * BATCH + 1, "flush", "go"]), max_size=12
)


@given(STEPS)
def test_equals_digest_of_the_stream(steps: list[int | str]) -> None:
    threads = Threads()
    digest = StreamDigest(threads.run)
    everything = b""
    for number, step in enumerate(steps):
        if step == "flush":
            digest.flush()
        elif step == "go":
            threads.go()
        else:
            piece = bytes((number,)) * int(step)
            digest.update(piece)
            everything += piece
        assert digest.pending < BATCHES * BATCH
        assert len(threads.work) <= 1
    assert digest.size == len(everything)
    assert digest.hexdigest() == hashlib.sha256(everything).hexdigest()
    threads.go()
    assert digest.hexdigest() == hashlib.sha256(everything).hexdigest(), "late work changes nothing"


def test_hashes_batches_in_the_thread_and_small_rests_at_once() -> None:
    threads = Threads()
    digest = StreamDigest(threads.run)
    digest.update(bytes(PIECE))
    assert (digest.pending, threads.work) == (0, [])
    digest.update(bytes(REST))
    assert (digest.pending, threads.work) == (REST, [])
    digest.flush()
    assert (digest.pending, threads.work) == (0, [])
    digest.update(bytes(BATCH))
    assert (digest.pending, len(threads.work)) == (BATCH, 1)
    digest.update(b"x")
    digest.flush()
    assert (digest.pending, len(threads.work)) == (BATCH + 1, 1), "in the order of the stream"
    threads.go()
    digest.flush()
    assert digest.pending == 0


def test_holds_nothing_while_idle() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        threads = Threads()
        digest = StreamDigest(threads.run)
        for _ in range(5):
            digest.update(bytes(BATCH // 2))
            digest.flush()
            threads.go()
        digest.flush()
        assert tracemalloc.get_traced_memory()[0] - before < 10_000
    finally:
        tracemalloc.stop()


def test_hashes_correctly_with_a_real_thread() -> None:
    started: list[threading.Thread] = []

    def run(work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        started.append(thread)
        thread.start()

    digest = StreamDigest(run)
    expected = hashlib.sha256()
    for number in range(300):
        piece = bytes((number % 251,)) * 65536
        digest.update(piece)
        expected.update(piece)
    assert digest.hexdigest() == expected.hexdigest()
    for thread in started:
        thread.join()
    assert started
