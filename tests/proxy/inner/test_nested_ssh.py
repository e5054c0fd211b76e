"""Detection of SSH inside a forward, for each way to split its first bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.proxy.inner.nested_ssh import SEARCHED_BYTES, SshDetector

STARTS = [
    b"SSH-2.0-OpenSSH_9.2\r\n", b"SSH-1.99-x\n", b"SSH-1.5-x\n",
    b"Welcome.\r\nSSH-2.0-x\r\n", b"\nSSH-2.0-x\r\n",
]  # fmt: skip


@given(start=st.sampled_from(STARTS), cuts=st.lists(st.integers(0, 40)))
def test_detects_identification_once(start: bytes, cuts: list[int]) -> None:
    positions = sorted({min(cut, len(start)) for cut in cuts} | {0, len(start)})
    detector, passed, results = SshDetector(), b"", []
    for begin, end in pairwise(positions):
        results.append(detector.feed(start[begin:end]))
        if not results[-1] and True not in results:
            passed += start[begin:end]
    assert results.count(True) == 1
    assert b"SSH-2" not in passed and b"SSH-1" not in passed
    assert not detector.feed(b"\nSSH-2.0-again\r\n")


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\n", b"ssh-2.0", b"xSSH-2.0-x", b"SSH-3.0", b"SSH 2.0", b""]
)
def test_ignores_other_protocols(start: bytes) -> None:
    assert not SshDetector().feed(start)


def test_stops_after_searched_bytes() -> None:
    detector = SshDetector()
    for _ in range(SEARCHED_BYTES):
        assert not detector.feed(b"x")
    assert not detector.feed(b"\nSSH-2.0-x\r\n")


def test_ignores_identification_after_searched_bytes() -> None:
    detector = SshDetector()
    assert not detector.feed(b"x" * (SEARCHED_BYTES * 4) + b"\nSSH-2.0-x\r\n")
