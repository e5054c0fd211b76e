"""Repeated minor events are counted; events that are evidence of an act are always written."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conchrec.audit.events import (
    CATALOGUE,
    AuditEvent,
    AuthRefused,
    ClientDisconnect,
    ConnectionRefused,
    Env,
    Exec,
    Port,
    RecordingFailed,
    Repeated,
    Resize,
    SessionRejected,
    UnknownRequest,
    UserLogin,
    Who,
)
from conchrec.audit.throttle import (
    DESTINATIONS,
    EXAMPLES,
    FLUSH_SECONDS,
    AuditThrottle,
    RateGroup,
    rate_group,
)
from conchrec.errors import WriteFailed
from tests.audit.test_events import example
from tests.support.auditlog import AuditMemory, audit_log, lines

BURST = int(RateGroup.MINOR.value[0].burst)
NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
JOE = Who(user="joe", login="root", target="web1:22", addr="192.0.2.7:50000", cid="c1", sid="s1")
#: Counted beyond a rate: nothing was done, or the recording has it too.
TRIFLES = {
    "agent", "auth", "connection.refused", "env", "message.dropped", "port", "recording.failed",
    "request.unknown", "resize", "session.rejected", "signal", "upstream.failed", "x11-forward",
}  # fmt: skip


class Bench:
    """A throttle with a clock, and its output."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.memory = AuditMemory()
        self.lost: list[str] = []
        self.throttle = AuditThrottle(
            self.memory,
            monotonic=lambda: self.seconds,
            now=lambda: NOON + timedelta(seconds=self.seconds),
            lost=self.lost.append,
        )

    @property
    def repeated(self) -> list[Repeated]:
        return [event for event in self.memory.events if isinstance(event, Repeated)]

    def names(self) -> Counter[str]:
        """How often each event was written, counted ones included."""
        repeated = Counter(event.event for event in self.memory.events if not isinstance(event, Repeated))
        for event in self.repeated:
            repeated[event.of] += event.count
        return repeated


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_classifies_each_event_as_minor_or_evidence() -> None:
    """A new event counts as evidence until this list names it."""
    seen = {kind.event for kind in CATALOGUE if rate_group(minor_event(kind)) is not None}
    assert seen == TRIFLES
    acts = {"exec", "subsystem", "sftp", "scp", "transfer", "session.start", "session.end", "user.login",
            "cert.create", "session.recording.access", "passthrough.start", "client.disconnect"}  # fmt: skip
    assert not acts & seen


def minor_event(kind: type[AuditEvent]) -> AuditEvent:
    """Return an event of this kind; where only some are minor, one of those."""
    event = example(kind, full=True)
    for field, value in (("action", "refused"), ("policy", "strict")):
        if hasattr(event, field):
            event = replace(event, **{field: value})
    return event


@pytest.mark.parametrize(
    "event",
    [
        Port(**JOE, kind="direct", action="listen"),
        Port(**JOE, kind="direct", action="nested_ssh"),
        RecordingFailed(**JOE, reason="full", policy="best_effort"),
        Exec(**JOE, command="true"),
    ],
)
def test_writes_every_event_that_is_evidence(bench: Bench, event: AuditEvent) -> None:
    for _ in range(5000):
        bench.throttle.emit(event)
    assert bench.memory.events == [event] * 5000


def test_writes_events_of_ordinary_users(bench: Bench) -> None:
    for number in range(600):
        bench.seconds += 0.2
        bench.throttle.emit(Resize(**JOE, columns=number, rows=24))
        bench.throttle.tick()
    assert len(bench.memory.events) == 600 and not bench.repeated


def test_counts_events_beyond_their_rate(bench: Bench) -> None:
    for number in range(BURST + 1000):
        bench.throttle.emit(Resize(**JOE, columns=number, rows=24))
    assert len(bench.memory.events) == BURST
    bench.seconds = FLUSH_SECONDS - 0.1
    bench.throttle.tick()
    assert len(bench.memory.events) == BURST
    bench.seconds = FLUSH_SECONDS
    bench.throttle.tick()
    bench.throttle.tick()
    (repeated,) = bench.repeated
    assert (repeated.of, repeated.count, repeated.user, repeated.sid) == ("resize", 1000, "joe", "s1")
    assert repeated.first == repeated.last == "2026-11-29T12:00:00.000Z"
    assert repeated.examples[0] == f"columns={BURST} rows=24" and len(repeated.examples) == EXAMPLES


