"""A relay between two connections in memory: order, windows, early confirmation, and each kind of end."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.errors import AccessDenied, ConchrecError, RecordingError
from conchrec.proxy.relay.admission import SLACK
from conchrec.proxy.relay.channel_end import PIECES_MOST, UNANSWERED_MOST
from conchrec.proxy.relay.message_flow import EARLY_MAX_PACKET
from conchrec.proxy.relay.message_parser import UNKNOWN_MOST
from conchrec.proxy.relay.observer import Verdict
from conchrec.proxy.relay.relay import Relay
from conchrec.ssh import messages as m
from conchrec.ssh.connection import Channel
from conchrec.ssh.wire import string, uint32
from tests.support.loop import Handler, Loop, Receiver, request_body


class Watcher:
    """An Observer that keeps its calls, and fails if the test says so."""

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

    def far_requested(self, request: m.ChannelRequest) -> Verdict:
        return self.verdict

    def answered(self, request: m.ChannelRequest, success: bool) -> None:
        self.seen.append(("answered", request.name, success))

    def dropped(self, message: int, data: bytes, reason: str, *, from_near: bool) -> None:
        self.seen.append(("dropped", message, data, from_near))

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


ENV = string(b"LANG") + string(b"C")
EXTRA = {b"direct-tcpip": string(b"localhost") + uint32(80) + string(b"127.0.0.1") + uint32(9)}


class Stage:
    """user ↔ (relay) ↔ target, with the user's channel requested and the relay created."""

    def __init__(self, window: int = 1000, max_packet: int = 100, kind: bytes = b"session") -> None:
        self.proxy, self.target_handler = Handler(), Handler()
        self.near = Loop(Handler(), self.proxy)
        self.far = Loop(Handler(), self.target_handler)
        self.user = Receiver()
        self.target = Receiver()
        self.user_channel: Channel = self.near.left.open(
            kind, self.user, window=window, max_packet=max_packet, extra=EXTRA.get(kind, b"")
        )
        self.pump()
        self.watcher = Watcher()
        self.relay = Relay(self.proxy.openings[0], self.watcher)

    def pump(self) -> None:
        for _ in range(3):
            self.near.pump()
            self.far.pump()

    def grant(self, window: int = 500, max_packet: int = 50) -> Channel:
        """Confirm the channel as the target does."""
        self.pump()
        opening = self.target_handler.openings[-1]
        opening.confirm(self.target, window, max_packet)
        self.pump()
        return opening.channel

    def open(self) -> Channel:
        self.relay.open_far(self.far.left)
        return self.grant()

    def start(self, *, want_reply: bool = True) -> Channel:
        """Open the channel and start a command; messages before that are forgotten."""
        channel = self.open()
        self.ask(b"exec", string(b"cat"), want_reply=want_reply)
        channel.send(m.CHANNEL_SUCCESS)
        self.pump()
        self.user.heard.clear()
        self.target.heard.clear()
        self.watcher.seen.clear()
        return channel

    def ask(self, name: bytes, extra: bytes = b"", *, want_reply: bool = True) -> None:
        self.user_channel.send(m.CHANNEL_REQUEST, request_body(name, want_reply, extra))
        self.pump()

    def dropped(self) -> list[tuple[Any, ...]]:
        return [seen[1:] for seen in self.watcher.seen if seen[0] == "dropped"]


def data(text: bytes) -> bytes:
    return string(text)


def test_forwards_windows_of_both_ends() -> None:
    stage = Stage(window=4321, max_packet=123)
    stage.relay.open_far(stage.far.left)
    stage.pump()
    request = stage.target_handler.openings[0].request
    assert (request.kind, request.window, request.max_packet) == (b"session", 4321, 123)
    assert stage.user.heard == []  # not confirmed before the target confirms
    target_channel = stage.grant(window=777, max_packet=55)
    assert stage.user.heard == [("opened", 0, 55, b"")]  # and no window before the start
    stage.ask(b"shell")
    assert stage.user.heard == [("opened", 0, 55, b"")]
    target_channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(23))
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.user.heard[1:] == [(m.CHANNEL_SUCCESS, b""), (m.CHANNEL_WINDOW_ADJUST, uint32(800))]


