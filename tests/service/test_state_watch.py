"""What is noticed each second: a connection that fails keeps nobody from being judged."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from twisted.logger import capturedLogs

from conchrec.access.lock_file import Locks
from conchrec.audit.throttle import AuditThrottle
from conchrec.model import Identity
from conchrec.service.state_watch import StateWatch
from tests.support.auditlog import audit_log
from tests.support.context import NOON, memory_context


class Live:
    """A LiveConnection without channels; ``broken``: it can't be judged."""

    identity = Identity(user="joe", method="publickey")
    session_count = connection_count = target_channel_count = 0

    def __init__(self, *, broken: bool) -> None:
        self._broken = broken
        self.judged = self.dropped = 0

    def recheck(self) -> None:
        self.judged += 1
        if self._broken:
            raise KeyError("odd")

    def recheck_expired(self, now: datetime) -> None:
        raise AssertionError("this test does not expect the call")

    def end_with_reason(self, reason: str) -> None:
        raise AssertionError("this test does not expect the call")

    def drop(self) -> None:
        self.dropped += 1


def test_ends_connection_that_cannot_be_checked(tmp_path: Path) -> None:
    all_live = [Live(broken=number == 3) for number in range(8)]
    context = memory_context()
    for live in all_live:
        context.registry.add_connection(live)
    locks, log = Locks(tmp_path, lambda: NOON), audit_log(tmp_path)
    watch = StateWatch(context, context.services.authority, locks, AuditThrottle(log), log)
    with capturedLogs() as logged:
        watch.recheck()
    assert [live.judged for live in all_live] == [1] * 8
    assert [live.dropped for live in all_live] == [0, 0, 0, 1, 0, 0, 0, 0]
    (event,) = logged
    assert event["user"] == "joe" and event["log_failure"].type is KeyError
