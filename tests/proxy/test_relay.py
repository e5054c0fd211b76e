"""A relay between two connections in memory: order, windows, early confirmation, and every end."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from conchrec.errors import AccessDenied, ConchrecError, RecordingError
from conchrec.proxy.relay import EARLY_MAX_PACKET, SLACK, Relay, Verdict
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Channel
from conchrec.ssh.wire import string, uint32
from tests.support.loop import Handler, Loop, Receiver, request_body


class Watcher:
    """An Observer that keeps what it sees, and fails where it is told to."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.verdict = Verdict.PASS
        self.raises: ConchrecError | None = None
        self.raises_on_request: ConchrecError | None = None

    def requested(self, request: m.ChannelRequest) -> Verdict:
        self.seen.append(("requested", request.name))
        if self.raises_on_request is not None:
            raise self.raises_on_request
        return self.verdict

    def from_near(self, message: int, body: bytes) -> None:
        if self.raises is not None:
            raise self.raises
        self.seen.append(("near", message, body))

    def from_far(self, message: int, body: bytes) -> None:
        if self.raises is not None:
            raise self.raises
        self.seen.append(("far", message, body))

    def opened(self) -> None:
        self.seen.append(("opened",))

    def refused(self, code: int, text: bytes) -> None:
        self.seen.append(("refused", code, text))

    def failed(self, error: ConchrecError) -> str:
        self.seen.append(("failed", error.public))
        return "conchrec: " + error.public

    def finished(self) -> None:
        self.seen.append(("finished",))


class Stage:
    """user ↔ (relay) ↔ target, with the user's channel opened and the relay made."""

    def __init__(self, window: int = 1000, max_packet: int = 100) -> None:
        self.proxy, self.target_handler = Handler(), Handler()
        self.near = Loop(Handler(), self.proxy)
        self.far = Loop(Handler(), self.target_handler)
        self.user = Receiver()
        self.target = Receiver()
        self.user_channel: Channel = self.near.left.open(
            b"session", self.user, window=window, max_packet=max_packet
        )
        self.pump()
        self.watcher = Watcher()
        self.relay = Relay(self.proxy.openings[0], self.watcher)

    def pump(self) -> None:
        for _ in range(3):
            self.near.pump()
            self.far.pump()

    def grant(self, window: int = 500, max_packet: int = 50) -> Channel:
        """The target confirms."""
        self.pump()
        opening = self.target_handler.openings[-1]
        opening.confirm(self.target, window, max_packet)
        self.pump()
        return opening.channel

    def open(self) -> Channel:
        self.relay.dial(self.far.left)
        return self.grant()


def data(text: bytes) -> bytes:
    return string(text)


def test_the_far_end_hears_the_near_ends_own_window_and_grants_its_own() -> None:
    stage = Stage(window=4321, max_packet=123)
    stage.relay.dial(stage.far.left)
    stage.pump()
    asked = stage.target_handler.openings[0].request
    assert (asked.kind, asked.window, asked.max_packet) == (b"session", 4321, 123)
    assert stage.user.heard == []  # nothing is confirmed before the target has
    stage.grant(window=777, max_packet=55)
    assert stage.user.heard == [("opened", 777, 55, b"")]


def test_everything_passes_both_ways_in_order() -> None:
    stage = Stage()
    there = stage.open()
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"ls")))
    stage.user_channel.send(m.CHANNEL_DATA, data(b"in"))
    stage.user_channel.send(m.CHANNEL_EOF)
    stage.pump()
    assert stage.target.heard == [
        (m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"ls"))),
        (m.CHANNEL_DATA, data(b"in")),
        (m.CHANNEL_EOF, b""),
    ]
    there.send(m.CHANNEL_SUCCESS)
    there.send(m.CHANNEL_DATA, data(b"out"))
    there.send(m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"err"))
    there.send(m.CHANNEL_REQUEST, m.exit_status(3))
    there.send(m.CHANNEL_WINDOW_ADJUST, uint32(7))
    there.send(m.CHANNEL_EOF)
    there.send(m.CHANNEL_CLOSE)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == ["opened", 99, 94, 95, 98, 93, 96, 97]
    assert stage.watcher.seen[-1][0] == "far"
    stage.user_channel.send(m.CHANNEL_CLOSE)
    stage.pump()
    assert stage.watcher.seen[-1] == ("finished",)
    assert stage.relay.finished
    for connection in (stage.near.left, stage.near.right, stage.far.left):
        assert connection.channel_count == 0


