"""How much work some code does, counted and not timed: the same on every machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import conchrec

_ROOT = str(Path(conchrec.__file__).parent)


class Work:
    """``lines``: lines of conchrec's Python code that were executed. ``letters``: what went into, or came out
    of, the calls that are watched."""

    def __init__(self) -> None:
        self.lines = 0
        self.letters = 0

    @property
    def total(self) -> int:
        """Return lines and letters together."""
        return self.lines + self.letters


@contextmanager
def counted() -> Iterator[Work]:
    """Counts lines while it lasts, on this thread."""
    work, before = Work(), sys.gettrace()

    def local(frame: FrameType, event: str, _: Any) -> Any:
        work.lines += event == "line"
        return local

    def called(frame: FrameType, event: str, _: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(_ROOT) else None

    sys.settrace(called)
    try:
        yield work
    finally:
        sys.settrace(before)


def watched(work: Work, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, with the letters of its text arguments and of its text result counted."""

    def count_letters(*args: Any) -> Any:
        result = function(*args)
        for value in (*args[1:], result):
            work.letters += len(value) if isinstance(value, (str, bytes)) else 0
        return result

    return count_letters
