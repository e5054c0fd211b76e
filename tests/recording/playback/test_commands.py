"""What play, text and follow show of a recording, while it is written and afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from conchrec.errors import RecordingError
from conchrec.recording.capture.recorder import SessionRecorder
from conchrec.recording.catalogue.library import Library
from conchrec.recording.format.asciicast import Header, event_line
from conchrec.recording.playback.commands import Opening, RecordingSource, follow, play, play_raw, text
from conchrec.recording.playback.follow import POLL_SECONDS
from conchrec.recording.playback.frame import PictureShow, Show
from conchrec.recording.playback.plain_output import PlainOutput
from tests.recording.recording_bench import Bench

SIZE = (40, 10)


def source(recorder: SessionRecorder, bench: Bench) -> RecordingSource:
    entry = Library(bench.directory).find(recorder.info.sid)
    assert entry is not None
    return RecordingSource(entry)


def opened(opening: Opening) -> tuple[PictureShow | PlainOutput, int]:
    """Return the show, and the number of steps to it."""
    steps = 1
    while (show := next(opening)) is None:
        steps += 1
    assert next(opening, "the end") == "the end"
    return show, steps


def shown(show: Show) -> list[str]:
    """Return the text of each frame up to the end."""
    frames = [show.advance(0)]
    while not frames[-1].over:
        frames.append(show.advance(1000.0 * len(frames)))
    return [frame.text for frame in frames]


def recorded(bench: Bench) -> SessionRecorder:
    """A recording that is open; two pieces of output, a second apart, which together query the terminal."""
    recorder = bench.recorder()
    recorder.start("shell")
    recorder.output(b"on\x1b[6")
    bench.clock.advance(1)
    recorder.output(b"ne\r\n")
    recorder.flush()
    return recorder


@pytest.mark.parametrize("ended", [False, True])
def test_prints_plain_output_without_a_terminal(bench: Bench, ended: bool) -> None:
    recorder = recorded(bench)
    if ended:
        bench.close(recorder)
    show, steps = opened(play(source(recorder, bench), size=None))
    assert isinstance(show, PlainOutput) and steps == 1
    assert shown(show) == ["one\r\n"]
    assert "".join(shown(text(source(recorder, bench)))) == "one\n"
    assert shown(play_raw(source(recorder, bench), speed=None, idle=None)) == ["on\x1b[6ne\r\n"]


def test_paints_pictures_on_a_terminal(bench: Bench) -> None:
    recorder = recorded(bench)
    bench.close(recorder)
    for opening in (play(source(recorder, bench), size=SIZE), follow(source(recorder, bench), size=SIZE)):
        show, _ = opened(opening)
        assert not isinstance(show, PlainOutput)
        assert "one" in "".join(shown(show))
        assert (show.picture(), show.problem) == ("one\x1b[K\n", "")


@pytest.mark.parametrize("raw", [False, True])
def test_follows_growing_recording(bench: Bench, raw: bool) -> None:
    recorder = recorded(bench)
    show, _ = opened(follow(source(recorder, bench), size=None, raw=raw))
    frame = show.advance(0)
    assert (frame.text, frame.wake, frame.over) == (
        "on\x1b[6ne\r\n" if raw else "one\r\n",
        POLL_SECONDS,
        False,
    )
    assert show.advance(1).text == ""
    recorder.output(b"two")
    bench.close(recorder)
    assert shown(show) == ["two"]


def test_opens_long_recording_in_steps(bench: Bench) -> None:
    recorder = recorded(bench)
    path = Path(bench.close(recorder).path)
    path.write_bytes(Header().line() + event_line(1, "o", "x" * 1000) * 2000)
    show, steps = opened(play(source(recorder, bench), size=SIZE))
    assert not isinstance(show, PlainOutput) and steps > 3


def test_raises_before_the_header(bench: Bench) -> None:
    recorder = bench.recorder()
    with pytest.raises(RecordingError, match="the recording is still empty"):
        next(play(source(recorder, bench), size=SIZE))
    assert shown(opened(play(source(recorder, bench), size=None))[0]) == [""]
    bench.close(recorder)


def test_names_what_it_cannot_read(bench: Bench) -> None:
    recorder = recorded(bench)
    path = Path(bench.close(recorder).path)
    path.write_bytes(path.read_bytes() + b"\0\n")
    show, _ = opened(play(source(recorder, bench), size=SIZE))
    assert not isinstance(show, PlainOutput)
    shown(show)
    assert (show.picture(), show.problem) == ("one\x1b[K\n", "the recording is damaged: a line is not JSON")
