"""A queue that serves names in turn, and the items of each name in order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A fair queue of hashable items.

    Every operation but ``longest`` takes constant time, if ``take`` allows most names.
    """

    def __init__(self) -> None:
        #: In the order of turns. Dicts, so that an item can be removed without a search.
        self._lines: OrderedDict[str, dict[T, None]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        """The number of items of all names."""
        return self._size

    @property
    def name_count(self) -> int:
        """The number of names that have items."""
        return len(self._lines)

    def count(self, name: str) -> int:
        """The number of items of one name."""
        return len(self._lines.get(name, ()))

    def add(self, name: str, item: T) -> None:
        """Add ``item``, which is not in the queue, as the last one of ``name``."""
        self._lines.setdefault(name, {})[item] = None
        self._size += 1

    def add_first(self, name: str, item: T) -> None:
        """Add ``item`` as the first one of ``name``, whose turn is the next one."""
        self._lines[name] = {item: None, **self._lines.get(name, {})}
        self._lines.move_to_end(name, last=False)
        self._size += 1

    def discard(self, name: str, item: T) -> None:
        """Remove ``item``, if it is in the queue."""
        line = self._lines.get(name)
        if line is None or item not in line:
            return
        del line[item]
        self._size -= 1
        if not line:
            del self._lines[name]

    def take(self, allowed: Callable[[str], bool] = lambda name: True) -> tuple[str, T] | None:
        """Remove the first item of the next allowed name, and return the name and the item.

        The name then has the last turn. Returns None if there is no allowed name.
        """
        name = next(filter(allowed, self._lines), None)
        if name is None:
            return None
        item = next(iter(self._lines[name]))
        self.discard(name, item)
        if name in self._lines:
            self._lines.move_to_end(name)
        return name, item

    def longest(self) -> tuple[str, T]:
        """The name with the most items, and its last item. Raises ValueError for an empty queue."""
        name = max(self._lines, key=lambda name: len(self._lines[name]))
        return name, next(reversed(self._lines[name]))
