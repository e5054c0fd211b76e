"""Replaces the texts of reasons by their codes, so that a text can be reworded."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from conchrec.reasons import Reason, ReasonCode

_REST_OF_LINE = re.compile(r"(conchrec: )(?!<)[^\r\n]+")


class Codes:
    """All reasons that were made while ``watching``, and the constants of conchrec's modules."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        #: The codes that a text was replaced by.
        self.seen: set[str] = set()
        for name, module in tuple(sys.modules.items()):
            if name.partition(".")[0] == "conchrec":
                for value in vars(module).values():
                    if isinstance(value, Reason):
                        self._add(value.code, value)

    def _add(self, code: ReasonCode, text: str) -> None:
        if text:
            self._known[str(text)] = code.value

    @contextmanager
    def record_codes(self) -> Iterator[None]:
        """Note each reason that is made."""
        make = Reason.__new__

        def noted(kind: type[Reason], code: ReasonCode, text: str) -> Reason:
            self._add(code, text)
            return make(kind, code, text)

        with patch.object(Reason, "__new__", noted):
            yield

    def replace(self, text: str) -> str:
        """``text`` with each reason in it as ``<code>``; what is left of a line of ours is ``<text>``."""
        for known in sorted(self._known, key=lambda known: (-len(known), known)):
            if known in text:
                code = self._known[known]
                self.seen.add(code)
                text = text.replace(known, f"<{code}>")
        return _REST_OF_LINE.sub(r"\1<text>", text)
