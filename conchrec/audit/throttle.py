"""A sink in front of the audit log that counts frequent events of little weight instead of writing each.

One user who sends thousands of window sizes a second, or is refused as often, would fill the disk with them.
Beyond a rate such events are counted, and a ``repeated`` event tells how many there were, in what time, and
some of them: at the end of the connection, and every ten seconds.

What is evidence of an act (a login, a session, a command, a file, a signature …) is never counted only: such
events pass as they are.
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

FLUSH_SECONDS = 10.0
"""How late a ``repeated`` event may be."""
MOST_GROUPS = 10_000
"""Beyond these the oldest is written before its time."""
EXAMPLES = 5
_EXAMPLE_LENGTH = 160
DESTINATIONS = 64
"""Of a connection's forwards; those of further destinations are counted together."""

_WHO = ("user", "login", "target", "addr", "cid", "sid")
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` events at once, and then ``per_second``."""

    burst: int
    per_second: float


class RateGroup(Enum):
    """How often events pass: of one connection, and of all connections of one user."""

    TRIFLE = (Rate(100, 5), Rate(1000, 20))
    FREQUENT = (Rate(1000, 50), Rate(5000, 200))
    """What honest programs do by the dozen: forwards of a browser, environment variables."""
    STRANGER = (Rate(100, 2), Rate(1000, 20))
    """Of one address, and of all: a stranger who is refused connects again, and names any user."""


#: Of any kind, while the disk is almost full.
_TIGHT = Rate(3, 0.1)

_TRIFLES = (Resize, Signal, UnknownRequest, MessageDropped, SessionRejected, UpstreamFailed)


def kind_of(event: AuditEvent) -> RateGroup | None:
    """None: it is evidence of an act, and is written whatever its number."""
    if isinstance(event, _TRIFLES):
        return RateGroup.TRIFLE
    if isinstance(event, Env):
        return RateGroup.FREQUENT
    if isinstance(event, AuthRefused | ConnectionRefused):
        return RateGroup.STRANGER
    if isinstance(event, Port):
        if event.action in ("refused", "cancel"):
            return RateGroup.TRIFLE
        return RateGroup.FREQUENT if event.action in ("open", "close") else None
    if isinstance(event, X11Forward):
        return RateGroup.TRIFLE if event.action in ("refused", "request") else RateGroup.FREQUENT
    if isinstance(event, Agent):
        return RateGroup.TRIFLE if event.action == "refused" else None
    if isinstance(event, RecordingFailed):
        # Where the role is strict nothing happened: it is one more refusal.
        return RateGroup.TRIFLE if event.policy == "strict" else None
    return None


class _Buckets:
    """Token buckets, by key; those that are full are forgotten."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        #: Tokens, when that many, and the rate.
        self._levels: dict[Key, tuple[float, float, Rate]] = {}

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: Key, rate: Rate) -> bool:
        """Is there one left?"""
        now = self._monotonic()
        tokens, since, _ = self._levels.get(key, (rate.burst, now, rate))
        tokens = min(rate.burst, tokens + (now - since) * rate.per_second)
        is_left = tokens >= 1
        self._levels[key] = (tokens - 1 if is_left else tokens, now, rate)
        return is_left

    def prune(self) -> None:
        now = self._monotonic()
        for key, (tokens, since, rate) in tuple(self._levels.items()):
            if tokens + (now - since) * rate.per_second >= rate.burst:
                del self._levels[key]


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
    #: Of the events' own digests, each with a newline.
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    has_digest: bool = False

    def add(self, event: AuditEvent, now: datetime) -> None:
        # Some events tell of several things themselves.
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

    ``tick`` is called about once a second, ``flush`` at the end. ``lost`` is called with the
    reason when a ``repeated`` event could not be written.
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
        #: The disk is almost full: what can be counted is, almost from the first on.
        self.is_tight = False
        self._buckets = _Buckets(monotonic)
        self._pruned = monotonic()
        #: Oldest first.
        self._groups: dict[Key, _Group] = {}
        #: The groups of each connection.
        self._of: dict[str, dict[Key, None]] = {}

    # -- AuditSink

    def emit(self, event: AuditEvent) -> None:
        """The event is kept, or counted. Raises WriteFailed."""
        kind = kind_of(event)
        key = self._counted_with(event, kind) if kind is not None else ()
        if key:
            self._count(key, event)
            return
        if isinstance(event, ClientDisconnect):
            self._write(tuple(self._of.get(event.cid, ())))
        self._sink.emit(event)

    def reopen(self) -> None:
        """See AuditSink."""
        self._sink.reopen()

    # -- who holds it

    def tick(self) -> None:
        """Write what was counted long enough."""
        now = self._monotonic()
        if now - self._pruned >= FLUSH_SECONDS:
            self._buckets.prune()
            self._pruned = now
        old = takewhile(lambda item: item[1].began <= now - FLUSH_SECONDS, self._groups.items())
        self._write(tuple(key for key, _ in old))

    def flush(self) -> None:
        """Write all that was counted."""
        self._write(tuple(self._groups))

    # -- groups

    def _counted_with(self, event: AuditEvent, kind: RateGroup) -> Key:
        """The group that it is counted in; empty: it is within its rate."""
        of_connection, of_user = (_TIGHT, _TIGHT) if self.is_tight else kind.value
        if kind is RateGroup.STRANGER:
            key: Key = (kind.name, _network(event.addr), event.event)
            if not self._buckets.take(key, of_connection):
                return key
            return () if self._buckets.take((kind.name,), of_user) else (kind.name, "", event.event)
        if not self._buckets.take((kind.name, "cid", event.cid), of_connection):
            return self._of_connection(event)
        if not self._buckets.take((kind.name, "user", event.user), of_user):
            return (kind.name, event.user, event.event)
        return ()

    def _of_connection(self, event: AuditEvent) -> Key:
        key: Key = ("cid", event.cid, event.event)
        if not isinstance(event, Port):
            return key
        full: Key = (*key, event.action, event.kind, event.destination)
        groups = self._of.get(event.cid, {})
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
                self._of.setdefault(event.cid, {})[key] = None
        group.add(event, now)

    def _write(self, keys: Iterable[Key]) -> None:
        for key in keys:
            group = self._groups.pop(key)
            if key[0] == "cid":
                groups = self._of[key[1]]
                del groups[key]
                if not groups:
                    del self._of[key[1]]
            try:
                self._sink.emit(group.event())
            except WriteFailed as error:
                self._lost(error.detail)


def _network(address: str) -> str:
    """As which an address, with or without a port, counts."""
    has_port = address.startswith("[") or address.count(":") == 1
    return counted_as(address.rpartition(":")[0].strip("[]") if has_port else address)


def _example(event: AuditEvent) -> str:
    """What is the event's own, on one line."""
    own = [item.name for item in fields(event) if item.name not in _WHO and item.name != "size"]
    values = {name: value for name in own if (value := getattr(event, name)) not in (None, "", ())}
    texts = (f"{name}={str(value)[:_EXAMPLE_LENGTH]}" for name, value in values.items())
    return " ".join(texts)[:_EXAMPLE_LENGTH]
