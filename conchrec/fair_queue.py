"""A queue with a line for each name. Names take turns; within a line the first comes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items of any kind that can be hashed. Every operation but ``longest`` takes constant time, as long as
    few names are turned away by ``take``."""

    def __init__(self) -> None:
        #: In the order of turns; dicts, so that an item leaves its line without a search.
        self._lines: OrderedDict[str, dict[T, None]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        """Items of all names."""
        return self._size

    def count(self, name: str) -> int:
        """Items of one name."""
        return len(self._lines.get(name, ()))

    def add(self, name: str, item: T) -> None:
        """Put ``item``, which is not in the queue, at the end of the line of ``name``."""
        self._lines.setdefault(name, {})[item] = None
        self._size += 1

    def add_first(self, name: str, item: T) -> None:
        """Put ``item`` at the front of the line of ``name``, whose turn is the next one."""
        self._lines[name] = {item: None, **self._lines.get(name, {})}
        self._lines.move_to_end(name, last=False)
        self._size += 1

    def discard(self, name: str, item: T) -> None:
        """Take ``item`` out of the line, where it is in it."""
        line = self._lines.get(name)
        if line is None or item not in line:
            return
        del line[item]
        self._size -= 1
        if not line:
            del self._lines[name]

    def take(self, allowed: Callable[[str], bool] = lambda name: True) -> tuple[str, T] | None:
        """The first item of the first name that is allowed, and its name, which then comes last; None where
        there is none."""
        name = next(filter(allowed, self._lines), None)
        if name is None:
            return None
        item = next(iter(self._lines[name]))
        self.discard(name, item)
        if name in self._lines:
            self._lines.move_to_end(name)
        return name, item

    def longest(self) -> tuple[str, T]:
        """The name with the longest line, and the last item of it. Raises ValueError where there is none."""
        name = max(self._lines, key=lambda name: len(self._lines[name]))
        return name, next(reversed(self._lines[name]))
