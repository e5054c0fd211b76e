"""A recording as plain output, for a pipe or unchanged: text in limited pieces, no pictures.

The functions yield parts, and read the recording as they go; ``PlainOutput`` joins parts to frames of a
limited size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from conchrec.errors import RecordingError
from conchrec.recording.format.asciicast import OUTPUT, Event
from conchrec.recording.playback.follow import POLL_SECONDS, CompleteRecording, Tail
from conchrec.recording.playback.frame import Frame
from conchrec.recording.playback.replay import split_output
from conchrec.recording.terminal.sanitize import SafeOutput
from conchrec.recording.terminal.transcript import Transcript

FRAME_COST = 32 * 1024
"""The characters that are read, or printed, for one frame; the last part may exceed it."""
PART_COST = 64
"""The cost of a part in addition to its characters: there are events that show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of output. ``wait`` is the number of seconds from ``text`` to the next part, and ``cost`` the
    characters that were read for it, where they are more than it has."""

    text: str = ""
    wait: float = 0.0
    cost: int = 0


class PlainOutput:
    """A Show of parts; it ignores keys and sizes. Where the parts fail, the output before that is shown."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = iter(parts)
        self._failure: RecordingError | OSError | None = None

    def advance(self, now: float, keys: str = "", size: tuple[int, int] | None = None) -> Frame:
        """Return the next frame."""
        if self._failure is not None:
            raise self._failure
        texts: list[str] = []
        left = FRAME_COST
        try:
            for part in self._parts:
                texts.append(part.text)
                left -= max(len(part.text), part.cost) + PART_COST
                if part.wait > 0 or left <= 0:
                    return Frame(text="".join(texts), wake=part.wait)
        except (RecordingError, OSError) as error:
            self._failure = error
            return Frame(text="".join(texts), wake=0.0)
        return Frame(text="".join(texts), over=True)


def output_parts(
    events: Iterable[Event], *, raw: bool = False, speed: float | None = None, idle: float | None = None
) -> Iterator[Part]:
    """Yield the output of the recorded terminal; where it is not ``raw``, without what does not draw.

    It comes at once; with a ``speed`` in its own time, in which no pause is longer than ``idle`` seconds.
    """
    show = _printer(raw)
    before = 0.0
    for event in split_output(events):
        wait = event.time - before if idle is None else min(event.time - before, idle)
        before = max(before, event.time)
        if speed is not None and wait > 0:
            yield Part(wait=wait / speed)
        yield Part(text=show(event), cost=len(event.text))


def followed_parts(tail: Tail | CompleteRecording, *, raw: bool = False) -> Iterator[Part]:
    """Yield the output of a recording that grows, until its end."""
    show = _printer(raw)
    while not tail.ended:
        events = tail.read()
        for event in split_output(events):
            yield Part(text=show(event), cost=len(event.text))
        if not events and not tail.ended:
            yield Part(wait=POLL_SECONDS)


def text_parts(events: Iterable[Event]) -> Iterator[Part]:
    """Yield the output as plain lines. Where the events fail, the last line is included."""
    transcript = Transcript()
    try:
        for event in split_output(events):
            text = transcript.feed(event.text) if event.code == OUTPUT else ""
            yield Part(text=text, cost=len(event.text))
    except (RecordingError, OSError):
        yield Part(text=transcript.end())
        raise
    yield Part(text=transcript.end())


def _printer(raw: bool) -> Callable[[Event], str]:
    """Return a function that returns what to print of each event, in their order."""
    safe = SafeOutput()

    def show(event: Event) -> str:
        if event.code != OUTPUT:
            return ""
        return event.text if raw else safe.feed(event.text)

    return show
