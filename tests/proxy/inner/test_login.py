"""When the inner login asks the policy, and which steps and questions follow."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from twisted.internet.defer import Deferred, succeed

from conchrec.access.credentials import Credentials
from conchrec.access.options import Mfa, RoleOptions
from conchrec.access.patterns import HostPattern
from conchrec.access.policy import Policy
from conchrec.access.role import Role
from conchrec.access.time_windows import Window
from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.proxy.inner.login import InnerLogin
from conchrec.proxy.upstream.connection import Upstream
from conchrec.ssh.authenticator import PartialSuccess
from conchrec.ssh.userauth import Challenge, Prompt
from tests.support.auditlog import AuditMemory
from tests.support.context import access_to_web1, memory_context, memory_settings
from tests.support.loop import Handler

OPENS = datetime(2026, 11, 27, 22, 0, tzinfo=timezone.utc)
JOE = Identity(user="joe", method="publickey", roles=("ops", "night"), key=b"a key")


class AnyKey(Credentials):
    """Credentials that accept each key as one of the user."""

    def identity_of_inner_login(
        self, identity: Identity, algorithm: bytes, blob: bytes, source: str, now: datetime
    ) -> Identity:
        return identity


class World:
    """joe may reach all hosts; from 22:00 on his second role, with these options, counts too."""

    def __init__(self, options: RoleOptions) -> None:
        self.now = OPENS - timedelta(seconds=1)
        self.log = AuditMemory()
        self.begun = 0
        ops = Role(name="ops", logins=("root",), hosts=(HostPattern.parse("*"),))
        night = replace(ops, name="night", options=options, times=(Window.parse("22:00-23:00"),))
        settings = memory_settings(
            policy=Policy(roles={"ops": ops, "night": night}),
            credentials=AnyKey(users={}, authorities=lambda: ()),
        )
        context = memory_context(now=lambda: self.now, audit=self.log, settings=settings)
        self.access = access_to_web1(context, JOE, ("192.0.2.9",))
        self.upstream = Upstream(
            self.access, Handler(), link=None, on_banner=lambda text: None, on_lost=lambda lost: None
        )
        self.login = InnerLogin(
            self.access, self.upstream, self.begin, say=lambda text: None, algorithms=lambda: (b"kex",)
        )

    def begin(self) -> None:
        self.begun += 1

    def prove(self) -> Deferred[Identity]:
        return self.login.log_in_by_key("root", b"ssh-ed25519", b"a key")


@pytest.mark.parametrize(
    "options",
    [RoleOptions(approval=frozenset({"lead"})), RoleOptions(require_mfa=Mfa.SESSION)],
    ids=["approval", "require_mfa"],
)
def test_denies_step_that_is_needed_after_dial(options: RoleOptions) -> None:
    """Between the name of the login and its key a role begins to count: the step is no longer possible."""
    world = World(options)
    world.login.none("root").addErrback(lambda failure: failure.trap(AccessDenied))
    assert (world.begun, world.access.denied) == (1, None)
    world.now = OPENS
    identity = replace(JOE, second_factor="totp")
    world.access.set_identity(identity)
    assert world.prove().result == identity, "logged in, to read why in the session"
    assert isinstance(world.access.denied, AccessDenied)
    assert "Connect again" in world.access.denied.public
    assert world.begun == 1


def test_needs_no_step() -> None:
    world = World(RoleOptions())
    world.login.none("root").addErrback(lambda failure: failure.trap(AccessDenied))
    world.now = OPENS
    world.upstream.close()  # the login may continue
    assert world.prove().result == JOE
    assert (world.begun, world.access.denied) == (1, None)


def test_asks_no_own_questions_after_questions_of_target() -> None:
    """A user could not tell whose question it is; a step that is needed later ends the connection."""
    world = World(RoleOptions(require_mfa=Mfa.SESSION))
    theirs = Challenge(prompts=(Prompt(text="[web1:22] Code: "),))
    answers = world.upstream.questions.ask(theirs)
    world.login.none("root").addErrback(lambda failure: failure.trap(AccessDenied))
    world.prove().addErrback(lambda failure: failure.trap(PartialSuccess))
    challenges: list[Challenge] = []

    def ask(challenge: Challenge) -> Deferred[tuple[str, ...]]:
        challenges.append(challenge)
        world.now = OPENS
        return succeed(("123456",))

    first = world.login.keyboard_interactive("root", "", ask)
    world.upstream.close()
    second = world.login.keyboard_interactive("root", "", ask)
    assert first.result == second.result == JOE
    assert challenges == [theirs] and answers.result == ("123456",)
