"""Global requests between a user and a target, through the whole proxy: cancelled and refused ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from fuzz.channels import wire as w
from tests.golden.codes import Codes
from tests.golden.scene import Scene

WHERE = w.text(b"127.0.0.1") + w.u32(8080)


class Received:
    """The global requests that one side of a scene received, and the replies to its own."""

    def __init__(self, received: Callable[[int, bytes], None]) -> None:
        self.requests: list[w.Request] = []
        self.replies: list[bool] = []
        self._received = received

    def __call__(self, number: int, payload: bytes) -> None:
        """Note a message, and pass it on."""
        if number == w.GLOBAL_REQUEST:
            self.requests.append(w.Request.parse(payload))
        elif number in (w.REQUEST_SUCCESS, w.REQUEST_FAILURE):
            self.replies.append(number == w.REQUEST_SUCCESS)
        self._received(number, payload)


@contextmanager
def connected(**options: object) -> Iterator[tuple[Scene, Received, Received]]:
    """A user who is at the target, with these options, and what the user and the target receive."""
    scene = Scene(Codes(), options=options)
    try:
        scene.begin()
        user, target = Received(scene.client_received), Received(scene.server_received)
        scene.client_received, scene.server_received = user, target
        yield scene, user, target
    finally:
        scene.close()


@pytest.mark.parametrize("wants_reply", [True, False])
def test_cancels_remote_forward_that_is_no_longer_allowed(wants_reply: bool) -> None:
    """Also if the user wanted no reply."""
    with connected(remote_forwarding=True) as (scene, user, target):
        scene.user.ask(w.Request(b"tcpip-forward", wants_reply, WHERE))
        scene.settle()
        assert target.requests == [w.Request(b"tcpip-forward", wants_reply, WHERE)]
        scene.target.answer(True)
        scene.settle()
        assert user.replies == [True] * wants_reply
        scene.set_options(remote_forwarding=True, exec=False)
        assert len(target.requests) == 1
        scene.events()
        scene.set_options(remote_forwarding=False)
        cancelled = target.requests[-1]
        assert (cancelled.name, cancelled.extra) == (b"cancel-tcpip-forward", WHERE)
        event = scene.events()[-1]
        assert (event["event"], event["action"], event["destination"]) == ("port", "cancel", "127.0.0.1:8080")


@pytest.mark.parametrize("allowed", [True, False])
def test_forwards_unknown_requests_only_if_allowed(allowed: bool) -> None:
    with connected(unknown_requests=allowed) as (scene, user, target):
        for name in (b"new@example.com", b"keepalive@openssh.com"):
            scene.user.ask(w.Request(name, True, b""))
            scene.target.ask(w.Request(name, True, b""))
        scene.settle()
        for side in (user, target):
            names = [request.name for request in side.requests]
            assert names == [b"new@example.com"] * allowed + [b"keepalive@openssh.com"]
        for _ in range(2):
            scene.user.answer(True)
            scene.target.answer(True)
        scene.settle()
        assert user.replies == target.replies == [allowed, True]
        unknown = [event["sender"] for event in scene.events() if event["event"] == "request.unknown"]
        assert unknown.count("target") == 1
