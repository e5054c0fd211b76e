"""The login of a user who has a password: what is asked, how long the answer takes, and what it is.

Whatever is wrong, a stranger sees the same: the questions are all asked before anything is checked, and
the check takes as long for a name that nobody has. The reactor never waits for it.
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

#: Checks at one time: logins by password must not take the machine from the sessions.
AT_ONCE = 2

#: The code in a round of its own, so that only those are asked who have one, and programs that answer the
#: first question (sshpass) go on working for the others.
PASSWORD = Challenge(prompts=(Prompt(text="Password: "),))
CODE = Challenge(prompts=(Prompt(text="Code: "),))


class PasswordLogin:
    """See the module. ``identify`` makes the Identity of a user, or raises AccessDenied."""

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
        self._places = DeferredSemaphore(AT_ONCE)

    async def log_in(self, user: str, source: str, ask: Ask) -> Identity:
        """One conversation of keyboard-interactive, from the address ``source``. Raises AccessDenied."""
        told = await self._told(user, source, ask, Guess.PASSWORD)
        (password,) = await ask(replace(PASSWORD, instruction=told))
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
        """A code alone, after a key. Raises AccessDenied."""
        told = await self._told(user, source, ask, Guess.CODE)
        (code,) = await ask(replace(CODE, instruction=told))
        if seconds := self.guesses.begin(user, source, Guess.CODE):
            await self._pause(seconds)
        await self._use(user, code)
        self.guesses.right(user, source, Guess.CODE)

    async def _told(self, user: str, source: str, ask: Ask, at: Guess) -> str:
        """How long the answer will have to wait; empty where it will not. Raises TooManyGuesses."""
        seconds = self.guesses.wait(user, source, at)
        if seconds > LONGEST_WAIT:
            error = TooManyGuesses(seconds, at)
            await ask(Challenge(instruction=f"conchrec: {error.public}"))
            raise error
        if not seconds:
            return ""
        text = f"after wrong answers, the next answer is checked {math.ceil(seconds)} s later"
        return f"conchrec: {Reason(ReasonCode.GUESS_DELAYED, text)}"

    @property
    def has_passwords(self) -> bool:
        """Has anybody one?"""
        return self._passwords.are_there

    def has_code(self, user: str) -> bool:
        return self._passwords.has_code(user)

    def secrets_of(self, user: str) -> tuple[bytes | None, bytes | None]:
        """What answers of this user are compared with."""
        return self._passwords.of(user)

    def second_factor(self, user: str) -> str:
        """What this user has proved besides the password."""
        return "totp" if self._passwords.has_code(user) else ""

    async def _use(self, user: str, code: str) -> None:
        """A code is good once, also on two connections that have it at the same time: that it is used is
        known at once, and on the disk before anybody is in. Raises AccessDenied."""
        last, seconds = self.guesses.last_step(user), self._now().timestamp()
        step = self._passwords.step_of(user, code, seconds, last)
        if step is None:
            again = self._passwords.step_of(user, code, seconds, -1) is not None
            if again:
                raise _denied("the code was already used", ReasonCode.CODE_USED)
            raise _denied("wrong code", ReasonCode.SECOND_FACTOR_WRONG)
        try:
            await self.guesses.use(user, step)
        except OSError as error:
            detail = "cannot store that the code was used"
            raise _denied(detail, ReasonCode.CODE_NOT_STORED) from error

    async def _is_right(self, user: str, password: str) -> bool:
        await self._places.acquire()
        # Whoever hangs up while the thread works must not make room for another: the place is given back
        # by the work, not by the one that waits for it.
        answer: Deferred[bool] = Deferred()
        checking = self._in_thread(lambda: self._passwords.is_right(user, password))
        checking.addBoth(self._give_back).addCallbacks(answer.callback, answer.errback)
        return await answer

    def _give_back(self, result: T) -> T:
        self._places.release()
        return result

    def _pause(self, seconds: float) -> Deferred[None]:
        timers: list[DelayedCall] = []
        over: Deferred[None] = Deferred(lambda _: timers[0].cancel())
        timers.append(self._clock.callLater(seconds, over.callback, None))
        return over


def _denied(detail: str, code: ReasonCode) -> AccessDenied:
    return AccessDenied("Permission denied", detail, code=code)
