"""A sink in front of the audit log: it counts frequent minor events instead of writing each of them.

One user who sends thousands of window sizes a second, or is refused as often, would fill the disk with them.
Beyond a rate such events are counted. A ``repeated`` event has their number, the times of the first and the
last, and some examples: it is written at the end of the connection, and every ten seconds.

Events that are evidence of an act (a login, a session, a command, a file, a signature …) are always written.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import Enum
from itertools import takewhile

from conchrec.access.rate_limit import counted_as
from conchrec.audit.encoder import timestamp
from conchrec.audit.events import (
    Agent,
    AuditEvent,
    AuditSink,
    AuthRefused,
    ClientDisconnect,
    ConnectionRefused,
    Env,
    MessageDropped,
    Port,
    RecordingFailed,
    Repeated,
    Resize,
    SessionRejected,
    Signal,
    UnknownRequest,
    UpstreamFailed,
    Who,
    X11Forward,
)
from conchrec.clock import utc_now
from conchrec.errors import WriteFailed
from conchrec.token_bucket import Rate, TokenBucket

FLUSH_SECONDS = 10.0
"""The longest delay of a ``repeated`` event."""
MOST_GROUPS = 10_000
"""The most groups; beyond it the oldest is written early."""
EXAMPLES = 5
_EXAMPLE_LENGTH = 160
DESTINATIONS = 64
"""The most destinations of a connection's forwards that are counted separately."""

_WHO = ("user", "login", "target", "addr", "cid", "sid")
Key = tuple[str, ...]


class RateGroup(Enum):
    """The rates of events: for one connection, and for all connections of one user."""

    MINOR = (Rate(100, 5), Rate(1000, 20))
    FREQUENT = (Rate(1000, 50), Rate(5000, 200))
    """What ordinary programs do often: forwards of a browser, environment variables."""
    UNAUTHENTICATED = (Rate(100, 2), Rate(1000, 20))
    """The rates of one address, and of all addresses: a stranger who is refused connects again, and can name
    any user."""


#: The rate of every group while the disk is almost full.
_DISK_LOW_RATE = Rate(3, 0.1)

_MINOR = (Resize, Signal, UnknownRequest, MessageDropped, SessionRejected, UpstreamFailed)


def rate_group(event: AuditEvent) -> RateGroup | None:
    """Return the rates for an event, or None where it is evidence of an act and is always written."""
    if isinstance(event, _MINOR):
        return RateGroup.MINOR
    if isinstance(event, Env):
        return RateGroup.FREQUENT
    if isinstance(event, AuthRefused | ConnectionRefused):
        return RateGroup.UNAUTHENTICATED
    if isinstance(event, Port):
        if event.action in ("refused", "cancel"):
            return RateGroup.MINOR
        return RateGroup.FREQUENT if event.action in ("open", "close") else None
    if isinstance(event, X11Forward):
        return RateGroup.MINOR if event.action in ("refused", "request") else RateGroup.FREQUENT
    if isinstance(event, Agent):
        return RateGroup.MINOR if event.action == "refused" else None
    if isinstance(event, RecordingFailed):
        # Where the role is strict, the session does not start or ends: it is one more refusal.
        return RateGroup.MINOR if event.policy == "strict" else None
    return None


@dataclass(slots=True)
class _Group:
    """Events that are counted together."""

    of: str
    began: float
    who: dict[str, str]
    first: datetime
    last: datetime
    count: int = 0
    size: int | None = None
    examples: list[str] = field(default_factory=list)
    #: SHA-256 of the digests of the events, each with a newline.
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    has_digest: bool = False

    def add(self, event: AuditEvent, now: datetime) -> None:
        """Count an event."""
        # Some events have a count of their own.
        self.count += getattr(event, "count", 1)
        self.last = now
        for name in _WHO:
            if self.who[name] != getattr(event, name):
                self.who[name] = ""
        sizes = [value for name in ("size", "sent", "received") if (value := getattr(event, name, None))]
        if sizes:
            self.size = (self.size or 0) + sum(sizes)
        if sha256 := getattr(event, "sha256", ""):
            self.digest.update(sha256.encode() + b"\n")
            self.has_digest = True
        if len(self.examples) < EXAMPLES and (text := _example(event)) not in self.examples:
            self.examples.append(text)

    def event(self) -> Repeated:
        """Return the ``repeated`` event."""
        who = Who(**self.who)  # type: ignore[typeddict-item]
        return Repeated(
            **who,
            of=self.of,
            count=self.count,
            first=timestamp(self.first),
            last=timestamp(self.last),
            size=self.size,
            sha256=self.digest.hexdigest() if self.has_digest else "",
            examples=tuple(self.examples),
        )


