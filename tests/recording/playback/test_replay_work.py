"""Playing costs a limited amount for each byte, and each call of a viewer is short, for any recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.recording.catalogue.library import LONGEST_LINE, LibraryEntry, complete_lines, events
from conchrec.recording.format.asciicast import Damaged, Event, Header, event_line
from conchrec.recording.playback.follow import Follower, Tail
from conchrec.recording.playback.frame import Frame
from conchrec.recording.playback.outline import MOST_MARKERS, Outline, OutlineReader
from conchrec.recording.playback.player import Player
from conchrec.recording.playback.step_costs import PIECE, STEP
from conchrec.recording.storage.encodings import ZstdFrames
from conchrec.recording.terminal.painter import MOST, Painter
from conchrec.recording.terminal.screen import LARGEST_CELLS, SEQUENCE, Screen
from conchrec.recording.terminal.screen_line import ScreenLine
from tests.support.work import counted

SID = "0" * 26
#: Lines of code, and cells, for each character on a screen of 1,000 columns.
LINES, CELLS = 110, 4000

HOSTILE = [
    "\x1b[2J", "\x1b[1J", "\x1b[J", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b#8", "\x1bc", "\x1b[999b",
    "\x1b[999L",
    "\x1b[M", "\x1b[999S", "\x1b[T", "\x1b[999@", "\x1b[P", "\x1b[999X", "\x1b[9999;9999H", "\x1b[?1049h",
    "\x1b[?1049l", "\x1b7", "\x1b8", "\x1b[4h", "\x1b[7l", "\x1bM", "\x1bD", "\n", "\t", "x", "你", "e\u0301",
    "\x1b[1;31;48;5;200m", "\x1b[38:2:" + ":".join(["255"] * 60) + "m", "\x1b[3;7r", "\x1b[!p", "\x1b[1;2;3",
    "\x1b]0;", "\x07", "\x0e",
]  # fmt: skip


class Cells:
    """Counts the cells of the rows that are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        filled, copied, resized = ScreenLine.filled, ScreenLine.copy, ScreenLine.resized

        def watch(line: ScreenLine) -> ScreenLine:
            self.count += len(line.letters)
            return line

        monkeypatch.setattr(ScreenLine, "filled", lambda *args, **more: watch(filled(*args, **more)))
        monkeypatch.setattr(ScreenLine, "copy", lambda line, owner: watch(copied(line, owner)))
        monkeypatch.setattr(ScreenLine, "resized", lambda line, columns: watch(resized(line, columns)))


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("size", [(1000, 1000), (1, 1000), (80, 24)])
def test_limits_work_for_repeated_sequences(
    text: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(*size)
    cells = Cells(monkeypatch)
    flood = text * 300
    with counted() as done:
        screen.feed(flood)
    assert done.lines <= LINES * len(flood) + 1000
    assert cells.count <= CELLS * len(flood) + LARGEST_CELLS
    # What is counted is what was done: a turn of a viewer is measured by it.
    assert done.lines <= 30 * (screen.work + len(flood)) + 1000


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(HOSTILE), st.integers(1, 40)), max_size=30))
def test_limits_work_for_any_output(pieces: list[tuple[str, int]]) -> None:
    text = "".join(piece * count for piece, count in pieces)
    screen = Screen(1000, 1000)
    with pytest.MonkeyPatch.context() as monkeypatch, counted() as done:
        cells = Cells(monkeypatch)
        screen.feed(text)
    assert done.lines <= LINES * len(text) + 1000
    assert cells.count <= CELLS * len(text) + LARGEST_CELLS
    assert screen.work <= (SEQUENCE + 1) * 20 * len(text)  # ESC c is replaced by some sequences


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(HOSTILE), max_size=60), st.lists(st.sampled_from(HOSTILE), max_size=20))
def test_copies_independent_screen(before: list[str], after: list[str]) -> None:
    """Rows are shared until they are written to."""

    def looks(screen: Screen) -> list[tuple[list[str], list[str]]]:
        return [(line.letters.copy(), line.styles.copy()) for line in screen.lines]

    screen, same = Screen(12, 6), Screen(12, 6)
    screen.feed("".join(before))
    same.feed("".join(before))
    copied = screen.copy()
    was = looks(copied)
    screen.feed("".join(after))
    assert looks(copied) == was
    same.feed("".join(after))
    copied.feed("".join(after))
    assert looks(screen) == looks(copied) == looks(same)


def test_limits_size_of_the_screen() -> None:
    assert Screen(1000, 1000).rows * 1000 == LARGEST_CELLS
    screen = Screen(80, 24)
    screen.resize(9999, 9999)
    assert screen.columns * screen.rows <= LARGEST_CELLS
    screen.feed("\x1b[999;1Hlast")
    assert "".join(screen.lines[-1].letters).startswith("last")


def colourful(screen: Screen) -> None:
    """Each cell has another style than the one before."""
    for row in range(1, screen.rows + 1):
        cells = (f"\x1b[38;2;{row % 256};{at % 256};7;48;5;{at % 256}mx" for at in range(screen.columns))
        screen.feed(f"\x1b[{row}H{''.join(cells)}")


