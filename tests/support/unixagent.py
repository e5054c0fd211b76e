"""An AgentClient at the socket of a real agent."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.unix import Client
from twisted.python.failure import Failure

from conchrec.ssh.agent import AgentClient
from tests.support.agent import Agent
from tests.support.stage import Stage
from tests.support.waiting import in_time, reactor


class _Socket(Protocol):
    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        transport = cast(Client, self.transport)
        self.client = AgentClient(transport.write, transport.loseConnection)

    def dataReceived(self, data: bytes) -> None:
        self.client.data_received(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.client.connection_lost()
        self.gone.callback(None)


async def connect_agent(stage: Stage, agent: Agent) -> AgentClient:
    """A new connection to the agent, closed with the stage."""
    socket: _Socket = await connectProtocol(UNIXClientEndpoint(reactor, str(agent.socket)), _Socket())

    async def end() -> None:
        socket.client.close()
        await in_time(socket.gone, lambda: "the agent's socket does not close")

    stage.at_end(end)
    return socket.client
