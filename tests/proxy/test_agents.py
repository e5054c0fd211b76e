"""Channels to the user's agent: what they are opened for, and how opening them fails."""

from __future__ import annotations

from typing import cast

import pytest

from conchrec.proxy.agents import AgentSource
from conchrec.ssh.agent import AgentClient, AgentError, AgentKeyManager
from conchrec.ssh.connection import Channel, ChannelReceiver, Connection


class Client:
    """The connection with the user's client; ``receivers`` are those of the channels that it has to open."""

    stopped = False

    def __init__(self) -> None:
        self.receivers: list[ChannelReceiver] = []

    def open(self, kind: bytes, receiver: ChannelReceiver, **sizes: object) -> Channel:
        assert kind == b"auth-agent@openssh.com"
        self.receivers.append(receiver)
        return cast(Channel, None)


def source(client: Client) -> AgentSource:
    it = AgentSource("outer")
    it.connection = cast(Connection, client)
    return it


def test_returns_key_manager_only_for_commands_of_user() -> None:
    client = Client()
    it = source(client)
    opened: list[AgentClient] = []
    it.open().addCallback(opened.append)
    it.open_key_manager().addCallback(opened.append)
    for receiver in client.receivers:
        receiver.opened(1024, 1024, b"")
    assert [type(agent) for agent in opened] == [AgentClient, AgentKeyManager]


def test_reports_agent_error_when_client_refuses_channel() -> None:
    client = Client()
    it = source(client)
    failed: list[object] = []
    it.open_key_manager().addErrback(lambda failure: failed.append(failure.value))
    client.receivers[0].refused(1, b"no")
    (error,) = failed
    assert isinstance(error, AgentError)
    assert it.refused


@pytest.mark.parametrize("stopped", [True, False])
def test_reports_agent_error_without_connection(stopped: bool) -> None:
    client = Client()
    client.stopped = stopped
    it = source(client)
    if not stopped:
        it.connection = None
    failed: list[object] = []
    it.open_key_manager().addErrback(lambda failure: failed.append(failure.value))
    assert isinstance(failed[0], AgentError)
    assert client.receivers == []
