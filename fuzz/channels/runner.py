"""Runs one case through the proxy, and gives both accounts and the record to the oracle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fuzz.channels import wire as w
from fuzz.channels.client import BACK, Client
from fuzz.channels.script import VARIANTS, Case, Step
from fuzz.channels.server import Server
from fuzz.channels.stack import Stack

#: Longer than any limit of the proxy on a target that does not answer.
LONG = 900.0
ROUNDS = 60
#: Cases of one proxy: with more, its audit would only count what one user does so often.
USES = 20
#: The number of the channel that is opened when everything else has settled.
PROBE = 90


@dataclass(slots=True)
class Recording:
    """One recording as it lies on the disk."""

    sid: str
    lines: list[Any]
    manifest: dict[str, Any] | None


@dataclass(slots=True)
class Outcome:
    """All that is known after a case. ``alive``: the connection was still there when all had settled."""

    client: Client
    server: Server
    recordings: list[Recording] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    alive: bool = False
    stuck: list[str] = field(default_factory=list)


class Stacks:
    """One proxy for each variant, made when a case needs it. ``only``: the problems that count, a pattern."""

    def __init__(self, only: str = "") -> None:
        self.only = only
        self._made: dict[int, Stack] = {}
        self._uses: dict[int, int] = {}

    def __getitem__(self, variant: int) -> Stack:
        if self._uses.get(variant, 0) >= USES:
            self._made.pop(variant).close()
            self._uses[variant] = 0
        self._uses[variant] = self._uses.get(variant, 0) + 1
        if variant not in self._made:
            chosen = VARIANTS[variant]
            self._made[variant] = Stack(
                settings=chosen.settings, options=chosen.options, rekey_bytes=chosen.rekey_bytes
            )
        return self._made[variant]

    def close(self) -> None:
        """Close everything."""
        for stack in self._made.values():
            stack.close()


def run(stack: Stack, case: Case) -> Outcome:
    """Run a case on a connection of its own."""
    stack.events()
    stack.forget()
    client = Client(lambda number, payload: stack.client.send(number, payload) if stack.client else None)
    server = Server(lambda number, payload: stack.server.send(number, payload) if stack.server else None,
                    case.manners)  # fmt: skip
    stack.client_received, stack.server_received = client.received, server.received
    stack.connect()
    for step in case.steps:
        perform(stack, client, server, step)
    outcome = Outcome(client, server)
    _settle(stack, client, server)
    outcome.alive = stack.alive
    if outcome.alive:
        outcome.stuck = stuck(client, server)
        outcome.stuck += _probe(stack, client, server)
    _end(stack, client, server)
    stack.disconnect()
    stack.settle()
    outcome.events = stack.events()
    for sid in stack.sids():
        outcome.recordings.append(Recording(sid, *stack.recording(sid)))
    return outcome


def perform(stack: Stack, client: Client, server: Server, step: Step) -> None:
    """One step of a script."""
    name = str(step[0])
    values: Any = step[1:]
    if name.startswith("c."):
        client_step(client, step)
    elif name == "s.say":
        # What a reply means must not depend on requests that are on their way.
        stack.pump()
        server.say(*values)
        stack.pump()
    elif name == "s.req":
        index, *request = values
        server.request(index, w.Request(*request))
    elif name == "s.open":
        server.open(*values)
    elif name == "s.ask":
        server.ask(w.Request(*values))
    elif name == "settle":
        client.relax()
        server.relax()
        stack.settle()
    elif name == "tick":
        stack.reactor.advance(*values)
    elif name in ("pump", "up", "down"):
        {"pump": stack.pump, "up": stack.up, "down": stack.down}[name](*values)
    else:
        acts: dict[str, Any] = {
            "s.reply": server.reply,
            "s.out": server.output,
            "s.early": server.early_output,
            "s.rude": server.rude_output,
            "s.adjust": server.adjust,
            "s.eof": server.eof,
            "s.close": server.close,
            "s.answer": server.answer,
        }
        acts[name](*values)


def client_step(client: Client, step: Step) -> None:
    """One step of the client."""
    name = str(step[0])
    values: Any = step[1:]
    if name == "c.open":
        index, kind, window, packet, extra, generous = values
        client.open(index, kind, window, packet, extra, generous=generous)
    elif name == "c.req":
        index, *request = values
        client.request(index, w.Request(*request))
    elif name == "c.ask":
        client.ask(w.Request(*values))
    else:
        acts: dict[str, Any] = {
            "c.data": client.data,
            "c.eof": client.eof_when_sent,
            "c.rude": client.rude_data,
            "c.big": client.oversized,
            "c.say": client.say,
            "c.adjust": client.adjust,
            "c.close": client.close,
            "c.answer": client.answer,
        }
        acts[name](*values)


def _settle(stack: Stack, client: Client, server: Server) -> None:
    """Both sides read, grant and answer until nothing moves any more."""
    before: object = None
    for _ in range(ROUNDS):
        client.relax()
        server.relax()
        stack.settle()
        now = [
            *(
                (len(own.sent), len(own.stdout), len(own.stderr), len(own.replies), own.window, own.granted)
                for own in client.channels.values()
            ),
            *(
                (
                    len(own.stdin),
                    len(own.received),
                    own.window,
                    own.granted,
                    len(own.to_send),
                    len(own.replies),
                )
                for own in server.channels
            ),
        ]
        if now == before:
            return
        before = now


def stuck(client: Client, server: Server) -> list[str]:
    """What the two would still wait for, now that nothing moves: replies, data, and window that the proxy
    does not give back."""
    texts = []
    for near, far in pairs(client, server):
        if near.closed or near.sent_close or far.sent_close or far.got_close or far.rude:
            continue
        where = f"channel {near.index}"
        if len(near.replies) != near.wanted and not far.manners.silent:
            texts.append(f"{where}: {len(near.replies)} replies to {near.wanted} requests")
        if far.kind == b"session" and (far.start is None or far.manners.silent):
            # Not started, as far as the proxy can know.
            continue
        if not near.overdrawn and not near.sent_eof and near.window != far.granted:
            texts.append(f"{where}: the client may send {near.window}, the server granted {far.granted}")
        if not far.sent_eof and far.window != near.granted:
            texts.append(f"{where}: the server may send {far.window}, the client granted {near.granted}")
        if far.to_send:
            texts.append(f"{where}: the server cannot send")
        for error, given in ((False, near.stdout), (True, near.stderr)):
            sent = b"".join(data for which, data in far.output if which is error)
            if sent != given:
                texts.append(f"{where}: the server sent {len(sent)}, the client was given {len(given)}")
        if not near.rude and (near.to_send or bytes(near.sent) != bytes(far.stdin)):
            texts.append(
                f"{where}: the client sent {len(near.sent)} and has {len(near.to_send)} left,"
                f" the server was given {len(far.stdin)}"
            )
    return texts


def _probe(stack: Stack, client: Client, server: Server) -> list[str]:
    """What happened before must not be in the way of an honest session in the same connection."""
    server.honest = True
    client.open(PROBE, b"session", 1 << 21, 32768, b"", generous=True)
    stack.settle(1)
    client.request(PROBE, w.Request(b"exec", True, w.text(b"the probe")))
    stack.settle()
    client.data(PROBE, b"a probe")
    client.eof_when_sent(PROBE)
    stack.settle()
    channel = client.channels[PROBE]
    if channel.replies == [True] and channel.stdout == b"a probe":
        return []
    return [f"an honest session after it: replies {channel.replies}, {len(channel.stdout)} bytes back"]


def pairs(client: Client, server: Server) -> list[tuple[Any, Any]]:
    """The channels of the client with those of the server that belong to them; they were opened in order."""
    relayed = [
        channel for channel in client.channels.values() if channel.kind in (b"session", b"direct-tcpip")
    ]
    back = [channel for channel in client.channels.values() if channel.index >= BACK]
    there = [channel for channel in server.channels if not channel.is_back]
    opened = [channel for channel in server.channels if channel.is_back and channel.opened]
    return [*zip(relayed, there, strict=False), *zip(back, opened, strict=False)]


def _end(stack: Stack, client: Client, server: Server) -> None:
    """The server's processes end; the client closes the channels that still wait."""
    for index in (*range(len(server.channels)), *range(BACK, BACK + len(server.channels))):
        server.eof(index)
        server.close(index)
    stack.settle()
    if any(channel.manners.silent for channel in server.channels):
        for _ in range(10):
            stack.settle(LONG / 10)
    for index in tuple(client.channels):
        client.close(index)
    stack.settle()
