"""The login with a password, and with a code (TOTP): its questions, its delays and its checks.

Whatever is wrong, the client sees the same: all questions are asked before anything is checked, and the check
takes as long for an unknown user. It runs in a thread, because a password hash takes long on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore

from conchrec.access.passwords import Passwords
from conchrec.access.rate_limit import LONGEST_WAIT, Guess, Guesses, TooManyGuesses
from conchrec.clock import Clock, DelayedCall
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.authenticator import Ask
from conchrec.ssh.userauth import Challenge, Prompt
from conchrec.threads import InThread

T = TypeVar("T")

#: Checks at one time: logins by password must not slow down the sessions.
AT_ONCE = 2

#: The code is a second question, so that only users with one are asked, and programs that answer the first
#: question (sshpass) work for the others.
PASSWORD = Challenge(prompts=(Prompt(text="Password: "),))
CODE = Challenge(prompts=(Prompt(text="Code: "),))


class PasswordLogin:
    """The logins by password of all users.

    ``identify`` returns the Identity of a user, or raises AccessDenied; ``in_thread`` runs the checks.
    """

    def __init__(
        self,
        passwords: Passwords,
        guesses: Guesses,
        *,
        identify: Callable[[str], Identity],
        clock: Clock,
        now: Callable[[], datetime],
        in_thread: InThread,
    ) -> None:
        self.guesses = guesses
        self._passwords = passwords
        self._identify = identify
        self._clock = clock
        self._now = now
        self._in_thread = in_thread
        self._checks = DeferredSemaphore(AT_ONCE)

    async def log_in(self, user: str, source: str, ask: Ask) -> Identity:
        """Log a user in by one conversation of keyboard-interactive. Raises AccessDenied.

        ``source`` is the user's address; ``ask`` sends a challenge and returns the answers.
        """
        notice = await self._delay_notice(user, source, ask, Guess.PASSWORD)
        (password,) = await ask(replace(PASSWORD, instruction=notice))
        code = (await ask(CODE))[0] if self._passwords.asks_code(user) else ""
        if seconds := self.guesses.begin(user, source):
            await self._pause(seconds)
        if not await self._is_right(user, password):
            raise _denied(self._passwords.why_not(user), ReasonCode.PASSWORD_WRONG)
        if self._passwords.has_code(user):
            await self._use(user, code)
        self.guesses.right(user, source)
        return self._identify(user)

    async def ask_code(self, user: str, source: str, ask: Ask) -> None:
        """Ask for a code alone, after a key, and check it. Raises AccessDenied."""
        notice = await self._delay_notice(user, source, ask, Guess.CODE)
        (code,) = await ask(replace(CODE, instruction=notice))
        if seconds := self.guesses.begin(user, source, Guess.CODE):
            await self._pause(seconds)
        await self._use(user, code)
        self.guesses.right(user, source, Guess.CODE)

    async def _delay_notice(self, user: str, source: str, ask: Ask, kind: Guess) -> str:
        """The line which says that the answer will be delayed; empty where not. Raises TooManyGuesses."""
        seconds = self.guesses.wait(user, source, kind)
        if seconds > LONGEST_WAIT:
            error = TooManyGuesses(seconds, kind)
            await ask(Challenge(instruction=f"conchrec: {error.public}"))
            raise error
        if not seconds:
            return ""
        text = f"after wrong answers, the next answer is checked {math.ceil(seconds)} s later"
        return f"conchrec: {Reason(ReasonCode.GUESS_DELAYED, text)}"

    @property
    def has_passwords(self) -> bool:
        """Whether any user has a password."""
        return self._passwords.are_there

    def has_code(self, user: str) -> bool:
        """Whether this user has a secret for codes."""
        return self._passwords.has_code(user)

    def secrets_of(self, user: str) -> tuple[bytes | None, bytes | None]:
        """The password hash and the code secret that answers of this user are compared with."""
        return self._passwords.of(user)

    def second_factor(self, user: str) -> str:
        """The second factor that a login by password includes: ``totp``, or empty."""
        return "totp" if self._passwords.has_code(user) else ""

    async def _use(self, user: str, code: str) -> None:
        """Use up a code. Raises AccessDenied where it is wrong, or was used before.

        A code is valid once, also for two connections at the same time: its use is stored in memory at once,
        and on the disk before the login succeeds.
        """
        last, seconds = self.guesses.last_step(user), self._now().timestamp()
        step = self._passwords.step_of(user, code, seconds, last)
        if step is None:
            was_used = self._passwords.step_of(user, code, seconds, -1) is not None
            if was_used:
                raise _denied("the code was already used", ReasonCode.CODE_USED)
            raise _denied("wrong code", ReasonCode.SECOND_FACTOR_WRONG)
        try:
            await self.guesses.use(user, step)
        except OSError as error:
            detail = "cannot store that the code was used"
            raise _denied(detail, ReasonCode.CODE_NOT_STORED) from error

    async def _is_right(self, user: str, password: str) -> bool:
        await self._checks.acquire()
        # A client that hangs up while the thread works must not make room for another check: the end of the
        # work releases the semaphore, not the end of the wait.
        answer: Deferred[bool] = Deferred()
        check = self._in_thread(lambda: self._passwords.is_right(user, password))
        check.addBoth(self._release).addCallbacks(answer.callback, answer.errback)
        return await answer

    def _release(self, result: T) -> T:
        self._checks.release()
        return result

    def _pause(self, seconds: float) -> Deferred[None]:
        timers: list[DelayedCall] = []
        over: Deferred[None] = Deferred(lambda _: timers[0].cancel())
        timers.append(self._clock.callLater(seconds, over.callback, None))
        return over


def _denied(detail: str, code: ReasonCode) -> AccessDenied:
    return AccessDenied("Permission denied", detail, code=code)