def test_grants_window_of_target_at_once_for_forward() -> None:
    stage = Stage(kind=b"direct-tcpip")
    stage.relay.open_far(stage.far.left)
    stage.grant(window=777, max_packet=55)
    assert stage.user.heard == [("opened", 777, 55, b"")]


def test_forwards_messages_both_ways_in_order() -> None:
    stage = Stage()
    target_channel = stage.open()
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"ls")))
    stage.pump()
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"in"))
    stage.user_channel.send(m.CHANNEL_EOF)
    stage.pump()
    assert stage.target.heard == [
        (m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"ls"))),
        (m.CHANNEL_DATA, data(b"in")),
        (m.CHANNEL_EOF, b""),
    ]
    target_channel.send(m.CHANNEL_DATA, data(b"out"))
    target_channel.send(m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"err"))
    target_channel.send(m.CHANNEL_REQUEST, m.exit_status(3))
    target_channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(7))
    target_channel.send(m.CHANNEL_EOF)
    target_channel.send(m.CHANNEL_CLOSE)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == ["opened", 99, 93, 94, 95, 98, 93, 96, 97]
    assert stage.watcher.seen[-1][0] == "far"
    stage.user_channel.send(m.CHANNEL_CLOSE)
    stage.pump()
    assert stage.watcher.seen[-1] == ("finished",)
    assert stage.relay.finished
    for connection in (stage.near.left, stage.near.right, stage.far.left):
        assert connection.channel_count == 0


def test_forwards_code_and_text_of_refusal() -> None:
    stage = Stage()
    stage.relay.open_far(stage.far.left)
    stage.pump()
    stage.target_handler.openings[0].refuse(m.RESOURCE_SHORTAGE, "MaxSessions")
    stage.pump()
    assert stage.user.heard == [("refused", m.RESOURCE_SHORTAGE, b"MaxSessions")]
    assert stage.watcher.seen == [("refused", m.RESOURCE_SHORTAGE, b"MaxSessions"), ("finished",)]


def test_withholds_window_of_early_channel_until_target_grants_it() -> None:
    stage = Stage()
    stage.relay.confirm_early()
    stage.pump()
    assert stage.user.heard == [("opened", 0, EARLY_MAX_PACKET, b"")]
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"env", False, ENV))
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"id")))
    stage.pump()
    assert [seen[0] for seen in stage.watcher.seen] == ["requested", "requested"]
    target_channel = stage.open()
    assert stage.user.heard[1:] == []
    assert [entry[1] for entry in stage.target.heard] == [
        request_body(b"env", False, ENV),
        request_body(b"exec", True, string(b"id")),
    ]
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.user.heard[1:] == [(m.CHANNEL_SUCCESS, b""), (m.CHANNEL_WINDOW_ADJUST, uint32(500))]
    # The maximum packet size was confirmed as 32 KiB, but the target's is 50: packets are split in order.
    stage.user_channel.send(m.CHANNEL_DATA, data(bytes(range(120))))
    stage.pump()
    pieces = [body[4:] for number, body in stage.target.heard if number == m.CHANNEL_DATA]
    assert [len(piece) for piece in pieces] == [50, 50, 20]
    assert b"".join(pieces) == bytes(range(120))


def test_delays_own_reply_until_earlier_reply_of_target() -> None:
    stage = Stage()
    target_channel = stage.open()
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"env", True, ENV))
    stage.pump()
    stage.watcher.verdict = Verdict.REFUSE
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"agent-req", True))
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == ["opened"]
    assert len(stage.target.heard) == 1
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard[1:]] == [m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE]


def test_ends_channel_with_message_when_recording_fails() -> None:
    stage = Stage()
    target_channel = stage.open()
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"cat")))
    stage.pump()
    stage.watcher.raises = RecordingError("the disk is full")
    target_channel.send(m.CHANNEL_DATA, data(b"secret"))
    stage.pump()
    assert stage.user.heard[1:] == [
        # accepted, or the client would not show the message
        (m.CHANNEL_SUCCESS, b""),
        (m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"conchrec: the disk is full\r\n")),
        (m.CHANNEL_REQUEST, m.exit_status(255)),
        (m.CHANNEL_EOF, b""),
        (m.CHANNEL_CLOSE, b""),
    ]
    assert stage.target.heard[-1] == (m.CHANNEL_CLOSE, b"")
    assert stage.relay.finished


