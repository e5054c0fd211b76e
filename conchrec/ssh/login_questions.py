"""The questions of a keyboard-interactive login, on the server's side (RFC 4256)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail

from conchrec.errors import AccessDenied, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.authenticator import Ask
from conchrec.ssh.userauth import Challenge, parse_info_response


class LoginQuestions:
    """Asks a client, on behalf of one attempt at a time, and takes the answers.

    ``send`` sends INFO_REQUEST: from then on the client has to answer. ``proceed`` is called when it no
    longer has to, because it has answered, or because nobody waits for the answers.
    """

    def __init__(self, send: Callable[[Challenge], None], proceed: Callable[[], None]) -> None:
        self._send = send
        self._proceed = proceed
        #: Identifies the current attempt; earlier ones can no longer ask.
        self._attempt: object | None = None
        self._answers: Deferred[tuple[str, ...]] | None = None
        self._count = 0
        #: The number of withdrawn questions whose answers may still arrive.
        self._withdrawn = 0

    def begin(self) -> Ask:
        """Begin an attempt. Return the function by which the authenticator asks."""
        attempt = self._attempt = object()

        def ask(challenge: Challenge) -> Deferred[tuple[str, ...]]:
            if self._attempt is not attempt or self._answers is not None:
                return fail(_abandoned_error())
            answers: Deferred[tuple[str, ...]] = Deferred(self._withdraw)
            self._answers = answers
            self._count = len(challenge.prompts)
            self._send(challenge)
            return answers

        return ask

    def abandon(self) -> None:
        """End the attempt. An authenticator that waits for answers gets an error."""
        self._attempt = None
        answers, self._answers = self._answers, None
        if answers is not None:
            answers.errback(_abandoned_error())

    def end(self) -> None:
        """End the login. Nothing can be asked any more."""
        self.abandon()
        self._send, self._proceed = lambda challenge: None, lambda: None

    def answer(self, payload: bytes) -> None:
        """Handle INFO_RESPONSE (RFC 4256 section 3.4). Raises RemoteViolation."""
        raw = parse_info_response(payload)
        waiting, self._answers = self._answers, None
        if waiting is None:
            raise RemoteViolation("INFO_RESPONSE without a question")
        if len(raw) != self._count:
            waiting.errback(
                AccessDenied(
                    "Permission denied",
                    f"{len(raw)} answers to {self._count} questions",
                    code=ReasonCode.ANSWERS_MALFORMED,
                )
            )
            return
        try:
            answers = tuple(answer.decode("utf-8") for answer in raw)
        except UnicodeDecodeError:
            waiting.errback(
                AccessDenied("Permission denied", "an answer is not UTF-8", code=ReasonCode.ANSWERS_MALFORMED)
            )
            return
        self._proceed()
        waiting.callback(answers)

    def drop_late_answer(self) -> bool:
        """Return whether an INFO_RESPONSE answers a question that was withdrawn. Each has one answer."""
        if not self._withdrawn:
            return False
        self._withdrawn -= 1
        return True

    def _withdraw(self, answers: Deferred[tuple[str, ...]]) -> None:
        """Handle an authenticator that no longer waits for the answers."""
        if self._answers is answers:
            self._answers = None
            self._withdrawn += 1
            self._proceed()


def _abandoned_error() -> AccessDenied:
    """Return the error for questions that the client abandoned."""
    return AccessDenied(
        "Permission denied", "the login attempt was abandoned", code=ReasonCode.QUESTIONS_ABANDONED
    )
