"""Keys of a terminal: what is typed becomes ``q``, ``left``, ``page up``."""

from __future__ import annotations

import re

_KEY = re.compile("\x1b[\\[O]([0-9;]{0,8})([A-Za-z~])|([^\x1b])|\x1b(?:[\\[O][0-9;]{0,8})?")
_BEGINNING = re.compile("\x1b(?:[\\[O][0-9;]{0,8})?\\Z")
_NAMES = {
    "A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end", "1~": "home", "7~": "home",
    "4~": "end", "8~": "end", "5~": "page up", "6~": "page down",
}  # fmt: skip


class KeyDecoder:
    """Decodes what is typed at a terminal into keys: ``q``, ``left``, ``page up``. A sequence may come in
    parts."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, typed: str) -> list[str]:
        """Return the keys that these characters complete."""
        typed, self._held = self._held + typed, ""
        keys: list[str] = []
        if beginning := _BEGINNING.search(typed):
            typed, self._held = typed[: beginning.start()], beginning.group()
        for numbers, final, letter in _KEY.findall(typed):
            if letter:
                keys.append(letter)
            elif name := _NAMES.get(numbers + final if final == "~" else final):
                keys.append(name)
        return keys