def test_writes_counts_at_the_end_of_the_connection(bench: Bench) -> None:
    for cid in ("c1", "c2"):
        who = Who(**{**JOE, "cid": cid})
        for number in range(BURST + 2):
            bench.throttle.emit(Resize(**who, columns=number, rows=24))
            bench.throttle.emit(SessionRejected(**who, reason=f"no {number}"))
    bench.throttle.emit(ClientDisconnect(**JOE))
    *_, last = bench.memory.events
    assert isinstance(last, ClientDisconnect), "after what it did"
    assert {event.cid for event in bench.repeated} == {"c1"}
    bench.throttle.flush()
    assert {event.cid for event in bench.repeated} == {"c1", "c2"}
    each = 2 * BURST + 4
    assert bench.names() == {"resize": each, "session.rejected": each, "client.disconnect": 1}


def test_sums_sizes(bench: Bench) -> None:
    most = int(RateGroup.FREQUENT.value[0].burst)
    for _ in range(most + 3):
        bench.throttle.emit(Port(**JOE, kind="direct", action="close", sent=10, received=1))
    bench.throttle.flush()
    assert [event.size for event in bench.repeated] == [33]


def test_combines_digests(bench: Bench) -> None:
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(BURST + 3)]
    for digest in digests:
        bench.throttle.emit(UnknownRequest(**JOE, request="x@example.com", size=2, sha256=digest))
    bench.throttle.flush()
    (repeated,) = bench.repeated
    together = "".join(f"{digest}\n" for digest in digests[BURST:]).encode()
    assert (repeated.size, repeated.sha256) == (6, hashlib.sha256(together).hexdigest())


def test_counts_most_minor_events_while_disk_is_low(bench: Bench) -> None:
    bench.throttle.emit(Resize(**JOE, columns=1, rows=1))
    bench.throttle.is_disk_low = True
    for _ in range(10):
        bench.throttle.emit(Resize(**JOE, columns=1, rows=1))
        bench.throttle.emit(AuthRefused(**JOE, reason="no"))
        bench.throttle.emit(Exec(**JOE, command="x"))
    assert Counter(event.event for event in bench.memory.events) == {"exec": 10, "resize": 4, "auth": 3}
    bench.throttle.flush()
    assert bench.names() == {"exec": 10, "resize": 11, "auth": 10}


def test_counts_each_destination_of_forwards(bench: Bench) -> None:
    most = int(RateGroup.FREQUENT.value[0].burst)
    for _ in range(most):
        bench.throttle.emit(Port(**JOE, kind="direct", action="open", destination="10.0.0.1:80"))
    for number in range(2 * DESTINATIONS):
        bench.throttle.emit(Port(**JOE, kind="direct", action="open", destination=f"10.0.0.2:{number}"))
    bench.throttle.flush()
    assert len(bench.repeated) == DESTINATIONS + 1
    assert sum(event.count for event in bench.repeated) == 2 * DESTINATIONS
    assert bench.repeated[-1].count == DESTINATIONS


def test_counts_all_connections_of_a_user_together(bench: Bench) -> None:
    for number in range(100):
        who = Who(**{**JOE, "cid": f"c{number}"})
        for _ in range(BURST - 1):
            bench.throttle.emit(Resize(**who, columns=80, rows=24))
        bench.throttle.emit(ClientDisconnect(**who))
    bench.throttle.flush()
    whole = [event for event in bench.memory.events if isinstance(event, Resize)]
    assert len(whole) == RateGroup.MINOR.value[1].burst
    (repeated,) = bench.repeated
    assert (repeated.user, repeated.cid, repeated.login) == ("joe", "", "root")
    assert bench.names()["resize"] == 100 * (BURST - 1)


@pytest.mark.parametrize("address", ["192.0.2.7", "[2001:db8::{}]"])
def test_counts_refused_logins_by_address(bench: Bench, address: str) -> None:
    """Each is a connection of its own, and may name any user."""
    for number in range(1000):
        bench.throttle.emit(
            AuthRefused(
                user=f"u{number}", addr=f"{address.format(number)}:{number}", cid=f"c{number}", reason="no"
            )
        )
    bench.throttle.emit(AuthRefused(user="joe", addr="198.51.100.1:1", cid="c", reason="no"))
    bench.throttle.flush()
    (repeated,) = bench.repeated
    assert repeated.count == 1000 - RateGroup.UNAUTHENTICATED.value[0].burst and len(repeated.examples) == 1
    assert bench.memory.events[-2].addr == "198.51.100.1:1", "others are told as before"


