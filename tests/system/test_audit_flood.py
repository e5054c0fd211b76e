"""A user who floods the audit log: it stays small, and nothing that was done is missing in it."""

from __future__ import annotations

from conchrec.ssh.wire import string
from tests.support.auditlog import events
from tests.support.house import House, build
from tests.support.otherclients import paramiko_connections, send_request
from tests.support.stage import Stage
from tests.support.wait import LONG, in_thread

REQUESTS = 3000
#: What a message has besides its text: header, numbers, MAC and padding.
OVERHEAD = 50


async def test_bounds_audit_log_under_flood_of_requests(stage: Stage) -> None:
    house = await build(stage, settings={"limits": {"sessions_per_user": 2}})
    name = "\x01" * 50  # as long as the relay lets them be

    def flood() -> int:
        outer, inner = paramiko_connections(house)
        try:
            channel = inner.open_session(timeout=LONG)
            channel.exec_command("cat")
            for number in range(REQUESTS):
                channel.resize_pty(80 + number % 100, 24)
                send_request(channel, "signal", string(name.encode()))
            channel.shutdown_write()
            assert channel.recv_exit_status() == 0
            channel.close()
        finally:
            inner.close()
            outer.close()
        return REQUESTS * (len(name) + OVERHEAD) + REQUESTS * OVERHEAD

    sent = await in_thread(flood)
    await house.proxy.deserted()
    await house.proxy.stop()
    assert house.proxy.audit_file.stat().st_size < sent
    assert count_events(house, "resize") == REQUESTS
    assert count_events(house, "signal") == REQUESTS
    for event in ("user.login", "session.start", "exec", "session.end", "client.disconnect"):
        assert count_events(house, event) >= 1
    (await house.proxy.command("audit", "verify")).check()


def count_events(house: House, name: str) -> int:
    """How many there were, by single events and by counts."""
    audited = events(house.proxy.audit_file)
    counted = sum(int(str(event["count"])) for event in audited if event.get("of") == name)
    return counted + sum(event["event"] == name for event in audited)
