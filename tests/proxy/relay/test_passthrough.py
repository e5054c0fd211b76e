"""Connections that nothing records, in a proxy in memory: what happens after their ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.protocol import Protocol

from fuzz.channels import wire as w
from fuzz.channels.memory import TARGET
from tests.golden.codes import Codes
from tests.golden.scene import PACKET, WINDOW, Scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene(Codes(), settings={"session_recording": "off"})
    try:
        yield scene
    finally:
        scene.close()


def test_keeps_connection_of_user_when_policy_changes_after_target_closed(scene: Scene) -> None:
    """The passthrough is checked until the user's client has closed the channel, too."""
    scene.begin()
    scene.reactor.lines[1].cut()
    scene.reactor.advance(0)
    (connection,) = scene.proxy.context.registry.connections
    assert connection.target_channel_count == 1
    connection.recheck()
    scene.settle()
    assert scene.proxy.context.registry.connections == (connection,)


def test_closes_target_when_user_leaves_in_turn_of_its_connection(scene: Scene) -> None:
    """The dial is cancelled when the socket is connected, and nobody has been told yet."""

    def connect() -> Protocol:
        scene.reactor.callLater(-1, scene.reactor.lines[0].cut)
        return Protocol()

    scene.target_protocol = connect
    scene.come()
    payload = w.text(TARGET.host.encode()) + w.u32(TARGET.port) + w.text(b"") + w.u32(0)
    scene.jump.open(1, b"direct-tcpip", WINDOW, PACKET, payload, generous=True)
    scene.settle()
    user, target = scene.reactor.lines
    assert user.closed
    assert target.closed
