"""Passes the target's questions (passwords, codes) to the inner login, and the user's answers back.

A question waits here until the inner login asks it; the answer goes to the target at once. Neither is
recorded, logged or kept.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from conchrec.ssh.userauth import Challenge


class Questions:
    """The questions of one target: at most one is open."""

    __slots__ = (
        "_answer", "any", "open",
    )  # fmt: skip

    def __init__(self) -> None:
        self._answer: Deferred[tuple[str, ...]] | None = None
        self.open: Challenge | None = None
        #: There was a question in this login.
        self.any = False

    def ask(self, challenge: Challenge) -> Deferred[tuple[str, ...]]:
        """Fires with the answers to a question of the target. If cancelled, the question is withdrawn."""
        answer: Deferred[tuple[str, ...]] = Deferred(lambda _: self._withdraw())
        self._answer, self.open, self.any = answer, challenge, True
        return answer

    def _withdraw(self) -> None:
        self._answer = self.open = None

    def answer(self, challenge: Challenge, answers: tuple[str, ...]) -> None:
        """Pass the user's answers on; those to a question that is not open any more are dropped."""
        if self._answer is not None and self.open is challenge:
            answer, self._answer, self.open = self._answer, None, None
            answer.callback(answers)
