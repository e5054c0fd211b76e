"""The player as a value: keys and times in, pictures out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conchrec.errors import RecordingError
from conchrec.recording.format.asciicast import Damaged, Event, Header, event_line
from conchrec.recording.playback.frame import Frame
from conchrec.recording.playback.key_decoder import KeyDecoder
from conchrec.recording.playback.outline import Outline, OutlineReader
from conchrec.recording.playback.player import SHOWN_SECONDS, Player
from conchrec.recording.terminal.painter import LEAVE
from conchrec.recording.terminal.screen import Screen
from tests.recording.terminal.test_sanitize import ASKS, DRAWS

COLUMNS, ROWS = 20, 5
LONG = 100


def events(count: int = 10) -> list[Event]:
    """Line N comes N seconds after the beginning."""
    return [Event(time=float(n), code="o", text=f"line {n}\r\n") for n in range(1, count + 1)]


def outline(lines: Iterable[bytes]) -> Outline:
    """Do all steps of an OutlineReader."""
    reader = OutlineReader(lines)
    while (about := reader.read()) is None:
        pass
    return about


def about(recorded: list[Event]) -> Outline:
    header = Header(width=COLUMNS, height=ROWS, env={"TERM": "xterm"}).line()
    return outline([header, *(event_line(event.time, event.code, event.text) for event in recorded)])


class Watched:
    """A player on a terminal that shows what it paints, and a clock."""

    def __init__(
        self,
        recorded: list[Event],
        *,
        speed: float = 1,
        idle: float | None = None,
        size: tuple[int, int] = (90, ROWS + 2),
    ) -> None:
        self.player = Player(about(recorded), lambda: iter(recorded), speed=speed, idle=idle, size=size)
        self.now = 1000.0
        self.size = size
        self.printed = ""
        self._terminal = Screen(*size)
        self.frame = self.turn()

    def turn(self, keys: str = "") -> Frame:
        self.frame = self.player.advance(self.now, keys)
        self.printed += self.frame.text
        self._terminal.feed(self.frame.text)
        self._wake = None if self.frame.wake is None else self.now + self.frame.wake
        return self.frame

    def keys(self, keys: str) -> None:
        """Press keys, and show what follows from them at once."""
        self.turn(keys)
        while self.frame.wake == 0:
            self.turn()

    def after(self, seconds: float) -> None:
        """Time passes, and the player is called as often as it wants."""
        end = self.now + seconds
        while not self.frame.over and self._wake is not None and self._wake <= end:
            self.now = max(self._wake, self.now)
            self.turn()
        self.now = end

    @property
    def shown(self) -> list[str]:
        return ["".join(line.letters).rstrip() for line in self._terminal.lines]

    @property
    def last(self) -> str:
        """The last line on the screen."""
        return next((line for line in reversed(self.shown[:ROWS]) if line), "")

    @property
    def progress(self) -> str:
        return self.shown[-1]


def test_plays_in_its_own_time() -> None:
    watched = Watched(events())
    assert watched.last == ""
    watched.after(3.5)
    assert watched.shown[:3] == ["line 1", "line 2", "line 3"]
    assert watched.progress.startswith(" playing  0:03 / 0:10  1x  [")
    watched.after(7)
    assert watched.frame.over
    assert watched.player.picture() == "".join(f"line {n}\x1b[K\n" for n in range(7, 11))


@pytest.mark.parametrize(
    ("speed", "idle", "takes"), [(1, None, 10), (2, None, 5), (1, 0.5, 5), (2, 0.25, 1.25)]
)
def test_applies_speed_and_idle(speed: float, idle: float | None, takes: float) -> None:
    watched = Watched(events(), speed=speed, idle=idle)
    began = watched.now
    while not watched.frame.over:
        assert watched.frame.wake is not None and watched.frame.wake <= 0.5
        watched.now += watched.frame.wake
        watched.turn()
    assert watched.now - began == pytest.approx(takes, abs=0.05)


def test_pauses_and_steps() -> None:
    watched = Watched(events())
    watched.after(1.5)
    watched.keys(" ")
    assert watched.frame.wake is None and watched.progress.startswith(" paused  0:01")
    watched.after(LONG)
    assert watched.last == "line 1"
    watched.keys(".")
    assert watched.last == "line 2" and watched.progress.startswith(" paused  0:02")
    watched.keys("..")
    assert watched.last == "line 3", "what is typed while it steps is the same step"
    watched.keys(" ")
    watched.after(1.1)
    assert watched.last == "line 4"
    watched.keys(".")
    assert watched.last == "line 5" and watched.progress.startswith(" paused")


def test_continues_where_it_was_paused() -> None:
    watched = Watched(events())
    watched.after(1.75)
    watched.keys(" ")
    watched.after(LONG)
    watched.keys(" ")
    watched.after(0.2)
    assert watched.last == "line 1"
    watched.after(0.2)
    assert watched.last == "line 2"


@pytest.mark.parametrize(
    ("keys", "there"),
    [
        ("\x1b[C", "line 35"), ("\x1b[D", "line 25"), ("\x1bOC", "line 35"), ("\x1b[6~", "line 90"),
        ("\x1b[5~", ""),
        ("\x1b[F", "line 100"), ("\x1b[H", ""), ("0", ""), ("5", "line 50"), ("9", "line 90"),
        ("\x1b[C" * 3, "line 45"),
        ("\x1b[1~", ""), ("\x1b[4~", "line 100"), ("\x1b[1;5C", "line 35"), ("\x1b[C\x1b[D", "line 30"),
        ("x\x1b[Z\x1b", "line 30"),
    ],
)  # fmt: skip
def test_seeks(keys: str, there: str) -> None:
    watched = Watched(events(100), idle=0.25)
    watched.keys(" 3")
    assert watched.last == "line 30"
    watched.keys(keys)
    assert watched.last == there
    assert watched.shown[:ROWS] == Watched(events(100)).shown[:ROWS] if not there else True


def test_plays_on_after_a_jump() -> None:
    watched = Watched(events())
    watched.keys("5")
    assert watched.last == "line 5"
    watched.after(1.1)
    assert watched.last == "line 6"
    watched.keys("\x1b[D")
    assert watched.last == "line 1"


def test_stays_open_after_a_jump_to_the_end() -> None:
    watched = Watched(events())
    watched.keys("\x1b[F")
    assert not watched.frame.over and watched.frame.wake is None
    assert watched.progress.startswith(" paused  0:10 / 0:10")
    watched.keys(" ")
    assert watched.last == "" and watched.progress.startswith(" playing  0:00")
    watched.keys("q")
    assert watched.frame.over


@pytest.mark.parametrize("key", ["q", "Q", "\x03", "\x04"])
def test_quits(key: str) -> None:
    watched = Watched(events())
    assert watched.turn(key).over


def test_shows_and_jumps_to_markers() -> None:
    recorded = events()
    recorded[2:2] = [Event(time=2.5, code="m", text="one")]
    recorded[7:7] = [Event(time=6.5, code="m", text="two\x1b[2J\u65e5")]
    watched = Watched(recorded)
    assert watched.progress.endswith("marker 0/2")
    watched.keys(" ]")
    assert watched.last == "line 2" and watched.progress.endswith("marker 1/2 one")
    watched.keys("]")
    assert watched.last == "line 6" and watched.progress.endswith("marker 2/2 two\\x1b[2J?")
    watched.keys("]")
    assert watched.last == "line 6", "there is no other"
    watched.keys("[")
    assert watched.last == "line 2"
    watched.keys("[")
    assert watched.last == ""


def test_changes_speed() -> None:
    watched = Watched(events(100))
    watched.keys("++")
    watched.after(1.1)
    assert watched.last == "line 4" and "  4x  " in watched.progress
    watched.keys("-" * 40)
    assert "  0.0625x  " in watched.progress
    watched.keys("+" * 40)
    assert "  64x  " in watched.progress


def test_shows_progress_for_some_seconds_without_a_free_row() -> None:
    watched = Watched(events(100), size=(60, ROWS))
    assert watched.progress == ""
    watched.keys("5")
    assert watched.progress.startswith(" playing  0:50")
    watched.after(SHOWN_SECONDS + 1)
    assert watched.shown == [*(f"line {n}" for n in range(51, 55)), ""]
    watched.keys(" ")
    watched.after(LONG)
    assert watched.progress.startswith(" paused")


def test_reports_recording_larger_than_the_terminal() -> None:
    watched = Watched(events(), size=(100, 3))
    assert watched.progress.endswith("20x5 is too large")
    watched.after(9.5)
    assert watched.shown == ["line 8", "line 9", ""], "the rows around the cursor"


def test_follows_size_of_the_recorded_terminal() -> None:
    recorded = [*events(3), Event(time=3.5, code="r", text="8x3"), Event(time=4, code="o", text="123456789")]
    watched = Watched(recorded)
    watched.keys(" \x1b[F")
    assert watched.shown[:4] == ["line 3", "12345678", "9", ""]


def test_follows_size_of_the_terminal() -> None:
    watched = Watched(events())
    watched.keys(" 5")
    frame = watched.player.advance(watched.now, size=(10, 4))
    terminal = Screen(10, 4)
    terminal.feed(frame.text)
    assert ["".join(line.letters).rstrip() for line in terminal.lines[:3]] == ["line 3", "line 4", "line 5"]


def test_ends_at_damage() -> None:
    def broken() -> Iterator[Event]:
        yield from events(2)
        raise Damaged("no event")

    player = Player(about(events()), broken)
    assert player.advance(0).over is False
    assert player.advance(5).over is True
    assert player.problem == "no event"


def test_reads_outline() -> None:
    recorded = [*events(2), Event(time=2.5, code="m", text="x"), Event(time=3, code="c", text="point")]
    header = Header(width=99, height=33).line()
    body = [event_line(event.time, event.code, event.text) for event in recorded]
    result = outline([header, *body])
    assert result == Outline(columns=99, rows=33, newline=True, duration=3.0, markers=((2.5, "x"),))
    assert outline([header, *body[:2], b"nonsense\n", *body[2:]]).duration == 2.0
    with pytest.raises(RecordingError, match="the recording is still empty"):
        outline([])
    with pytest.raises(RecordingError):
        outline([b"{}\n"])


def test_seeks_long_recording_in_short_steps() -> None:
    """No call reads much, and a jump back starts at a near snapshot."""
    recorded = [Event(time=n / 100, code="o", text=f"{n:06}" + "x" * 1000 + "\r\n") for n in range(5000)]
    begun: list[int] = []

    def again() -> Iterator[Event]:
        for number, event in enumerate(recorded):
            begun.append(number)
            yield event

    player = Player(about(recorded), again, size=(60, 10))
    turns = 0
    frame = player.advance(0, "\x1b[F ")
    while frame.wake == 0:
        begun.clear()
        frame = player.advance(0)
        assert len(begun) < 150
        turns += 1
    assert turns > 20
    fed = 0
    feed = Screen.feed

    def counted(screen: Screen, text: str) -> None:
        nonlocal fed
        fed += len(text)
        feed(screen, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Screen, "feed", counted)
        frame = player.advance(0, "9")
        while frame.wake == 0:
            frame = player.advance(0)
    assert fed < 1024 * 1024 + 2000
    assert player.picture().startswith("x")


@given(st.text("\x1b[]OABCDHF~56;1 .q+-0", max_size=30), st.integers(1, 5))
def test_decodes_keys_in_any_pieces(typed: str, size: int) -> None:
    whole, pieces = KeyDecoder(), KeyDecoder()
    keys = [key for at in range(0, len(typed), size) for key in pieces.feed(typed[at : at + size])]
    assert keys == whole.feed(typed)


hostile = st.lists(
    st.sampled_from(ASKS + DRAWS) | st.text("\x1b[]?;>c6nPq\\\x07\x9b$日\u202e", max_size=9), max_size=9
)
PRINTED = re.compile(
    r"[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
    r"|\x1b\[(?:[0-9;:]*m|\d+;\d+H|\d+G|K|2J|\?25[hl])"
)


@given(hostile, st.lists(st.sampled_from([" ", ".", "\x1b[C", "\x1b[D", "5", "0", "]", "+", ""]), max_size=6))
def test_prints_only_pictures(texts: list[str], typed: list[str]) -> None:
    recorded = [Event(time=n / 10, code="om"[n % 5 == 4], text=text) for n, text in enumerate(texts)]
    watched = Watched(recorded)
    for keys in typed:
        watched.keys(keys)
        watched.after(0.3)
    watched.after(LONG)
    assert PRINTED.sub("", watched.printed + watched.player.picture().replace("\n", "")) == ""


def test_restores_the_terminal() -> None:
    for mode in ("?7h", "?25h", "?1049l", "m"):
        assert f"\x1b[{mode}" in LEAVE