def test_accepts_refused_start_to_show_reason() -> None:
    stage = Stage()
    stage.relay.confirm_early()
    stage.pump()
    stage.watcher.raises_on_request = AccessDenied("no")
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"id")))
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == ["opened", 99, 95, 98, 96, 97]
    assert stage.target_handler.openings == []


def test_ends_channel_without_message_when_window_is_small() -> None:
    stage = Stage(window=3)
    stage.open()
    stage.relay.abort("conchrec: too long")
    stage.pump()
    assert [entry[0] for entry in stage.user.heard[1:]] == [98, 96, 97]


def test_refuses_channel_when_aborted_before_confirmation() -> None:
    stage = Stage()
    stage.relay.open_far(stage.far.left)
    stage.pump()
    stage.relay.abort("conchrec: stopped")
    stage.pump()
    assert stage.user.heard == [("refused", m.CONNECT_FAILED, b"conchrec: stopped")]
    # The target's late confirmation is answered with CLOSE.
    stage.grant()
    assert stage.target.heard == [(m.CHANNEL_CLOSE, b"")]


def test_sends_no_message_after_eof_of_target() -> None:
    """OpenSSH's client disconnects for extended data after EOF."""
    stage = Stage()
    target_channel = stage.start()
    target_channel.send(m.CHANNEL_EOF)
    stage.pump()
    assert not stage.relay.abort("conchrec: no")
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == [m.CHANNEL_EOF, m.CHANNEL_REQUEST, m.CHANNEL_CLOSE]


@pytest.mark.parametrize("side", ["near", "far"])
def test_finishes_when_connection_is_lost(side: str) -> None:
    """The other end gets no CLOSE, which it would take for the end of the data."""
    stage = Stage()
    stage.open()
    (stage.near.right if side == "near" else stage.far.left).serviceStopped()
    stage.pump()
    assert stage.watcher.seen[-1] == ("finished",)
    assert all(entry[0] != m.CHANNEL_CLOSE for entry in (*stage.target.heard, *stage.user.heard))


def test_disconnects_sender_that_exceeds_window() -> None:
    stage = Stage()
    stage.start()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"x" * (SLACK + 501)))
    stage.pump()
    assert stage.near.right_wire.disconnected is not None


def test_forwards_only_synced_messages() -> None:
    stage = Stage()
    syncs: list[Deferred[None]] = []

    def sync() -> Deferred[None]:
        syncs.append(Deferred())
        return syncs[-1]

    stage = Stage(kind=b"direct-tcpip")
    stage.relay.open_far(stage.far.left, sync)
    target_channel = stage.grant()
    target_channel.send(m.CHANNEL_DATA, data(b"1"))
    stage.pump()
    target_channel.send(m.CHANNEL_DATA, data(b"2"))
    target_channel.send(m.CHANNEL_EOF)
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


def test_ends_channel_when_sync_fails() -> None:
    stage = Stage()
    syncs: list[Deferred[None]] = []

    def sync() -> Deferred[None]:
        syncs.append(Deferred())
        return syncs[-1]

    stage = Stage(kind=b"direct-tcpip")
    stage.relay.open_far(stage.far.left, sync)
    target_channel = stage.grant()
    target_channel.send(m.CHANNEL_DATA, data(b"1"))
    stage.pump()
    syncs[0].errback(RecordingError("the disk is gone"))
    stage.pump()
    assert ("failed", "the disk is gone") in stage.watcher.seen
    assert stage.user.heard[-1] == (m.CHANNEL_CLOSE, b"")
    assert not any(entry[0] == m.CHANNEL_DATA for entry in stage.user.heard)


