"""What a fuzzer is, to the harness that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Session(Protocol):
    """What some inputs go to, one after the other. Whatever these raise has been found."""

    def feed(self, data: bytes) -> bool:
        """Take one input; False where nothing more can come of this session."""

    def end(self) -> None:
        """No more inputs: check what has to hold now, and let go of everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """``corpus`` makes the valid inputs that are mutated, the same ones each time. Where ``packed`` an input
    is a sequence of messages (``sequence``), else bytes. ``begin`` makes a session for up to ``length``
    inputs; more than one only where ``packed``, for then the inputs of a session make one input."""

    name: str
    about: str
    corpus: Callable[[], Sequence[bytes]]
    begin: Callable[[], Session]
    packed: bool = False
    length: int = 1


class Each:
    """A session of a function alone, which may raise ``refusals`` and nothing else."""

    def __init__(
        self, function: Callable[[bytes], object], refusals: tuple[type[Exception], ...] = ()
    ) -> None:
        self._function = function
        self._refusals = refusals

    def feed(self, data: bytes) -> bool:
        """Give one input; return whether the session goes on."""
        try:
            self._function(data)
        except self._refusals:
            pass
        return True

    def end(self) -> None:
        """Nothing is kept."""


def chosen(functions: Sequence[Callable[[bytes], object]]) -> Callable[[bytes], None]:
    """One function of them all: the first byte says which one gets the rest."""

    def choose(data: bytes) -> None:
        if data:
            functions[data[0] % len(functions)](data[1:])

    return choose