def test_a_refusal_passes_with_its_code_and_text() -> None:
    stage = Stage()
    stage.relay.dial(stage.far.left)
    stage.pump()
    stage.target_handler.openings[0].refuse(m.RESOURCE_SHORTAGE, "MaxSessions")
    stage.pump()
    assert stage.user.heard == [("refused", m.RESOURCE_SHORTAGE, b"MaxSessions")]
    assert stage.watcher.seen == [("refused", m.RESOURCE_SHORTAGE, b"MaxSessions"), ("finished",)]


def test_an_early_channel_gets_window_only_when_the_target_grants_it() -> None:
    stage = Stage()
    stage.relay.early()
    stage.pump()
    assert stage.user.heard == [("opened", 0, EARLY_MAX_PACKET, b"")]
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"pty-req"))
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"id")))
    stage.pump()
    assert [seen[0] for seen in stage.watcher.seen] == ["requested", "requested"]
    there = stage.open()
    assert stage.user.heard[1:] == [(m.CHANNEL_WINDOW_ADJUST, uint32(500))]
    assert [entry[1] for entry in stage.target.heard] == [
        request_body(b"pty-req"),
        request_body(b"exec", True, string(b"id")),
    ]
    # It was told 32 KiB, the target takes 50: longer packets are cut, in order.
    stage.user_channel.send(m.CHANNEL_DATA, data(bytes(range(120))))
    stage.pump()
    pieces = [body[4:] for number, body in stage.target.heard if number == m.CHANNEL_DATA]
    assert [len(piece) for piece in pieces] == [50, 50, 20]
    assert b"".join(pieces) == bytes(range(120))
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.user.heard[-1] == (m.CHANNEL_SUCCESS, b"")


def test_a_reply_of_ours_waits_for_the_targets_earlier_one() -> None:
    stage = Stage()
    there = stage.open()
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"pty-req", True))
    stage.pump()
    stage.watcher.verdict = Verdict.REFUSE
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"x11-req", True))
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == ["opened"]
    assert len(stage.target.heard) == 1
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard[1:]] == [m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE]


def test_what_can_not_be_recorded_ends_the_channel_with_a_line_for_the_user() -> None:
    stage = Stage()
    there = stage.open()
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"cat")))
    stage.pump()
    stage.watcher.raises = RecordingError("the disk is full")
    there.send(m.CHANNEL_DATA, data(b"secret"))
    stage.pump()
    assert stage.user.heard[1:] == [
        # accepted, or the client would not show what follows
        (m.CHANNEL_SUCCESS, b""),
        (m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"conchrec: the disk is full\r\n")),
        (m.CHANNEL_REQUEST, m.exit_status(255)),
        (m.CHANNEL_EOF, b""),
        (m.CHANNEL_CLOSE, b""),
    ]
    assert stage.target.heard[-1] == (m.CHANNEL_CLOSE, b"")
    assert stage.relay.finished


def test_a_refused_start_is_accepted_and_explained() -> None:
    stage = Stage()
    stage.relay.early()
    stage.pump()
    stage.watcher.raises_on_request = AccessDenied("no")
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"id")))
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == ["opened", 99, 95, 98, 96, 97]
    assert stage.target_handler.openings == []