@pytest.mark.parametrize("end", ["the user is gone", "the target is gone", "the sync fails"])
def test_reports_observed_messages_that_were_not_forwarded(end: str) -> None:
    syncs: list[Deferred[None]] = []

    def sync() -> Deferred[None]:
        syncs.append(Deferred())
        return syncs[-1]

    stage = Stage(kind=b"direct-tcpip")
    stage.relay.open_far(stage.far.left, sync)
    target_channel = stage.grant()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"to the target"))
    target_channel.send(m.CHANNEL_DATA, data(b"to the user"))
    stage.user_channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(1))
    stage.pump()
    if end == "the sync fails":
        syncs[0].errback(RecordingError("the disk is gone"))
    else:
        (stage.near.right if "user" in end else stage.far.left).serviceStopped()
        syncs[0].callback(None)
    stage.pump()
    assert stage.dropped() == [
        (m.CHANNEL_DATA, data(b"to the target"), True),
        (m.CHANNEL_DATA, data(b"to the user"), False),
    ]
    assert m.CHANNEL_DATA not in [entry[0] for entry in stage.target.heard + stage.user.heard]


def test_ignores_sync_that_fails_after_end() -> None:
    sync: Deferred[None] = Deferred()
    stage = Stage(kind=b"direct-tcpip")
    stage.relay.open_far(stage.far.left, lambda: sync)
    stage.grant().send(m.CHANNEL_DATA, data(b"to the user"))
    stage.pump()
    stage.near.right.serviceStopped()
    stage.relay.release()
    stage.watcher.seen.clear()
    problems: list[Failure] = []
    sync.addErrback(problems.append)
    sync.errback(RecordingError("the disk is gone"))
    assert problems == []
    assert stage.watcher.seen == []


def test_finishes_when_both_ends_close_at_once() -> None:
    stage = Stage()
    target_channel = stage.open()
    stage.user_channel.send(m.CHANNEL_CLOSE)
    target_channel.send(m.CHANNEL_CLOSE)
    stage.pump()
    assert stage.relay.finished
    assert stage.near.right.channel_count == 0
    assert stage.far.left.channel_count == 0


def test_counts_only_data_against_window() -> None:
    """The fields before the data do not use up the window, for any number of messages."""
    stage = Stage(window=100)
    target_channel = stage.start()
    for message, body in ((m.CHANNEL_DATA, data(b"x")), (m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"x"))):
        for _ in range(SLACK // 4 + 200):
            target_channel.send(message, body)
            stage.pump()
            stage.user_channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(1))
            stage.user.heard.clear()
            stage.target.heard.clear()
            stage.watcher.seen.clear()
    assert stage.far.left_wire.disconnected is None
    assert not stage.relay.finished


# --- messages that are split or dropped


def test_splits_data_to_packets_of_far_end() -> None:
    """sshd drops a packet that is too large: the recording would hold data that was never delivered."""
    stage = Stage()
    stage.start()
    stage.user_channel.send(m.CHANNEL_DATA, data(bytes(range(120))))
    stage.pump()
    assert [len(body) - 4 for _, body in stage.target.heard] == [50, 50, 20]
    assert b"".join(body[4:] for _, body in stage.target.heard) == bytes(range(120))


def test_splits_data_to_packets_of_near_end() -> None:
    stage = Stage(max_packet=3)
    target_channel = stage.start()
    target_channel.send(m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"abcd"))
    target_channel.send(m.CHANNEL_DATA, data(b"abcd"))
    stage.pump()
    assert stage.user.heard == [
        (m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"abc")),
        (m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"d")),
        (m.CHANNEL_DATA, data(b"abc")),
        (m.CHANNEL_DATA, data(b"d")),
    ]