def test_splits_picture_of_megabytes_into_frames() -> None:
    screen = Screen(400, 120)
    colourful(screen)
    painter, frames = Painter(400, 121), [""]
    while painter.behind or len(frames) == 1:
        frames.append(painter.paint(screen, "progress"))
        assert len(frames[-1]) < MOST + 64 * 400
    assert len(frames) > 10
    terminal = Screen(400, 121)
    terminal.feed("".join(frames))
    assert [line.letters for line in terminal.lines[:120]] == [line.letters for line in screen.lines]
    assert [line.styles for line in terminal.lines[:120]] == [line.styles for line in screen.lines]
    assert painter.paint(screen, "progress").count("H") == 1  # only the position of the cursor is left


def test_paints_rows_below_one_that_always_changes() -> None:
    screen = Screen(400, 120)
    colourful(screen)
    painter, terminal = Painter(400, 120), Screen(400, 120)
    for turn in range(60):
        screen.feed(f"\x1b[H\x1b[m{turn}")
        terminal.feed(painter.paint(screen))
    assert terminal.lines[-1].styles == screen.lines[-1].styles


# --- calls of a viewer


def clears(count: int) -> list[Event]:
    text = "\x1b[2J\x1b[H\x1b[999bx" * 800
    return [Event(time=0.0, code="o", text=text) for _ in range(count)]


def turns(show: Player | Follower) -> Iterator[tuple[Frame, int, int]]:
    """Yield each frame, with the work on the screen and the lines of code for it."""
    now = 0.0
    while True:
        screen = show.screen
        before = screen.work if screen is not None else 0
        with counted() as done:
            frame = show.advance(now)
        after = show.screen
        yield frame, (after.work if after is not None else 0) - before, done.lines
        if frame.over:
            return
        now += frame.wake or 0.001


BOUND = STEP + 8 * PIECE + 1000


def test_plays_hostile_recording_in_short_steps() -> None:
    about = Outline(columns=1000, rows=1000, newline=False, duration=1.0)
    player = Player(about, lambda: iter(clears(3)), size=(1000, 1000))
    count = 0
    for frame, work, lines in turns(player):
        count += 1
        assert work <= BOUND
        assert lines <= 10 * BOUND + 100 * MOST // 80
        assert len(frame.text) < MOST + 4000
    assert count > 3


def test_seeks_hostile_recording_in_short_steps() -> None:
    recorded = [*clears(2), Event(time=50.0, code="o", text="end")]
    about = Outline(columns=1000, rows=1000, newline=False, duration=50.0)
    player = Player(about, lambda: iter(recorded), size=(1000, 1000))
    for key in ("\x1b[F", "\x1b[H", "9"):
        player.advance(0.0, key)
        for _ in range(1000):
            before = player.screen.work
            with counted() as done:
                frame = player.advance(0.0)
            assert player.screen.work - before <= BOUND
            assert done.lines <= 10 * BOUND + 100 * MOST // 80
            if frame.wake != 0.0:
                break


def test_follows_hostile_recording_in_short_steps(tmp_path: Path) -> None:
    path = tmp_path / f"{SID}.cast"
    header = Header(width=1000, height=1000).line()
    path.write_bytes(header + b"".join(event_line(0.0, "o", event.text) for event in clears(3)))
    path.with_name(f"{SID}.json").write_bytes(b"{}")
    follower = Follower(Tail(LibraryEntry(sid=SID, path=path)), size=(1000, 1000))
    assert all(work <= BOUND for _, work, _ in turns(follower))


def test_reads_many_markers_in_short_steps() -> None:
    count = 3 * MOST_MARKERS
    lines = [Header().line(), *(event_line(n / 100, "m", f"command {n}") for n in range(count))]
    reader, steps = OutlineReader(lines), 1
    while (about := reader.read()) is None:
        steps += 1
    assert steps > 3
    assert len(about.markers) == MOST_MARKERS
    recorded = [Event(time=n / 100, code="m", text="") for n in range(count)]
    player = Player(about, lambda: iter(recorded), size=(80, 30))
    player.advance(0.0)
    player.advance(100.0, " ")
    with counted() as done:
        player.advance(100.1, "]")
        player.advance(100.2, "[")
    assert done.lines < 20_000


def test_reads_compressed_output_in_bounded_pieces(tmp_path: Path) -> None:
    """64 kB of a compressed recording can be gigabytes of output."""
    packer = ZstdFrames()
    line = event_line(0.0, "o", " " * 100_000)
    path = tmp_path / f"{SID}.cast.zst"
    path.write_bytes(packer.compress([Header().line(), line * 600]) + packer.cut())
    path.with_name(f"{SID}.json").write_bytes(b"{}")
    assert path.stat().st_size < 64 * 1024
    tail, count = Tail(LibraryEntry(sid=SID, path=path)), 0
    while not tail.ended:
        events = tail.read()
        count += len(events)
        assert sum(len(event.text) for event in events) < 4 * 1024 * 1024
    assert count == 600


def test_reads_no_long_line_into_memory(tmp_path: Path) -> None:
    path = tmp_path / f"{SID}.cast"
    path.write_bytes(Header().line() + event_line(0.0, "o", "x") + b"[" + b" " * 2 * LONGEST_LINE + b"\n")
    read: list[Event] = []
    with pytest.raises(Damaged, match="too long"):
        read.extend(events(path))
    with pytest.raises(Damaged, match="too long"):
        list(complete_lines(path))
    tail = Tail(LibraryEntry(sid=SID, path=path))
    with pytest.raises(Damaged, match="too long"):
        all(tail.read() or True for _ in range(1000))
