"""Channels to the user's agent: what they are opened for, and how opening them fails."""

from __future__ import annotations

import pytest

from conchrec.proxy.agents import AgentSource
from conchrec.ssh.agent import AgentClient, AgentError, AgentKeyManager
from conchrec.ssh.connection import IncomingOpen
from tests.support.loop import Handler, Loop, Receiver


class Client:
    """The connection to the user's client, and the channels that it must open."""

    def __init__(self) -> None:
        self.handler = Handler()
        self._loop = Loop(Handler(), self.handler)
        self.agent = AgentSource("outer")
        self.agent.connection = self._loop.left

    def openings(self) -> list[IncomingOpen]:
        self._loop.pump()
        return self.handler.openings

    def confirm_all(self) -> None:
        for opening in self.openings():
            opening.confirm(Receiver(), 1024, 1024)
        self._loop.pump()

    def refuse(self) -> None:
        (opening,) = self.openings()
        opening.refuse(1, "no")
        self._loop.pump()

    def stop(self) -> None:
        self._loop.left.serviceStopped()


def test_returns_key_manager_only_for_commands_of_user() -> None:
    client = Client()
    opened: list[AgentClient] = []
    client.agent.open().addCallback(opened.append)
    client.agent.open_key_manager().addCallback(opened.append)
    assert [opening.channel.kind for opening in client.openings()] == [b"auth-agent@openssh.com"] * 2
    client.confirm_all()
    assert [type(agent) for agent in opened] == [AgentClient, AgentKeyManager]


def test_reports_agent_error_when_client_refuses_channel() -> None:
    client = Client()
    failed: list[object] = []
    client.agent.open_key_manager().addErrback(lambda failure: failed.append(failure.value))
    client.refuse()
    (error,) = failed
    assert isinstance(error, AgentError)
    assert client.agent.refused


@pytest.mark.parametrize("stopped", [True, False])
def test_reports_agent_error_without_connection(stopped: bool) -> None:
    client = Client()
    if stopped:
        client.stop()
    else:
        client.agent.connection = None
    failed: list[object] = []
    client.agent.open_key_manager().addErrback(lambda failure: failed.append(failure.value))
    assert isinstance(failed[0], AgentError)
    assert client.openings() == []
