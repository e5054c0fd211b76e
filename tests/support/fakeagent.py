"""Agents that are not OpenSSH's, on a socket: what they do with a certificate is the test's choice."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import cast

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.unix import Server

from conchrec.ssh import agent_messages as a
from conchrec.ssh.wire import Reader, string
from tests.support.stage import Stage
from tests.support.wait import reactor


class Habit(Enum):
    """What it does when it is to keep a key with its certificate."""

    REFUSES = "as gpg-agent does"
    DROPS_CERTIFICATE = "as GNOME Keyring does: the plain key stays"
    FORGETS = "it says yes, and has nothing"
    SILENT = "it says nothing at all"


class FakeAgent:
    """``keys`` are the blobs that it holds, ``asked`` the numbers of all requests."""

    def __init__(self, stage: Stage, habit: Habit) -> None:
        self.habit = habit
        self.keys: list[bytes] = []
        self.requests: list[int] = []
        self.socket: Path = stage.short / stage.unique("fake")
        factory = Factory.forProtocol(_Connection)
        factory.noisy = False
        factory.agent = self  # type: ignore[attr-defined]
        port = reactor.listenUNIX(str(self.socket), factory)

        async def end() -> None:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped

        stage.at_end(end)

    def answer(self, message: bytes) -> bytes | None:
        """The reply; None if the agent does not answer."""
        self.requests.append(message[0])
        if message[0] == a.REQUEST_IDENTITIES:
            return a.identities_answer((blob, b"") for blob in self.keys)
        if message[0] == a.ADD_ID_CONSTRAINED:
            return self._add(message)
        if message[0] == a.REMOVE_IDENTITY:
            self.keys.remove(Reader(message[1:]).string())
            return a.encode_message(a.SUCCESS)
        return a.encode_message(a.FAILURE)

    def _add(self, message: bytes) -> bytes | None:
        if self.habit is Habit.REFUSES:
            return a.encode_message(a.FAILURE)
        if self.habit is Habit.SILENT:
            return None
        if self.habit is Habit.DROPS_CERTIFICATE:
            r = Reader(message[1:])
            r.string()
            r.string()
            self.keys.append(string(b"ssh-ed25519") + string(r.string()))
        return a.encode_message(a.SUCCESS)


class _Connection(Protocol):
    def __init__(self) -> None:
        self._frames = a.AgentFrames()

    def dataReceived(self, data: bytes) -> None:
        agent: FakeAgent = self.factory.agent
        self._frames.feed(data)
        while (message := self._frames.next_message()) is not None:
            reply = agent.answer(message)
            if reply is not None:
                cast(Server, self.transport).write(a.frame(reply))
