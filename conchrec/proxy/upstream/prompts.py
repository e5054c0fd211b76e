"""What the target asks of a person (passwords, codes), on its way to the inner login and back.

The question waits here until the user's client holds the conversation; the answer goes straight to the
target. Neither is written, logged or kept.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from conchrec.ssh.userauth import Challenge


class Questions:
    """At most one question is open. ``asked`` is called when there is one."""

    def __init__(self, asked: Callable[[], object]) -> None:
        self._asked = asked
        self._answer: Deferred[tuple[str, ...]] | None = None
        self.open: Challenge | None = None
        #: Somebody was asked at all.
        self.any = False

    def ask(self, challenge: Challenge) -> Deferred[tuple[str, ...]]:
        """Fires with the answers. Cancelled, it is no longer asked."""
        answer: Deferred[tuple[str, ...]] = Deferred(lambda _: self._withdrawn())
        self._answer, self.open, self.any = answer, challenge, True
        self._asked()
        return answer

    def _withdrawn(self) -> None:
        self._answer = self.open = None

    def answer(self, challenge: Challenge, answers: tuple[str, ...]) -> None:
        """Answers to a question that is not open any more reach nobody."""
        if self._answer is not None and self.open is challenge:
            answer, self._answer, self.open = self._answer, None, None
            answer.callback(answers)