def test_counts_strangers_from_all_addresses_together(bench: Bench) -> None:
    for number in range(5000):
        host = f"2001:db8:{number:x}::1"
        bench.throttle.emit(ConnectionRefused(addr=host, reason="too many connections", count=3))
        bench.throttle.emit(AuthRefused(addr=f"[{host}]:22", reason="no"))
    bench.throttle.flush()
    assert len(bench.memory.events) == RateGroup.UNAUTHENTICATED.value[1].burst + 2
    assert bench.names() == {"connection.refused": 500 + 3 * 4500, "auth": 5000}


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::1"])
def test_counts_addresses_without_a_port(bench: Bench, address: str) -> None:
    for number in range(int(RateGroup.UNAUTHENTICATED.value[0].burst) + 1):
        bench.throttle.emit(ConnectionRefused(addr=address, reason=f"no {number}", count=1))
    bench.throttle.emit(ConnectionRefused(addr="198.51.100.1", reason="no", count=1))
    bench.throttle.flush()
    assert [(event.addr, event.count) for event in bench.repeated] == [(address, 1)]


def test_counts_sessions_beyond_a_limit(bench: Bench) -> None:
    """Each of six thousand a second was written."""
    for number in range(60_000):
        bench.seconds = number / 6000
        who = Who(**{**JOE, "sid": f"s{number}"})
        bench.throttle.emit(SessionRejected(**who, reason="joe has 10 sessions", rule="sessions_per_user"))
        if number % 6000 == 0:
            bench.throttle.tick()
    bench.throttle.flush()
    assert len(bench.memory.events) < BURST + 10 * RateGroup.MINOR.value[0].per_second + 5
    assert bench.names() == {"session.rejected": 60_000}
    assert bench.repeated[0].sid == "", "of several"


def test_reports_count_that_cannot_be_written(bench: Bench) -> None:
    for number in range(BURST + 1):
        bench.throttle.emit(Resize(**JOE, columns=number, rows=24))
    bench.memory.broken = WriteFailed("the audit log cannot be written: full", "full")
    with pytest.raises(WriteFailed):
        bench.throttle.emit(Exec(**JOE, command="true"))
    with pytest.raises(WriteFailed):
        bench.throttle.emit(ClientDisconnect(**JOE))
    assert bench.lost == ["full"]


def test_limits_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conchrec.audit.throttle.MOST_GROUPS", 200)
    for number in range(200 + 50):
        who = Who(**{**JOE, "cid": f"c{number}", "user": f"u{number}"})
        for _ in range(BURST + 1):
            bench.throttle.emit(Resize(**who, columns=80, rows=24))
    buckets = 2 * (200 + 50)
    assert bench.throttle.entry_count == 200 + 200 + buckets, "groups and their connections are limited"
    assert len(bench.repeated) == 50
    bench.seconds = 60
    bench.throttle.tick()
    assert bench.throttle.entry_count == 0


EVENTS = st.sampled_from(
    [
        Resize(columns=80, rows=24), Env(name="LANG"), SessionRejected(reason="no"), Exec(command="true"),
        UserLogin(method="publickey"), AuthRefused(reason="no"), ClientDisconnect(),
        Port(kind="direct", action="open", destination="a:1"),
        Port(kind="direct", action="refused", destination="a:1"),
    ]
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 3), st.integers(1, 300), st.floats(0, 20)), max_size=40))
def test_counts_each_event_exactly_once(
    acts: list[tuple[AuditEvent, int, int, float]],
) -> None:
    bench = Bench()
    emitted: Counter[str] = Counter()
    for event, connection, count, seconds in acts:
        bench.seconds += seconds
        sent = replace(event, user=f"u{connection % 2}", cid=f"c{connection}", addr=f"192.0.2.{connection}:1")
        for _ in range(count):
            bench.throttle.emit(sent)
        emitted[event.event] += count
        bench.throttle.tick()
    bench.throttle.flush()
    assert bench.names() == emitted
    bench.seconds += 1000  # all buckets are full again
    bench.throttle.tick()
    assert bench.throttle.entry_count == 0


@pytest.mark.parametrize("size", [1, 20, 100, 1000, 100_000])
@pytest.mark.parametrize("letter", ["\x01", "\x7f", "\u202e"])
def test_writes_less_than_was_sent_for_control_characters(tmp_path: Path, size: int, letter: str) -> None:
    """For every event that a client may repeat, ten thousand times a second; a packet has 40 more bytes."""
    log = audit_log(tmp_path)
    seconds = 0.0
    throttle = AuditThrottle(log, monotonic=lambda: seconds)
    count = max(20_000 // size, 100) if size > 1000 else 20_000
    text = letter * size
    for number in range(count):
        seconds = number / 10_000
        throttle.emit(Env(**JOE, name=text))
        throttle.emit(SessionRejected(**JOE, reason=text))
    throttle.flush()
    log.close()
    sent = 2 * count * (len(text.encode()) + 40)
    assert log.path.stat().st_size < 2 * sent
    repeated = [line for line in lines(log.path) if line["event"] != "audit.head"]
    assert sum(int(str(line.get("count", 1))) for line in repeated) == 2 * count