@pytest.mark.parametrize("of_target", [True, False])
def test_ends_channel_when_data_needs_too_many_packets(of_target: bool) -> None:
    """A peer with packets of one byte would delay all others while 32 kB are split. Nothing is observed."""
    stage = Stage(window=1 << 20, max_packet=1)
    stage.relay.confirm_early()
    stage.relay.open_far(stage.far.left)
    target_channel = stage.grant(window=1 << 20, max_packet=1)
    stage.ask(b"exec", string(b"cat"))
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    stage.user.heard.clear()
    stage.target.heard.clear()
    (target_channel if of_target else stage.user_channel).send(m.CHANNEL_DATA, data(bytes(PIECES_MOST)))
    stage.pump()
    heard = stage.user.heard if of_target else stage.target.heard
    assert len(heard) < 5 and (m.CHANNEL_CLOSE, b"") in heard
    seen = stage.watcher.seen
    assert not [each for each in seen if each[0] in ("near", "far") and each[1] == m.CHANNEL_DATA]
    assert [each for each in seen if each[0] == "failed"]


@pytest.mark.parametrize("sent", ["extended data", "data after EOF"])
def test_refunds_window_of_dropped_data(sent: str) -> None:
    stage = Stage()
    stage.start()
    if sent == "extended data":
        stage.user_channel.send(m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"abc"))
    else:
        stage.user_channel.send(m.CHANNEL_EOF)
        stage.user_channel.send(m.CHANNEL_DATA, data(b"abc"))
    stage.pump()
    assert [message for message, _ in stage.target.heard] == ([] if "extended" in sent else [m.CHANNEL_EOF])
    assert stage.user.heard == [(m.CHANNEL_WINDOW_ADJUST, uint32(3))]
    ((_, dropped, from_near),) = stage.dropped()
    assert (dropped[-3:], from_near) == (b"abc", True)


def test_refunds_no_window_before_start() -> None:
    """No window was granted before the start, so none is returned."""
    stage = Stage()
    target_channel = stage.open()
    stage.user_channel.send(m.CHANNEL_EXTENDED_DATA, uint32(2) + data(b"abc"))
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == ["opened"]
    target_channel.send(m.CHANNEL_EXTENDED_DATA, uint32(2) + data(b"abc"))
    stage.pump()
    assert stage.target.heard == [(m.CHANNEL_WINDOW_ADJUST, uint32(3))]
    assert [entry[0] for entry in stage.user.heard] == ["opened"]
    assert len(stage.dropped()) == 2


def test_drops_data_before_start() -> None:
    stage = Stage()
    target_channel = stage.open()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"abc"))
    stage.ask(b"exec", string(b"sh"))
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert [message for message, _ in stage.target.heard] == [m.CHANNEL_REQUEST]
    assert stage.dropped() == [(m.CHANNEL_DATA, data(b"abc"), True)]


@pytest.mark.parametrize("want_reply", [True, False])
def test_forwards_one_start_at_a_time(want_reply: bool) -> None:
    """sshd ignores the second: it must neither be forwarded nor recorded."""
    stage = Stage()
    target_channel = stage.open()
    stage.ask(b"exec", string(b"evil"), want_reply=want_reply)
    stage.ask(b"exec", string(b"uptime"))
    stage.ask(b"env", ENV)
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.target.heard == [(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"evil")))]
    replies = [m.CHANNEL_SUCCESS] * want_reply + [m.CHANNEL_FAILURE] * 2
    assert [entry[0] for entry in stage.user.heard if entry[0] in (99, 100)] == replies
    assert [seen for seen in stage.watcher.seen if seen[0] == "near"] == [
        ("near", m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"evil")))
    ]


def test_forwards_next_start_after_refusal() -> None:
    """PuTTY's pscp and psftp request the subsystem, and then exec, on one channel."""
    stage = Stage()
    target_channel = stage.open()
    stage.ask(b"subsystem", string(b"sftp"))
    stage.ask(b"exec", string(b"sftp-server"))
    assert len(stage.target.heard) == 1
    target_channel.send(m.CHANNEL_FAILURE)
    stage.pump()
    assert len(stage.target.heard) == 2
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    answered = [seen[1:] for seen in stage.watcher.seen if seen[0] == "answered"]
    assert answered == [(b"subsystem", False), (b"exec", True)]
    assert [entry[0] for entry in stage.user.heard[1:]] == [100, 99, 93]