def test_a_line_that_does_not_fit_the_window_is_left_out_and_the_end_is_not() -> None:
    stage = Stage(window=3)
    stage.open()
    stage.relay.abort("conchrec: too long")
    stage.pump()
    assert [entry[0] for entry in stage.user.heard[1:]] == [98, 96, 97]


def test_an_abort_before_the_answer_is_a_refusal() -> None:
    stage = Stage()
    stage.relay.dial(stage.far.left)
    stage.pump()
    stage.relay.abort("conchrec: stopped")
    stage.pump()
    assert stage.user.heard == [("refused", m.CONNECT_FAILED, b"conchrec: stopped")]
    # The target's late yes is answered with CLOSE.
    stage.grant()
    assert stage.target.heard == [(m.CHANNEL_CLOSE, b"")]


@pytest.mark.parametrize("side", ["near", "far"])
def test_a_lost_connection_finishes_the_relay(side: str) -> None:
    stage = Stage()
    stage.open()
    (stage.near.right if side == "near" else stage.far.left).serviceStopped()
    stage.pump()
    assert stage.watcher.seen[-1] == ("finished",)
    if side == "near":
        assert stage.target.heard == [(m.CHANNEL_CLOSE, b"")]


def test_more_than_was_granted_ends_that_connection() -> None:
    stage = Stage()
    stage.open()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"x" * (SLACK + 501)))
    stage.pump()
    assert stage.near.right_wire.disconnected is not None


def test_a_gated_relay_passes_only_what_is_on_disk() -> None:
    stage = Stage()
    syncs: list[Deferred[None]] = []

    def sync() -> Deferred[None]:
        syncs.append(Deferred())
        return syncs[-1]

    stage.relay.dial(stage.far.left, sync)
    there = stage.grant()
    there.send(m.CHANNEL_DATA, data(b"1"))
    stage.pump()
    there.send(m.CHANNEL_DATA, data(b"2"))
    there.send(m.CHANNEL_EOF)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == ["opened"]
    assert len(syncs) == 1
    syncs[0].callback(None)
    stage.pump()
    # The second was observed while the first sync ran: it needs one of its own.
    assert [entry[1] for entry in stage.user.heard[1:]] == [data(b"1")]
    syncs[1].callback(None)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard[1:]] == [94, 94, 96]


def test_a_sync_that_fails_ends_the_channel() -> None:
    stage = Stage()
    syncs: list[Deferred[None]] = []

    def sync() -> Deferred[None]:
        syncs.append(Deferred())
        return syncs[-1]

    stage.relay.dial(stage.far.left, sync)
    there = stage.grant()
    there.send(m.CHANNEL_DATA, data(b"1"))
    stage.pump()
    syncs[0].errback(RecordingError("the disk is gone"))
    stage.pump()
    assert ("failed", "the disk is gone") in stage.watcher.seen
    assert stage.user.heard[-1] == (m.CHANNEL_CLOSE, b"")
    assert not any(entry[0] == m.CHANNEL_DATA for entry in stage.user.heard)


def test_close_in_both_directions_at_once() -> None:
    stage = Stage()
    there = stage.open()
    stage.user_channel.send(m.CHANNEL_CLOSE)
    there.send(m.CHANNEL_CLOSE)
    stage.pump()
    assert stage.relay.finished
    assert stage.near.right.channel_count == 0
    assert stage.far.left.channel_count == 0


def test_credit_is_counted_in_bytes_of_data_alone() -> None:
    """However many messages: what stands before the data uses up no window."""
    stage = Stage(window=100)
    there = stage.open()
    for message, body in ((m.CHANNEL_DATA, data(b"x")), (m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"x"))):
        for _ in range(SLACK // 4 + 200):
            there.send(message, body)
            stage.pump()
            stage.user_channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(1))
            stage.user.heard.clear()
            stage.target.heard.clear()
            stage.watcher.seen.clear()
    assert stage.far.left_wire.disconnected is None
    assert not stage.relay.finished
