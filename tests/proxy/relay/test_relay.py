"""A relay between two connections in memory: order, windows, early confirmation, and every end."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from conchrec.errors import AccessDenied, ConchrecError, RecordingError
from conchrec.proxy.relay.admission import SLACK
from conchrec.proxy.relay.channel_end import PIECES_MOST, UNANSWERED_MOST
from conchrec.proxy.relay.message_parser import UNKNOWN_MOST
from conchrec.proxy.relay.observer import Verdict
from conchrec.proxy.relay.relay import EARLY_MAX_PACKET, Relay
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
    """user ↔ (relay) ↔ target, with the user's channel opened and the relay made."""

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
        """The target confirms."""
        self.pump()
        opening = self.target_handler.openings[-1]
        opening.confirm(self.target, window, max_packet)
        self.pump()
        return opening.channel

    def open(self) -> Channel:
        self.relay.dial(self.far.left)
        return self.grant()

    def start(self, *, want_reply: bool = True) -> Channel:
        """Open, and run a command: the user's and the target's lists begin after that."""
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


def test_the_far_end_hears_the_near_ends_own_window_and_grants_its_own() -> None:
    stage = Stage(window=4321, max_packet=123)
    stage.relay.dial(stage.far.left)
    stage.pump()
    asked = stage.target_handler.openings[0].request
    assert (asked.kind, asked.window, asked.max_packet) == (b"session", 4321, 123)
    assert stage.user.heard == []  # nothing is confirmed before the target has
    there = stage.grant(window=777, max_packet=55)
    assert stage.user.heard == [("opened", 0, 55, b"")]  # and no window before something runs
    stage.ask(b"shell")
    assert stage.user.heard == [("opened", 0, 55, b"")]
    there.send(m.CHANNEL_WINDOW_ADJUST, uint32(23))
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.user.heard[1:] == [(m.CHANNEL_SUCCESS, b""), (m.CHANNEL_WINDOW_ADJUST, uint32(800))]


def test_a_forward_has_the_target_s_window_at_once() -> None:
    stage = Stage(kind=b"direct-tcpip")
    stage.relay.dial(stage.far.left)
    stage.grant(window=777, max_packet=55)
    assert stage.user.heard == [("opened", 777, 55, b"")]


def test_everything_passes_both_ways_in_order() -> None:
    stage = Stage()
    there = stage.open()
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"ls")))
    stage.pump()
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"in"))
    stage.user_channel.send(m.CHANNEL_EOF)
    stage.pump()
    assert stage.target.heard == [
        (m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"ls"))),
        (m.CHANNEL_DATA, data(b"in")),
        (m.CHANNEL_EOF, b""),
    ]
    there.send(m.CHANNEL_DATA, data(b"out"))
    there.send(m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"err"))
    there.send(m.CHANNEL_REQUEST, m.exit_status(3))
    there.send(m.CHANNEL_WINDOW_ADJUST, uint32(7))
    there.send(m.CHANNEL_EOF)
    there.send(m.CHANNEL_CLOSE)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == ["opened", 99, 93, 94, 95, 98, 93, 96, 97]
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
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"env", False, ENV))
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"id")))
    stage.pump()
    assert [seen[0] for seen in stage.watcher.seen] == ["requested", "requested"]
    there = stage.open()
    assert stage.user.heard[1:] == []
    assert [entry[1] for entry in stage.target.heard] == [
        request_body(b"env", False, ENV),
        request_body(b"exec", True, string(b"id")),
    ]
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.user.heard[1:] == [(m.CHANNEL_SUCCESS, b""), (m.CHANNEL_WINDOW_ADJUST, uint32(500))]
    # It was told 32 KiB, the target takes 50: longer packets are cut, in order.
    stage.user_channel.send(m.CHANNEL_DATA, data(bytes(range(120))))
    stage.pump()
    pieces = [body[4:] for number, body in stage.target.heard if number == m.CHANNEL_DATA]
    assert [len(piece) for piece in pieces] == [50, 50, 20]
    assert b"".join(pieces) == bytes(range(120))


def test_a_reply_of_ours_waits_for_the_targets_earlier_one() -> None:
    stage = Stage()
    there = stage.open()
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"env", True, ENV))
    stage.pump()
    stage.watcher.verdict = Verdict.REFUSE
    stage.user_channel.send(m.CHANNEL_REQUEST, request_body(b"agent-req", True))
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


