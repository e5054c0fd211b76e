"""An AgentClient at the socket of a real agent."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.unix import Client
from twisted.python.failure import Failure

from conchrec.ssh.agent import AgentClient, AgentKeyManager
from tests.support.agent import Agent
from tests.support.stage import Stage
from tests.support.wait import in_time, reactor

_Client = TypeVar("_Client", bound=AgentClient)


class _Socket(Protocol, Generic[_Client]):
    def __init__(self, kind: type[_Client]) -> None:
        self._kind = kind
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        transport = cast(Client, self.transport)
        self.client = self._kind(transport.write, transport.loseConnection)

    def dataReceived(self, data: bytes) -> None:
        self.client.data_received(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.client.connection_lost()
        self.gone.callback(None)


async def connect_agent(stage: Stage, agent: Agent) -> AgentClient:
    """A new connection to the agent, closed with the stage."""
    return await _connect(stage, agent, AgentClient)


async def connect_keeper(stage: Stage, agent: Agent) -> AgentKeyManager:
    """The same, to put keys in."""
    return await _connect(stage, agent, AgentKeyManager)


async def _connect(stage: Stage, agent: Agent, kind: type[_Client]) -> _Client:
    endpoint = UNIXClientEndpoint(reactor, str(agent.socket))
    socket: _Socket[_Client] = await connectProtocol(endpoint, _Socket(kind))

    async def end() -> None:
        socket.client.close()
        await in_time(socket.gone, lambda: "the agent's socket does not close")

    stage.at_end(end)
    return socket.client
