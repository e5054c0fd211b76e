"""Recordings that somebody plays, with keys that somebody types: only pictures are printed."""

from __future__ import annotations

import re

from conchrec.recording.format.asciicast import Event
from conchrec.recording.playback.outline import Outline
from conchrec.recording.playback.player import Player
from fuzz.limits import Broken
from fuzz.target import Each, Target

#: What a picture is made of: positions, colours, what erases, whether the cursor is seen; and letters.
_PICTURE = re.compile(
    r"\x1b\[(?:[0-9;:]*m|\d+;\d+H|\d+G|K|2J|\?25[hl])"
    r"|[^\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_TURNS = 12

CORPUS = (
    "q\n$ ls \x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07\x1b[6n\x1b[?1049h\x1b[2;5r\x1bM\x1b[3L",
    " .5]\x1b[C\n\x1b[10;10H日本\x1b[2@é\x1b[P\x1b[4h\x1b(0lqk\x1b7\x1b[?6h\x1b8\x1b#8\x1bc",
    "\x1b[H9+-0\n\x1b[38;5;9;48:2::1:2:3mx\x1b[3b\t\b\x1b[?7l\x1b[99X\x1b[1J\x1b[K\x1bPq\x1b\\",
)


def _play(data: bytes) -> None:
    """The first line is typed; the others are output, a second apart, and a resize."""
    typed, _, output = data.decode("utf-8", "surrogatepass").partition("\n")
    texts = output.split("\n")
    events = [Event(time=float(n), code="o", text=f"{text}\n") for n, text in enumerate(texts)]
    events.insert(1, Event(time=0.5, code="r", text=texts[0][:8]))
    about = Outline(
        columns=20, rows=6, newline=False, duration=float(len(texts)), markers=((0.5, output[:9]),)
    )
    player = Player(about, lambda: iter(events), size=(30, 8))
    printed, now = "", 0.0
    for turn in range(_TURNS):
        frame = player.advance(now, typed[turn : turn + 1])
        printed += frame.text
        if frame.over:
            break
        now += 1.0 if frame.wake else 0.0
    if rest := _PICTURE.sub("", printed + player.picture().replace("\n", "")):
        raise Broken(f"a terminal gets {rest[:40]!r}")


TARGET = Target(
    name="pictures",
    about="playback: playback/player.py, replay.py, terminal/screen.py, painter.py",
    corpus=lambda: [text.encode() for text in CORPUS],
    begin=lambda: Each(_play, (UnicodeDecodeError,)),
)
