"""Which start request of a session has its files counted, and which requests are refused."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from twisted.internet.task import Clock

from conchrec.access.options import Record, SessionOptions
from conchrec.audit import events
from conchrec.model import Identity
from conchrec.proxy.inner.session import START_SECONDS, Session
from conchrec.recording.storage.spool import SpoolFile
from conchrec.recording.store import LocalStore
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Channel
from conchrec.ssh.wire import string, uint32
from tests.support.auditlog import AuditMemory
from tests.support.context import memory_context, root_at_web1, set_options
from tests.support.loop import Handler, Loop, Receiver, request_body

NOW = datetime(2026, 11, 24, tzinfo=timezone.utc)


def _full_disk(name: str, day: int) -> SpoolFile:
    raise OSError(errno.ENOSPC, "No space left on device")


class Stage:
    """A user, a session that is not recorded, and a target that the test plays."""

    def __init__(
        self,
        *,
        force_command: str = "",
        file_copy: bool = True,
        before: Callable[[Stage], None] | None = None,
        store: LocalStore | None = None,
    ) -> None:
        """``before`` is called when the user is connected and the target is not.

        Without a ``store`` no recording can be opened, and the role allows that.
        """
        self.log = AuditMemory()
        self.clock = Clock()
        context = memory_context(
            clock=self.clock, now=lambda: NOW, audit=self.log, store=store, create=_full_disk
        )
        access = root_at_web1(
            context,
            Identity(user="joe", method="publickey", force_command=force_command),
            SessionOptions(record=Record.BEST_EFFORT, sftp=file_copy, scp=file_copy),
        )
        proxy, target = Handler(), Handler()
        self.near, self.far = Loop(Handler(), proxy), Loop(Handler(), target)
        self.user: Channel = self.near.left.open(b"session", Receiver(), window=9999, max_packet=999)
        self.pump()
        self.access = access
        self.session = Session(
            access,
            proxy.openings[0],
            inner_settled=lambda: None,
            on_end=lambda session: None,
            on_granted=lambda: None,
        )
        self.session.confirm_early()
        self.session.open_target(self.far.left)
        self.pump()
        self.heard = Receiver()
        if before is not None:
            before(self)
        target.openings[0].confirm(self.heard, 9999, 999)
        self.target: Channel = target.openings[0].channel
        self.pump()

    def pump(self) -> None:
        for _ in range(3):
            self.near.pump()
            self.far.pump()

    def ask(self, name: bytes, argument: bytes, *, want_reply: bool = True) -> None:
        self.user.send(m.CHANNEL_REQUEST, request_body(name, want_reply, string(argument)))
        self.pump()

    def answer(self, message: int) -> None:
        self.target.send(message)
        self.pump()

    def moved(self) -> list[events.AuditEvent]:
        """The transfer events after some bytes in each direction and the end."""
        self.user.send(m.CHANNEL_DATA, string(b"abc"))
        self.target.send(m.CHANNEL_DATA, string(b"defgh"))
        self.pump()
        for channel in (self.user, self.target):
            channel.send(m.CHANNEL_CLOSE)
            self.pump()
        kinds = (events.Transfer, events.TransferLost, events.Sftp, events.Scp)
        return [event for event in self.log.events if isinstance(event, kinds)]


def rsync(audited: list[events.AuditEvent]) -> tuple[str, int, int]:
    (event,) = audited
    assert isinstance(event, events.Transfer)
    return event.program, event.sent, event.received


def test_counts_files_of_accepted_start() -> None:
    stage = Stage()
    stage.ask(b"subsystem", b"sftp")
    stage.answer(m.CHANNEL_FAILURE)
    stage.ask(b"exec", b"rsync --server .")
    stage.answer(m.CHANNEL_SUCCESS)
    assert rsync(stage.moved()) == ("rsync", 3, 5)


@pytest.mark.parametrize("want_reply", [True, False])
def test_counts_files_of_start_without_want_reply(want_reply: bool) -> None:
    stage = Stage()
    stage.ask(b"subsystem", b"nonsense")
    stage.ask(b"exec", b"rsync --server .", want_reply=want_reply)
    stage.ask(b"exec", b"true")
    stage.answer(m.CHANNEL_FAILURE)
    stage.answer(m.CHANNEL_SUCCESS)
    assert rsync(stage.moved()) == ("rsync", 3, 5)
    forwarded = [body for message, body in stage.heard.heard if message == m.CHANNEL_REQUEST]
    assert forwarded == [
        request_body(b"subsystem", True, string(b"nonsense")),
        request_body(b"exec", True, string(b"rsync --server .")),
    ]


def test_ignores_starts_after_accepted_one() -> None:
    stage = Stage()
    stage.ask(b"exec", b"rsync --server .")
    stage.ask(b"subsystem", b"sftp")
    stage.answer(m.CHANNEL_SUCCESS)
    stage.ask(b"exec", b"true")
    assert rsync(stage.moved()) == ("rsync", 3, 5)


def test_has_no_account_without_transfer() -> None:
    stage = Stage()
    stage.ask(b"exec", b"uptime")
    stage.answer(m.CHANNEL_SUCCESS)
    assert stage.moved() == []
    stage = Stage()
    stage.ask(b"subsystem", b"sftp")
    stage.answer(m.CHANNEL_FAILURE)
    assert stage.moved() == []


def test_audits_lost_transfer_once() -> None:
    stage = Stage()
    stage.ask(b"subsystem", b"sftp")
    stage.answer(m.CHANNEL_SUCCESS)
    stage.target.send(m.CHANNEL_DATA, string(b"Welcome to web1\n"))
    (event,) = stage.moved()
    assert isinstance(event, events.TransferLost)
    assert (event.program, event.reason) == ("sftp", "a packet is too long")
    data = [body for message, body in stage.heard.heard if message == m.CHANNEL_DATA]
    assert data == [string(b"abc")], "it was forwarded anyway"


def test_applies_scp_option_to_forced_command() -> None:
    stage = Stage(force_command="/usr/bin/scp -t /", file_copy=False)
    stage.ask(b"exec", b"uptime")
    (event,) = [event for event in stage.log.events if isinstance(event, events.SessionRejected)]
    assert "with scp as root@web1 (scp: no)" in event.reason
    stage = Stage(force_command="uptime", file_copy=False)
    stage.ask(b"subsystem", b"sftp")
    assert stage.heard.heard == [
        (m.CHANNEL_REQUEST, request_body(b"exec", True, uint32(6) + b"uptime")),
    ]


# --- a new policy


def ended(stage: Stage, **options: bool) -> bool:
    """Whether these options end the session."""
    assert stage.access.options is not None
    set_options(stage.access, replace(stage.access.options, **options))  # type: ignore[arg-type]
    before = len(stage.log.events)
    stage.session.recheck()
    stage.pump()
    return any(isinstance(event, events.SessionRejected) for event in stage.log.events[before:])


@pytest.mark.parametrize("want_reply", [True, False])
def test_rechecks_accepted_start(want_reply: bool) -> None:
    stage = Stage()
    stage.ask(b"subsystem", b"nonsense")
    stage.answer(m.CHANNEL_FAILURE)
    stage.ask(b"exec", b"uptime", want_reply=want_reply)
    stage.answer(m.CHANNEL_SUCCESS)
    assert not ended(stage, subsystem=False)
    assert ended(stage, exec=False)


def test_rechecks_unanswered_start() -> None:
    stage = Stage()
    stage.ask(b"exec", b"uptime")
    assert ended(stage, exec=False)


def test_ends_session_when_start_is_not_answered() -> None:
    stage = Stage()
    stage.ask(b"exec", b"uptime")
    stage.clock.advance(START_SECONDS)
    stage.pump()
    (event,) = [event for event in stage.log.events if isinstance(event, events.UpstreamFailed)]
    assert "did not answer the exec request" in event.reason
    assert stage.heard.heard[-1][0] == m.CHANNEL_CLOSE
    assert not stage.clock.getDelayedCalls()


PTY = string(b"xterm") + uint32(80) + uint32(24) + uint32(0) + uint32(0) + string(b"")


def test_refuses_second_pty_while_first_waits() -> None:
    def ask_twice(stage: Stage) -> None:
        for _ in range(2):
            stage.user.send(m.CHANNEL_REQUEST, request_body(b"pty-req", True, PTY))
        stage.pump()

    stage = Stage(before=ask_twice)
    assert [message for message, _ in stage.heard.heard] == [m.CHANNEL_REQUEST]


def test_ends_waiting_pty_that_is_no_longer_allowed() -> None:
    def ask_and_lose_the_role(stage: Stage) -> None:
        stage.user.send(m.CHANNEL_REQUEST, request_body(b"pty-req", True, PTY))
        stage.pump()
        assert stage.access.options is not None
        set_options(stage.access, replace(stage.access.options, pty=False))
        stage.session.recheck()

    stage = Stage(before=ask_and_lose_the_role)
    assert m.CHANNEL_REQUEST not in [message for message, _ in stage.heard.heard]
