"""Logs in at a server with what a person answers: its questions (RFC 4256), or a password. The client's side.

Answers are never logged.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from conchrec.errors import ConchrecError, LocalViolation, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh import userauth as u
from conchrec.ssh.login_exchange import LoginExchange, LoginProgress, StepOutcome
from conchrec.ssh.wire import string
from conchrec.text import one_line

#: The number of attempts that a person has (OpenSSH's NumberOfPasswordPrompts).
MAX_PROMPTS = 3
#: The maximum number of messages with questions.
MAX_CHALLENGES = 50

Prompter = Callable[[u.Challenge], Deferred[tuple[str, ...]]]


class PromptLogin:
    """Passes the server's questions to ``prompter``; None answers nothing. ``target`` is the server's name in
    the prompt for a password."""

    def __init__(
        self, exchange: LoginExchange, progress: LoginProgress, *, prompter: Prompter | None, target: str
    ) -> None:
        self._exchange = exchange
        self._progress = progress
        self._prompter = prompter
        self._target = target
        self._challenges = 0

    async def run(self) -> StepOutcome:
        """Try the methods that a person can answer: first the server's questions, then a password."""
        prompter = self._prompter
        if prompter is None:
            return StepOutcome.REFUSED
        attempts = ((u.KEYBOARD_INTERACTIVE, self._answer_questions), (u.PASSWORD, self._send_password))
        for method, attempt in attempts:
            for _ in range(MAX_PROMPTS):
                if method not in self._progress.methods:
                    break
                try:
                    outcome = await attempt(prompter)
                except _NoAnswer as error:
                    self._progress.failed_attempts.append(f"{one_line(method, 64)} ({error})")
                    return StepOutcome.REFUSED
                if outcome is not StepOutcome.REFUSED:
                    return outcome
                if one_line(method, 64) not in self._progress.failed_attempts:
                    self._progress.failed_attempts.append(one_line(method, 64))
        return StepOutcome.REFUSED

    async def _answer_questions(self, prompter: Prompter) -> StepOutcome:
        """Log in with keyboard-interactive (RFC 4256)."""
        request = self._exchange.request(u.KEYBOARD_INTERACTIVE, string(b"") + string(b""))
        reply = await self._exchange.send(request, u.SUCCESS, u.INFO_REQUEST)
        while reply.number == u.INFO_REQUEST:
            self._challenges += 1
            if self._challenges > MAX_CHALLENGES:
                raise RemoteViolation(
                    f"too many questions in one login: the limit is {MAX_CHALLENGES} messages",
                    code=ReasonCode.TOO_MANY_MESSAGES,
                )
            answers = await self._ask_user(prompter, u.parse_info_request(reply.payload))
            reply = await self._exchange.send(
                u.info_response(answers), u.SUCCESS, u.INFO_REQUEST, number=u.INFO_RESPONSE
            )
        return self._progress.read_outcome(reply, u.KEYBOARD_INTERACTIVE)

    async def _send_password(self, prompter: Prompter) -> StepOutcome:
        """Log in with a password (RFC 4252 section 8)."""
        user = one_line(self._exchange.user)
        prompt = u.Prompt(text=f"{user}@{self._target}'s password: ")
        (password,) = await self._ask_user(prompter, u.Challenge(prompts=(prompt,)))
        request = self._exchange.request(u.PASSWORD, b"\0" + string(password.encode()))
        reply = await self._exchange.send(request, u.SUCCESS, u.PASSWD_CHANGEREQ)
        if reply.number == u.PASSWD_CHANGEREQ:
            raise _NoAnswer("it has expired: set a new one at the target")
        return self._progress.read_outcome(reply, u.PASSWORD)

    async def _ask_user(self, prompter: Prompter, challenge: u.Challenge) -> tuple[str, ...]:
        """Return the answers of a person. Raises _NoAnswer."""
        try:
            answers = await self._exchange.wait(prompter(challenge))
        except ConchrecError as error:
            raise _NoAnswer(error.public) from error
        if len(answers) != len(challenge.prompts):
            detail = f"{len(answers)} answers to {len(challenge.prompts)} questions"
            raise LocalViolation(detail)
        return answers


class _NoAnswer(Exception):
    """A person cannot or does not want to answer."""
