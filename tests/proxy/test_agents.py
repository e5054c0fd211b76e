"""What a channel to the user's agent can be used for is settled when it is opened."""

from __future__ import annotations

from typing import cast

import pytest

from conchrec.proxy.agents import AgentSource
from conchrec.ssh.agent import AgentClient, AgentError, AgentKeyManager
from conchrec.ssh.connection import Channel, ChannelReceiver, Connection


class Client:
    """The user's client, as the connection with it is seen; ``asked`` are the channels that it is to open."""

    stopped = False

    def __init__(self) -> None:
        self.asked: list[ChannelReceiver] = []

    def open(self, kind: bytes, receiver: ChannelReceiver, **sizes: object) -> Channel:
        assert kind == b"auth-agent@openssh.com"
        self.asked.append(receiver)
        return cast(Channel, None)


def source(client: Client) -> AgentSource:
    it = AgentSource("outer")
    it.connection = cast(Connection, client)
    return it


def test_only_a_command_of_the_users_can_put_keys_in() -> None:
    client = Client()
    it = source(client)
    opened: list[AgentClient] = []
    it.open().addCallback(opened.append)
    it.open_keeper().addCallback(opened.append)
    for receiver in client.asked:
        receiver.opened(1024, 1024, b"")
    assert [type(one) for one in opened] == [AgentClient, AgentKeyManager]


def test_a_client_that_opens_none() -> None:
    client = Client()
    it = source(client)
    failed: list[object] = []
    it.open_keeper().addErrback(lambda failure: failed.append(failure.value))
    client.asked[0].refused(1, b"no")
    (error,) = failed
    assert isinstance(error, AgentError)
    assert it.refused


@pytest.mark.parametrize("stopped", [True, False])
def test_a_connection_that_is_gone(stopped: bool) -> None:
    client = Client()
    client.stopped = stopped
    it = source(client)
    if not stopped:
        it.connection = None
    failed: list[object] = []
    it.open_keeper().addErrback(lambda failure: failed.append(failure.value))
    assert isinstance(failed[0], AgentError)
    assert client.asked == []