def test_says_nothing_after_the_target_s_eof() -> None:
    """OpenSSH's client disconnects for extended data after EOF."""
    stage = Stage()
    there = stage.start()
    there.send(m.CHANNEL_EOF)
    stage.pump()
    assert not stage.relay.abort("conchrec: no")
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == [m.CHANNEL_EOF, m.CHANNEL_REQUEST, m.CHANNEL_CLOSE]


@pytest.mark.parametrize("side", ["near", "far"])
def test_a_lost_connection_finishes_the_relay(side: str) -> None:
    """The other end hears no CLOSE, which it would take for the end of the data."""
    stage = Stage()
    stage.open()
    (stage.near.right if side == "near" else stage.far.left).serviceStopped()
    stage.pump()
    assert stage.watcher.seen[-1] == ("finished",)
    assert all(entry[0] != m.CHANNEL_CLOSE for entry in (*stage.target.heard, *stage.user.heard))


def test_more_than_was_granted_ends_that_connection() -> None:
    stage = Stage()
    stage.start()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"x" * (SLACK + 501)))
    stage.pump()
    assert stage.near.right_wire.disconnected is not None


def test_a_gated_relay_passes_only_what_is_on_disk() -> None:
    stage = Stage()
    syncs: list[Deferred[None]] = []

    def sync() -> Deferred[None]:
        syncs.append(Deferred())
        return syncs[-1]

    stage = Stage(kind=b"direct-tcpip")
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

    stage = Stage(kind=b"direct-tcpip")
    stage.relay.dial(stage.far.left, sync)
    there = stage.grant()
    there.send(m.CHANNEL_DATA, data(b"1"))
    stage.pump()
    syncs[0].errback(RecordingError("the disk is gone"))
    stage.pump()
    assert ("failed", "the disk is gone") in stage.watcher.seen
    assert stage.user.heard[-1] == (m.CHANNEL_CLOSE, b"")
    assert not any(entry[0] == m.CHANNEL_DATA for entry in stage.user.heard)


@pytest.mark.parametrize("end", ["the user is gone", "the target is gone", "the sync fails"])
def test_what_was_observed_and_not_forwarded_is_reported(end: str) -> None:
    syncs: list[Deferred[None]] = []

    def sync() -> Deferred[None]:
        syncs.append(Deferred())
        return syncs[-1]

    stage = Stage(kind=b"direct-tcpip")
    stage.relay.dial(stage.far.left, sync)
    there = stage.grant()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"to the target"))
    there.send(m.CHANNEL_DATA, data(b"to the user"))
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
    there = stage.start()
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


# --- what does not reach the other end


def test_splits_data_to_the_far_ends_packets() -> None:
    """sshd drops a packet that is larger than it allows, and what was hashed was then never delivered."""
    stage = Stage()
    stage.start()
    stage.user_channel.send(m.CHANNEL_DATA, data(bytes(range(120))))
    stage.pump()
    assert [len(body) - 4 for _, body in stage.target.heard] == [50, 50, 20]
    assert b"".join(body[4:] for _, body in stage.target.heard) == bytes(range(120))


def test_splits_data_to_the_near_ends_packets() -> None:
    stage = Stage(max_packet=3)
    there = stage.start()
    there.send(m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"abcd"))
    there.send(m.CHANNEL_DATA, data(b"abcd"))
    stage.pump()
    assert stage.user.heard == [
        (m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"abc")),
        (m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"d")),
        (m.CHANNEL_DATA, data(b"abc")),
        (m.CHANNEL_DATA, data(b"d")),
    ]


@pytest.mark.parametrize("of_target", [True, False])
def test_data_that_would_be_split_into_very_many_packets_ends_the_channel(of_target: bool) -> None:
    """Whoever takes one byte in a packet would stop all others while 32 kB are split. Nothing is observed."""
    stage = Stage(window=1 << 20, max_packet=1)
    stage.relay.early()
    stage.relay.dial(stage.far.left)
    there = stage.grant(window=1 << 20, max_packet=1)
    stage.ask(b"exec", string(b"cat"))
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    stage.user.heard.clear()
    stage.target.heard.clear()
    (there if of_target else stage.user_channel).send(m.CHANNEL_DATA, data(bytes(PIECES_MOST)))
    stage.pump()
    heard = stage.user.heard if of_target else stage.target.heard
    assert len(heard) < 5 and (m.CHANNEL_CLOSE, b"") in heard
    seen = stage.watcher.seen
    assert not [each for each in seen if each[0] in ("near", "far") and each[1] == m.CHANNEL_DATA]
    assert [each for each in seen if each[0] == "failed"]