class AuditThrottle:
    """An AuditSink that counts repeated events.

    ``tick`` is called about once a second, and ``flush`` at the end. ``lost`` is called with the reason when
    a ``repeated`` event could not be written.
    """

    def __init__(
        self,
        sink: AuditSink,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        lost: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._sink = sink
        self._monotonic = monotonic
        self._now = now
        self._lost = lost
        #: The disk is almost full: events that can be counted are, after the first three.
        self.is_disk_low = False
        #: Only those that are full are removed: an empty one must not be full again before its time.
        self._buckets: dict[Key, TokenBucket] = {}
        self._pruned = monotonic()
        #: Oldest first.
        self._groups: dict[Key, _Group] = {}
        #: The groups of each connection.
        self._connection_groups: dict[str, dict[Key, None]] = {}

    # -- AuditSink

    def emit(self, event: AuditEvent) -> None:
        """Write the event, or count it. Raises WriteFailed."""
        group = rate_group(event)
        key = self._group_key(event, group) if group is not None else ()
        if key:
            self._count(key, event)
            return
        if isinstance(event, ClientDisconnect):
            self._write(tuple(self._connection_groups.get(event.cid, ())))
        self._sink.emit(event)

    def reopen(self) -> None:
        """Write later events to a new file. Raises WriteFailed."""
        self._sink.reopen()

    # -- called by the owner

    @property
    def entry_count(self) -> int:
        """How many groups, connections with groups, and token buckets are in memory."""
        return len(self._groups) + len(self._connection_groups) + len(self._buckets)

    def tick(self) -> None:
        """Write the groups that were counted long enough."""
        now = self._monotonic()
        if now - self._pruned >= FLUSH_SECONDS:
            self._buckets = {
                key: bucket for key, bucket in self._buckets.items() if bucket.fill(now) < bucket.rate.burst
            }
            self._pruned = now
        old = takewhile(lambda item: item[1].began <= now - FLUSH_SECONDS, self._groups.items())
        self._write(tuple(key for key, _ in old))

    def flush(self) -> None:
        """Write all groups."""
        self._write(tuple(self._groups))

    # -- groups

    def _group_key(self, event: AuditEvent, group: RateGroup) -> Key:
        """Return the group in which the event is counted; empty where it is within its rate."""
        connection_rate, user_rate = (_DISK_LOW_RATE, _DISK_LOW_RATE) if self.is_disk_low else group.value
        if group is RateGroup.UNAUTHENTICATED:
            key: Key = (group.name, _address_group(event.addr), event.event)
            if not self._take(key, connection_rate):
                return key
            return () if self._take((group.name,), user_rate) else (group.name, "", event.event)
        if not self._take((group.name, "cid", event.cid), connection_rate):
            return self._connection_key(event)
        if not self._take((group.name, "user", event.user), user_rate):
            return (group.name, event.user, event.event)
        return ()

    def _take(self, key: Key, rate: Rate) -> bool:
        """Return whether the rate allows one more event to be written, and count it then."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(rate)
        bucket.rate = rate
        return bucket.take(self._monotonic())

    def _connection_key(self, event: AuditEvent) -> Key:
        key: Key = ("cid", event.cid, event.event)
        if not isinstance(event, Port):
            return key
        full: Key = (*key, event.action, event.kind, event.destination)
        groups = self._connection_groups.get(event.cid, {})
        return full if full in groups or len(groups) < DESTINATIONS else (*key, event.action, event.kind)

    def _count(self, key: Key, event: AuditEvent) -> None:
        now = self._now()
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MOST_GROUPS:
                self._write((next(iter(self._groups)),))
            who = {name: getattr(event, name) for name in _WHO}
            group = self._groups[key] = _Group(event.event, self._monotonic(), who, now, now)
            if key[0] == "cid":
                self._connection_groups.setdefault(event.cid, {})[key] = None
        group.add(event, now)

    def _write(self, keys: Iterable[Key]) -> None:
        for key in keys:
            group = self._groups.pop(key)
            if key[0] == "cid":
                groups = self._connection_groups[key[1]]
                del groups[key]
                if not groups:
                    del self._connection_groups[key[1]]
            try:
                self._sink.emit(group.event())
            except WriteFailed as error:
                self._lost(error.detail)


def _address_group(address: str) -> str:
    """Return what an address, with or without a port, counts as: an IPv6 address counts as its /64."""
    has_port = address.startswith("[") or address.count(":") == 1
    return counted_as(address.rpartition(":")[0].strip("[]") if has_port else address)


def _example(event: AuditEvent) -> str:
    """Return the event's own fields, on one line."""
    own = [item.name for item in fields(event) if item.name not in _WHO and item.name != "size"]
    values = {name: value for name in own if (value := getattr(event, name)) not in (None, "", ())}
    texts = (f"{name}={str(value)[:_EXAMPLE_LENGTH]}" for name, value in values.items())
    return " ".join(texts)[:_EXAMPLE_LENGTH]
