"""What is noticed each second: a connection that fails keeps nobody from being judged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.logger import capturedLogs

from conchrec.model import Identity
from conchrec.proxy.registry import LiveConnection
from conchrec.service.state_watch import StateWatch
from tests.support.context import memory_context


class Live:
    """A connection; ``broken``: it can't be judged."""

    identity = Identity(user="joe", method="publickey")

    def __init__(self, *, broken: bool) -> None:
        self._broken = broken
        self.judged = self.dropped = 0

    def recheck(self) -> None:
        self.judged += 1
        if self._broken:
            raise KeyError("odd")

    def drop(self) -> None:
        self.dropped += 1


def test_ends_connection_that_cannot_be_checked() -> None:
    all_live = [Live(broken=number == 3) for number in range(8)]
    context = memory_context()
    for live in all_live:
        context.registry.add_connection(cast(LiveConnection, live))
    nothing: Any = SimpleNamespace(revocations=SimpleNamespace(current=None))
    watch = StateWatch(context, nothing, nothing, nothing, nothing)
    with capturedLogs() as logged:
        watch.recheck()
    assert [live.judged for live in all_live] == [1] * 8
    assert [live.dropped for live in all_live] == [0, 0, 0, 1, 0, 0, 0, 0]
    (event,) = logged
    assert event["user"] == "joe" and event["log_failure"].type is KeyError