@pytest.mark.parametrize("sent", ["extended data", "data after EOF"])
def test_dropped_data_is_returned_to_the_senders_window(sent: str) -> None:
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


def test_unknown_extended_data_gains_no_window() -> None:
    """Nothing was granted before the start, so nothing is given back."""
    stage = Stage()
    there = stage.open()
    stage.user_channel.send(m.CHANNEL_EXTENDED_DATA, uint32(2) + data(b"abc"))
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == ["opened"]
    there.send(m.CHANNEL_EXTENDED_DATA, uint32(2) + data(b"abc"))
    stage.pump()
    assert stage.target.heard == [(m.CHANNEL_WINDOW_ADJUST, uint32(3))]
    assert [entry[0] for entry in stage.user.heard] == ["opened"]
    assert len(stage.dropped()) == 2


def test_data_before_a_start_is_dropped() -> None:
    stage = Stage()
    there = stage.open()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"abc"))
    stage.ask(b"exec", string(b"sh"))
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert [message for message, _ in stage.target.heard] == [m.CHANNEL_REQUEST]
    assert stage.dropped() == [(m.CHANNEL_DATA, data(b"abc"), True)]


@pytest.mark.parametrize("want_reply", [True, False])
def test_one_start_is_in_flight(want_reply: bool) -> None:
    """sshd ignores the second: it must neither be forwarded nor recorded."""
    stage = Stage()
    there = stage.open()
    stage.ask(b"exec", string(b"evil"), want_reply=want_reply)
    stage.ask(b"exec", string(b"uptime"))
    stage.ask(b"env", ENV)
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.target.heard == [(m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"evil")))]
    replies = [m.CHANNEL_SUCCESS] * want_reply + [m.CHANNEL_FAILURE] * 2
    assert [entry[0] for entry in stage.user.heard if entry[0] in (99, 100)] == replies
    assert [seen for seen in stage.watcher.seen if seen[0] == "near"] == [
        ("near", m.CHANNEL_REQUEST, request_body(b"exec", True, string(b"evil")))
    ]


def test_a_start_follows_one_that_was_refused() -> None:
    """PuTTY's pscp and psftp ask for the subsystem, and then for exec, on one channel."""
    stage = Stage()
    there = stage.open()
    stage.ask(b"subsystem", string(b"sftp"))
    stage.ask(b"exec", string(b"sftp-server"))
    assert len(stage.target.heard) == 1
    there.send(m.CHANNEL_FAILURE)
    stage.pump()
    assert len(stage.target.heard) == 2
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    answered = [seen[1:] for seen in stage.watcher.seen if seen[0] == "answered"]
    assert answered == [(b"subsystem", False), (b"exec", True)]
    assert [entry[0] for entry in stage.user.heard[1:]] == [100, 99, 93]


def test_env_pty_exec_without_a_reply_and_a_keepalive_at_once() -> None:
    """Replies keep their order, and those that nobody wants are not sent."""
    stage = Stage()
    there = stage.open()
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
    there.send(m.CHANNEL_SUCCESS)
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.target.heard[3:] == [
        (m.CHANNEL_REQUEST, request_body(b"keepalive@openssh.com", True)),
    ]
    there.send(m.CHANNEL_FAILURE)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard[1:]] == [m.CHANNEL_WINDOW_ADJUST, m.CHANNEL_FAILURE]


def test_what_the_target_says_before_the_start_comes_after_it() -> None:
    """Else it would be recorded before the header says what runs."""
    stage = Stage()
    there = stage.open()
    there.send(m.CHANNEL_DATA, data(b"welcome"))
    there.send(m.CHANNEL_REQUEST, request_body(b"keepalive@openssh.com", True))
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
def test_surplus_bytes_are_not_forwarded(message: int, body: bytes, forwarded: bytes) -> None:
    stage = Stage()
    stage.start()
    stage.user_channel.send(message, body)
    stage.pump()
    assert stage.target.heard == [(message, forwarded)]
    assert stage.dropped() == [(message, b"surplus", True)]


