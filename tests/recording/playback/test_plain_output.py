"""Plain output: limited frames, in their own time or at once, and the output before damage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.recording.format.asciicast import Damaged, Event, Header, event_line
from conchrec.recording.playback.follow import CompleteRecording
from conchrec.recording.playback.frame import Frame
from conchrec.recording.playback.plain_output import (
    FRAME_COST,
    PART_COST,
    Part,
    PlainOutput,
    followed_parts,
    output_parts,
    text_parts,
)
from conchrec.recording.playback.step_costs import PIECE
from conchrec.recording.terminal.sanitize import SafeOutput
from conchrec.recording.terminal.transcript import Transcript


def frames(parts: Iterable[Part]) -> Iterator[Frame]:
    """Return all frames; keys and sizes have no effect."""
    show = PlainOutput(parts)
    while True:
        frame = show.advance(0, "q", (1, 1))
        yield frame
        if frame.over:
            return
        assert frame.wake is not None


def printed(parts: Iterable[Part]) -> str:
    return "".join(frame.text for frame in frames(parts))


def output(*texts: str) -> list[Event]:
    """Events with these texts, two seconds apart."""
    return [Event(time=2.0 * number, code="o", text=text) for number, text in enumerate(texts, start=1)]


def damaged(events: Iterable[Event]) -> Iterator[Event]:
    yield from events
    raise Damaged("no event")


def test_prints_nothing_of_an_empty_recording() -> None:
    assert list(frames(output_parts([]))) == [Frame(text="", over=True)]


def test_bounds_frame_by_what_is_read_for_it() -> None:
    read: list[int] = []

    def parts() -> Iterator[Part]:
        for number in range(5000):
            read.append(number)
            yield Part(cost=100)

    counts = []
    for frame in frames(parts()):
        assert frame.text == ""
        counts.append(len(read))
        read.clear()
    assert len(counts) > 10
    assert max(counts) <= FRAME_COST // (100 + PART_COST) + 1


def test_splits_long_event_into_frames() -> None:
    text = "x" * (10 * FRAME_COST)
    shown = list(frames(output_parts(output(text))))
    assert "".join(frame.text for frame in shown) == text
    assert max(len(frame.text) for frame in shown) <= FRAME_COST + PIECE
    assert {frame.wake for frame in shown[:-1]} == {0.0}


@given(st.lists(st.text("ab\x1b[6nm]52;c?\x07\r\n\u65e5", max_size=3 * PIECE), max_size=4))
def test_prints_the_same_for_any_pieces(texts: list[str]) -> None:
    safe, transcript = SafeOutput(), Transcript()
    assert printed(output_parts(output(*texts))) == "".join(map(safe.feed, texts))
    assert printed(output_parts(output(*texts), raw=True)) == "".join(texts)
    lines = "".join(map(transcript.feed, texts)) + transcript.end()
    assert printed(text_parts(output(*texts))) == lines


@pytest.mark.parametrize(
    ("speed", "idle", "pauses"),
    [(1, None, [2, 2]), (2, None, [1, 1]), (1, 0.5, [0.5, 0.5]), (2, 1, [0.5, 0.5]), (None, None, [])],
)
def test_waits_like_the_recording(speed: float | None, idle: float | None, pauses: list[float]) -> None:
    shown = list(frames(output_parts(output("a", "b"), raw=True, speed=speed, idle=idle)))
    assert [frame.wake for frame in shown if frame.wake] == pauses
    assert [frame.text for frame in shown] == (["", "a", "b"] if pauses else ["ab"])


def test_prints_only_output() -> None:
    events = [*output("a"), Event(time=3, code="i", text="typed"), Event(time=3, code="m", text="marker")]
    assert printed(output_parts(events, raw=True)) == "a"
    assert printed(text_parts(events)) == "a\n"


@pytest.mark.parametrize(
    ("parts", "before"),
    [
        (output_parts(damaged(output("a", "b"))), "ab"),
        (text_parts(damaged(output("a", "b\x1b"))), "ab\n"),
        (output_parts(damaged(output("a")), speed=1), "a"),
    ],
)
def test_shows_output_before_damage(parts: Iterator[Part], before: str) -> None:
    shown: list[str] = []
    with pytest.raises(Damaged, match="no event"):
        shown.extend(frame.text for frame in frames(parts))
    assert "".join(shown) == before


def test_follows_until_the_end() -> None:
    lines = [Header().line(), *(event_line(1, "o", f"line {n}\n") for n in range(3))]
    assert printed(followed_parts(CompleteRecording(iter(lines)))) == "line 0\nline 1\nline 2\n"