def test_orders_replies_of_requests_sent_at_once() -> None:
    """Replies keep their order, and unwanted ones are not sent."""
    stage = Stage()
    target_channel = stage.open()
    pty = string(b"xterm") + uint32(80) + uint32(24) + uint32(0) * 2 + string(b"")
    for name, want_reply, extra in (
        (b"env", False, ENV),
        (b"pty-req", False, pty),
        (b"exec", False, string(b"cat")),
        (b"keepalive@openssh.com", True, b""),
    ):
        stage.user_channel.send(m.CHANNEL_REQUEST, request_body(name, want_reply, extra))
    stage.pump()
    assert [body for _, body in stage.target.heard] == [
        request_body(b"env", False, ENV),
        request_body(b"pty-req", True, pty),
        request_body(b"exec", True, string(b"cat")),
    ]
    target_channel.send(m.CHANNEL_SUCCESS)
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.target.heard[3:] == [
        (m.CHANNEL_REQUEST, request_body(b"keepalive@openssh.com", True)),
    ]
    target_channel.send(m.CHANNEL_FAILURE)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard[1:]] == [m.CHANNEL_WINDOW_ADJUST, m.CHANNEL_FAILURE]


def test_holds_data_of_target_until_start() -> None:
    """Otherwise it would be recorded before the header with the command."""
    stage = Stage()
    target_channel = stage.open()
    target_channel.send(m.CHANNEL_DATA, data(b"welcome"))
    target_channel.send(m.CHANNEL_REQUEST, request_body(b"keepalive@openssh.com", True))
    stage.pump()
    assert [seen[0] for seen in stage.watcher.seen] == ["opened", "far"]  # the keepalive alone
    stage.ask(b"shell")
    kinds = [seen[:2] for seen in stage.watcher.seen if seen[0] in ("near", "far")]
    assert kinds == [("far", 98), ("near", 98), ("far", 94)]
    assert stage.user.heard[-1] == (m.CHANNEL_DATA, data(b"welcome"))


@pytest.mark.parametrize(
    ("message", "body", "forwarded"),
    [
        (m.CHANNEL_EOF, b"surplus", b""),
        (m.CHANNEL_WINDOW_ADJUST, uint32(7) + b"surplus", uint32(7)),
        (m.CHANNEL_DATA, data(b"abc") + b"surplus", data(b"abc")),
        (
            m.CHANNEL_REQUEST,
            string(b"signal") + b"\x17" + string(b"TERM") + b"surplus",
            request_body(b"signal", True, string(b"TERM")),
        ),
        (m.CHANNEL_REQUEST, string(b"eow@openssh.com") + b"\0surplus", request_body(b"eow@openssh.com")),
        (
            m.CHANNEL_REQUEST,
            string(b"winadj@putty.projects.tartarus.org") + b"\1surplus",
            request_body(b"winadj@putty.projects.tartarus.org", True),
        ),
    ],
)
def test_drops_surplus_bytes_of_user(message: int, body: bytes, forwarded: bytes) -> None:
    stage = Stage()
    stage.start()
    stage.user_channel.send(message, body)
    stage.pump()
    assert stage.target.heard == [(message, forwarded)]
    assert stage.dropped() == [(message, b"surplus", True)]


def test_drops_surplus_bytes_of_target() -> None:
    stage = Stage()
    target_channel = stage.start()
    stage.ask(b"signal", string(b"TERM"))
    signal = string(b"KILL") + b"\7" + string(b"gone") + string(b"a language")
    target_channel.send(m.CHANNEL_SUCCESS, b"surplus")
    target_channel.send(m.CHANNEL_REQUEST, request_body(b"exit-signal", False, signal + b"surplus"))
    target_channel.send(m.CHANNEL_EOF, b"surplus")
    target_channel.send(m.CHANNEL_CLOSE, b"surplus")
    stage.pump()
    assert stage.user.heard == [
        (m.CHANNEL_SUCCESS, b""),
        (
            m.CHANNEL_REQUEST,
            request_body(b"exit-signal", False, string(b"KILL") + b"\1" + string(b"gone") + string(b"")),
        ),
        (m.CHANNEL_EOF, b""),
        (m.CHANNEL_CLOSE, b""),
    ]
    assert [entry[1:] for entry in stage.dropped()] == [(b"surplus", False)] * 4


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        (b"signal", uint32(99) + b"short"),
        (b"signal", string(b"T" * 256)),
        (b"signal", string(b"TE\0RM")),
        (b"window-change", uint32(1) * 3),
        (b"unknown@example.com", bytes(UNKNOWN_MOST + 1)),
    ],
)
def test_answers_malformed_request_with_failure_in_order(name: bytes, extra: bytes) -> None:
    stage = Stage()
    target_channel = stage.start()
    stage.ask(b"signal", string(b"TERM"))
    stage.ask(name, extra)
    assert len(stage.target.heard) == 1
    assert stage.user.heard == []
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == [m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE]
    assert stage.dropped() == [(m.CHANNEL_REQUEST, extra, True)]