def test_surplus_bytes_of_the_target_are_not_forwarded() -> None:
    stage = Stage()
    there = stage.start()
    stage.ask(b"signal", string(b"TERM"))
    signal = string(b"KILL") + b"\7" + string(b"gone") + string(b"a language")
    there.send(m.CHANNEL_SUCCESS, b"surplus")
    there.send(m.CHANNEL_REQUEST, request_body(b"exit-signal", False, signal + b"surplus"))
    there.send(m.CHANNEL_EOF, b"surplus")
    there.send(m.CHANNEL_CLOSE, b"surplus")
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
def test_a_malformed_request_is_answered_with_failure_in_its_turn(name: bytes, extra: bytes) -> None:
    stage = Stage()
    there = stage.start()
    stage.ask(b"signal", string(b"TERM"))
    stage.ask(name, extra)
    assert len(stage.target.heard) == 1
    assert stage.user.heard == []
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert [entry[0] for entry in stage.user.heard] == [m.CHANNEL_SUCCESS, m.CHANNEL_FAILURE]
    assert stage.dropped() == [(m.CHANNEL_REQUEST, extra, True)]


@pytest.mark.parametrize("side", ["user", "target"])
def test_requests_that_are_never_answered_are_limited(side: str) -> None:
    stage = Stage()
    there = stage.start()
    channel = stage.user_channel if side == "user" else there
    for _ in range(UNANSWERED_MOST + 1):
        channel.send(m.CHANNEL_REQUEST, request_body(b"keepalive@openssh.com", True))
    stage.pump()
    wire = stage.near.right_wire if side == "user" else stage.far.left_wire
    assert wire.disconnected is not None
    heard = stage.target.heard if side == "user" else stage.user.heard
    assert len([entry for entry in heard if entry[0] == m.CHANNEL_REQUEST]) == UNANSWERED_MOST


def test_replies_to_nothing_are_dropped_either_way() -> None:
    stage = Stage()
    there = stage.start()
    there.send(m.CHANNEL_SUCCESS)
    stage.user_channel.send(m.CHANNEL_FAILURE)
    stage.pump()
    assert (stage.user.heard, stage.target.heard) == ([], [])
    assert stage.dropped() == [(m.CHANNEL_FAILURE, b"", True), (m.CHANNEL_SUCCESS, b"", False)]
    there.send(m.CHANNEL_REQUEST, request_body(b"keepalive@openssh.com", True))
    stage.pump()
    stage.user_channel.send(m.CHANNEL_SUCCESS)
    stage.user_channel.send(m.CHANNEL_SUCCESS)
    stage.pump()
    assert stage.target.heard == [(m.CHANNEL_SUCCESS, b"")]


def test_the_control_hash_covers_all_that_is_forwarded_besides_data() -> None:
    stage = Stage()
    there = stage.open()
    stage.ask(b"exec", string(b"cat"))
    there.send(m.CHANNEL_SUCCESS)
    stage.pump()
    stage.user_channel.send(m.CHANNEL_DATA, data(b"abc"))
    stage.user_channel.send(m.CHANNEL_WINDOW_ADJUST, uint32(5))
    # Dropped, and given back to their senders' windows; the last one meets a CLOSE.
    stage.user_channel.send(m.CHANNEL_EXTENDED_DATA, uint32(1) + data(b"abc"))
    there.send(m.CHANNEL_EXTENDED_DATA, uint32(7) + data(b"abc"))
    stage.pump()
    stage.user_channel.send(m.CHANNEL_CLOSE)
    stage.near.pump()
    there.send(m.CHANNEL_EXTENDED_DATA, uint32(7) + data(b"abc"))
    there.send(m.CHANNEL_DATA, data(b"abc"))
    there.send(m.CHANNEL_CLOSE)
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


def test_an_open_failure_has_one_line_and_a_known_code() -> None:
    stage = Stage()
    stage.relay.dial(stage.far.left)
    stage.pump()
    stage.target_handler.openings[0].refuse(0xFE000000, "no\r\nconchrec: \x1b[31m")
    stage.pump()
    assert stage.user.heard == [("refused", m.CONNECT_FAILED, b"no  conchrec: \\x1b[31m")]