@pytest.mark.parametrize("side", ["user", "target"])
def test_limits_unanswered_requests(side: str) -> None:
    stage = Stage()
    target_channel = stage.start()
    channel = stage.user_channel if side == "user" else target_channel
    for _ in range(UNANSWERED_MOST + 1):
        channel.send(m.CHANNEL_REQUEST, request_body(b"keepalive@openssh.com", True))
    stage.pump()
    wire = stage.near.right_wire if side == "user" else stage.far.left_wire
    assert wire.disconnected is not None
    heard = stage.target.heard if side == "user" else stage.user.heard
    assert len([entry for entry in heard if entry[0] == m.CHANNEL_REQUEST]) == UNANSWERED_MOST


def test_drops_replies_without_request() -> None:
    stage = Stage()
    target_channel = stage.start()
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.user_channel.send(m.CHANNEL_FAILURE)
    stage.pump()
    assert (stage.user.heard, stage.target.heard) == ([], [])
    assert stage.dropped() == [(m.CHANNEL_FAILURE, b"", True), (m.CHANNEL_SUCCESS, b"", False)]
    target_channel.send(m.CHANNEL_REQUEST, request_body(b"keepalive@openssh.com", True))
    stage.pump()
    stage.user_channel.send(m.CHANNEL_SUCCESS)
    stage.user_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.target.heard == [(m.CHANNEL_SUCCESS, b"")]


def test_control_hash_covers_all_messages_except_data() -> None:
    stage = Stage()
    target_channel = stage.open()
    stage.ask(b"exec", string(b"cat"))
    target_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"abc"))
    stage.user_channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(5))
    # Dropped and refunded; the last one arrives after a CLOSE.
    stage.user_channel.send(m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"abc"))
    target_channel.send(m.CHANNEL_EXTENDED_DATA, uint32(7) + data(b"abc"))
    stage.pump()
    stage.user_channel.send(m.CHANNEL_CLOSE)
    stage.near.pump()
    target_channel.send(m.CHANNEL_EXTENDED_DATA, uint32(7) + data(b"abc"))
    target_channel.send(m.CHANNEL_DATA, data(b"abc"))
    target_channel.send(m.CHANNEL_CLOSE)
    stage.pump()
    assert stage.relay.finished
    assert (m.CHANNEL_WINDOW_ADJUST, uint32(3)) in stage.user.heard
    assert (m.CHANNEL_WINDOW_ADJUST, uint32(3)) in stage.target.heard
    for from_near, receiver in ((True, stage.target), (False, stage.user)):
        messages = [entry for entry in receiver.heard if entry[0] not in ("opened", m.CHANNEL_DATA)]
        hashed = hashlib.sha256(b"".join(bytes((message,)) + string(body) for message, body in messages))
        control = stage.relay.control(from_near=from_near)
        assert control is not None
        assert control.messages == len(messages)
        assert control.size == sum(len(body) for _, body in messages)
        assert control.sha256 == hashed.hexdigest()


def test_sanitizes_open_failure() -> None:
    stage = Stage()
    stage.relay.open_far(stage.far.left)
    stage.pump()
    stage.target_handler.openings[0].refuse(0xFE000000, "no\r\nconchrec: \x1b[31m")
    stage.pump()
    assert stage.user.heard == [("refused", m.CONNECT_FAILED, b"no  conchrec: \\x1b[31m")]
