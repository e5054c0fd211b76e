"""Key exchanges without a transport: each cell of the state table and its effects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.internet.task import Clock

from conchrec.errors import HostKeyRejected, RemoteViolation
from conchrec.ssh import kex_table
from conchrec.ssh import numbers as a
from conchrec.ssh.algorithms import COMPATIBLE, MODERN, Algorithms
from conchrec.ssh.framing import InboundPackets, OutboundPackets
from conchrec.ssh.kex_methods import ModularPowers
from conchrec.ssh.kex_sides import ClientKeyExchange, ServerKeyExchange, ext_info
from conchrec.ssh.kex_table import TABLE, ExchangePhase, KexAction, KexEvent
from conchrec.ssh.kexinit import Proposal
from conchrec.ssh.key_exchange import HOLD_AT, KexSettings, KexTransport, KeyExchange
from conchrec.ssh.peer_limits import REKEY_PAUSE
from conchrec.ssh.server_host_keys import ServerHostKeys
from conchrec.ssh.wire import string
from tests.support.powers import Later, at_once

DATA = 94
REKEY_BYTES = 1000
REKEY_TIME = timedelta(minutes=10)
HOST_KEY = ServerHostKeys(ed25519.Ed25519PrivateKey.generate(), None)
CURVE = replace(MODERN, kex=(b"curve25519-sha256",))
GROUP14 = replace(COMPATIBLE, kex=(b"diffie-hellman-group14-sha256",))


class Seat:
    """A KexTransport that keeps the calls."""

    def __init__(self) -> None:
        self.inbound, self.outbound = InboundPackets(), OutboundPackets()
        self.sent: list[tuple[int, bytes]] = []
        self.holds: set[str] = set()
        self.producers_held = False
        self.secured = 0
        self.error: Exception | None = None
        self.is_over = False
        self.identifications = (b"SSH-2.0-client", b"SSH-2.0-server")

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.sent]

    def send_now(self, number: int, payload: bytes) -> None:
        self.sent.append((number, payload))

    def fail(self, error: Exception, reason: int = a.DisconnectReason.PROTOCOL_ERROR) -> None:
        self.error, self.is_over = error, True

    def attempt(self, step: Callable[..., object], *arguments: object) -> None:
        try:
            step(*arguments)
        except RemoteViolation as error:
            self.fail(error)

    def hold(self, reason: str, on: bool) -> None:
        (self.holds.add if on else self.holds.discard)(reason)

    def hold_producers(self, on: bool) -> None:
        self.producers_held = on

    def keys_exchanged(self) -> None:
        self.secured += 1


class Both:
    """The key exchanges of a server and a client. Messages wait in ``sent`` until the test delivers them."""

    def __init__(
        self,
        algorithms: Algorithms = CURVE,
        *,
        client_algorithms: Algorithms | None = None,
        server_powers: ModularPowers = at_once,
        verify_host_key: Callable[[bytes], None] = lambda blob: None,
    ) -> None:
        self.clock = Clock()
        self.at_server, self.at_client = Seat(), Seat()
        seat: KexTransport = self.at_server
        self.server = ServerKeyExchange(
            seat,
            self._settings(algorithms, server_powers),
            inbound=self.at_server.inbound,
            outbound=self.at_server.outbound,
            host_keys=HOST_KEY,
        )
        self.client = ClientKeyExchange(
            self.at_client,
            self._settings(client_algorithms or algorithms, at_once),
            inbound=self.at_client.inbound,
            outbound=self.at_client.outbound,
            verify_host_key=verify_host_key,
            host_key_algorithms=(b"ssh-ed25519",),
        )

    def _settings(self, algorithms: Algorithms, powers: ModularPowers) -> KexSettings:
        return KexSettings(
            algorithms=algorithms,
            powers=powers,
            clock=self.clock,
            rekey_bytes=REKEY_BYTES,
            rekey_time=REKEY_TIME,
        )

    def to_server(self, count: int = 100) -> None:
        """Deliver up to ``count`` messages of the client."""
        deliver(self.at_client, self.server, count)

    def to_client(self, count: int = 100) -> None:
        deliver(self.at_server, self.client, count)

    def run(self) -> Both:
        """Deliver messages until none is left."""
        while self.at_client.sent or self.at_server.sent:
            self.to_server()
            self.to_client()
        return self

    def first(self) -> Both:
        """Complete the first exchange."""
        self.server.begin()
        self.client.begin()
        return self.run()


def deliver(sender: Seat, receiver: KeyExchange, count: int) -> None:
    messages, sender.sent = sender.sent[:count], sender.sent[count:]
    for number, payload in messages:
        if number == a.KEXINIT:
            receiver.kexinit_received(payload)
        elif number == a.NEWKEYS:
            receiver.newkeys_received(payload)
        elif number in (a.KEX_FIRST, a.KEX_REPLY):
            receiver.method_received(number, payload)
        else:
            assert number in (a.EXT_INFO, DATA)


def reach(phase: ExchangePhase) -> Both:
    """Return both sides with the server in this phase and all its messages delivered."""
    both = Both()
    if phase in (ExchangePhase.IDLE, ExchangePhase.PAUSED, ExchangePhase.NEW_KEYS):
        both.first()
    elif phase is not ExchangePhase.INITIAL:
        both.server.begin()
    if phase is ExchangePhase.PAUSED:
        while both.server.phase is ExchangePhase.IDLE:
            both.client.begin()
            both.run()
    elif phase in (ExchangePhase.AGREED, ExchangePhase.FIRST_KEYS, ExchangePhase.NEW_KEYS):
        both.client.begin()
        both.to_server()
        if phase is not ExchangePhase.AGREED:
            both.to_client(1)
            both.to_server(1)
    both.at_server.sent.clear()
    assert both.server.phase is phase
    return both


ARGUMENTS: dict[KexEvent, tuple[object, ...]] = {
    KexEvent.BEGIN: (),
    KexEvent.KEXINIT: (Proposal.make(CURVE, (b"ssh-ed25519",), ()).payload[1:],),
    KexEvent.PAUSE_OVER: (Proposal.make(CURVE, (b"ssh-ed25519",), ()).payload[1:],),
    KexEvent.METHOD: (a.KEX_FIRST, string(b"\x09" + bytes(31))),
    KexEvent.SIGNED: (string(b"the secret"), b"the exchange hash", b"the host key", b"the signature"),
    KexEvent.NEWKEYS: (b"",),
}
#: What the server sends, and its phase after that.
EFFECTS: dict[KexAction, tuple[list[int], ExchangePhase]] = {
    KexAction.PROPOSE: ([a.KEXINIT], ExchangePhase.PROPOSED),
    KexAction.ACCEPT: ([a.KEXINIT], ExchangePhase.AGREED),
    KexAction.CHARGE: ([a.KEXINIT], ExchangePhase.AGREED),
    KexAction.AGREE: ([], ExchangePhase.AGREED),
    KexAction.ANSWER: ([a.KEX_REPLY, a.NEWKEYS, a.EXT_INFO], ExchangePhase.FIRST_KEYS),
    KexAction.SWITCH: ([a.NEWKEYS, a.EXT_INFO], ExchangePhase.FIRST_KEYS),
    KexAction.FINISH_FIRST: ([], ExchangePhase.IDLE),
    KexAction.FINISH: ([], ExchangePhase.IDLE),
}


REFUSALS = {
    KexEvent.KEXINIT: "KEXINIT during a key exchange",
    KexEvent.METHOD: "key exchange message outside a key exchange",
    KexEvent.NEWKEYS: "unexpected NEWKEYS",
}


@pytest.mark.parametrize("event", [event for event in KexEvent if event is not KexEvent.MESSAGE])
@pytest.mark.parametrize("phase", ExchangePhase)
def test_follows_state_table(phase: ExchangePhase, event: KexEvent) -> None:
    both = reach(phase)
    action = TABLE[phase, event]
    expected: tuple[list[int], ExchangePhase] = ([], phase)
    if action is KexAction.REFUSE:
        with pytest.raises(RemoteViolation, match=REFUSALS[event]):
            both.server.handle_event(event, *ARGUMENTS[event])
    elif action is KexAction.NEVER:
        with pytest.raises(AssertionError, match=f"{event.name} in the phase {phase.name}"):
            both.server.handle_event(event, *ARGUMENTS[event])
    else:
        both.server.handle_event(event, *ARGUMENTS[event])
        expected = EFFECTS.get(action, expected)
    assert (both.at_server.numbers, both.server.phase) == expected


@pytest.mark.parametrize("phase", ExchangePhase)
def test_sends_or_blocks_other_messages_by_phase(phase: ExchangePhase) -> None:
    server = reach(phase).server
    waits = TABLE[phase, KexEvent.MESSAGE] is KexAction.WAIT
    assert server.is_open is not waits
    assert [server.must_wait(number) for number in (DATA, a.EXT_INFO, a.SERVICE_ACCEPT)] == [waits] * 3
    assert [server.must_wait(number) for number in (a.IGNORE, a.DISCONNECT, a.NEWKEYS)] == [False] * 3


def test_documents_state_table() -> None:
    lines = (kex_table.__doc__ or "").splitlines()
    header = next(line for line in lines if line.startswith("event"))
    assert header.split() == ["event", *(phase.name for phase in ExchangePhase)]
    starts = [header.index(word) for word in header.split()]
    for event in KexEvent:
        row = next(line for line in lines if line.startswith(f"{event.name} "))
        cells = [row[begin:end].strip() for begin, end in zip(starts, [*starts[1:], None], strict=True)]
        actions = [TABLE[phase, event].name.lower().replace("_", " ") for phase in ExchangePhase]
        assert cells == [event.name, *actions]


# --- the first exchange


def test_gives_both_sides_same_keys() -> None:
    both = Both().first()
    assert both.client.session_id == both.server.session_id != None  # noqa: E711
    assert both.client.binding == both.server.binding
    assert both.client.binding is not None
    assert both.client.binding.host_key == HOST_KEY.get(b"ssh-ed25519").blob()
    assert both.client.agreed_names == both.server.agreed_names
    assert (both.at_client.secured, both.at_server.secured) == (1, 1)
    assert both.client.strict
    assert both.server.strict
    packet = both.at_client.outbound.packet(DATA, b"text")
    both.at_server.inbound.feed(packet)
    assert both.at_server.inbound.packet() == bytes((DATA,)) + b"text"


def test_sends_ext_info_directly_after_first_newkeys() -> None:
    both = Both()
    both.server.begin()
    both.client.begin()
    both.to_server()
    both.to_client()
    both.to_server(1)
    assert both.at_server.numbers == [a.KEX_REPLY, a.NEWKEYS, a.EXT_INFO]
    assert both.at_server.sent[-1][1] == ext_info()


def test_rejects_strict_exchange_that_is_not_first() -> None:
    both = Both()
    both.client.begin()
    both.server.begin()
    both.at_server.inbound.handling = 1
    with pytest.raises(RemoteViolation, match="not the first packet of a strict key exchange"):
        both.to_server()


@pytest.mark.parametrize("right", [True, False])
def test_ignores_wrong_guess(right: bool) -> None:
    """RFC 4253 section 7: the message after a KEXINIT with a wrong guess is not answered."""
    both = Both(MODERN, client_algorithms=MODERN if right else CURVE)
    both.server.begin()
    both.client.begin()
    [(_, payload)] = both.at_client.sent
    both.at_client.sent = [(a.KEXINIT, payload[:-5] + b"\1" + payload[-4:])]
    both.to_server()
    assert both.server.run is not None
    assert both.server.run.ignores_guess is not right
    if not right:
        both.server.method_received(a.KEX_FIRST, b"a guess")
        assert both.at_server.numbers == [a.KEXINIT]
        assert not both.server.run.ignores_guess


def test_rejects_host_key_that_is_not_accepted() -> None:
    def reject(blob: bytes) -> None:
        raise HostKeyRejected("unknown host key")

    both = Both(verify_host_key=reject)
    both.server.begin()
    both.client.begin()
    both.to_server()
    both.to_client()
    both.to_server()
    both.to_client(1)
    assert isinstance(both.at_client.error, HostKeyRejected)
    assert both.client.phase is ExchangePhase.AGREED


# --- computations


def test_holds_peer_while_method_computes() -> None:
    later = Later()
    both = Both(GROUP14, server_powers=later)
    both.server.begin()
    both.client.begin()
    both.to_server()
    both.to_client()
    both.to_server()
    assert both.at_server.holds == {"key exchange"}
    assert both.server.phase is ExchangePhase.AGREED
    later.answer()
    assert both.at_server.holds == set()
    assert both.at_server.numbers == [a.KEX_REPLY, a.NEWKEYS, a.EXT_INFO]


def test_cancels_computation_when_connection_ends() -> None:
    later = Later()
    both = Both(GROUP14, server_powers=later)
    both.server.begin()
    both.client.begin()
    both.to_server()
    both.to_client()
    both.to_server()
    both.at_server.is_over = True
    both.server.stop()
    assert later.cancelled == 1
    assert both.at_server.error is None


# --- new keys


def test_begins_once_after_rekey_bytes() -> None:
    both = Both().first()
    both.server.log_in()
    both.client.log_in()
    both.at_server.outbound.counted = REKEY_BYTES // 2
    both.at_server.inbound.counted = REKEY_BYTES // 2
    both.server.begin_if_due()
    assert both.at_server.numbers == []
    both.at_server.inbound.counted += 1
    both.server.begin_if_due()
    both.server.begin_if_due()
    assert both.at_server.numbers == [a.KEXINIT]
    both.run()
    assert (both.server.rekeys, both.client.rekeys) == (1, 1)
    assert both.at_server.secured == 1


def test_begins_after_rekey_time() -> None:
    both = Both().first()
    both.server.log_in()
    both.client.log_in()
    both.clock.advance(REKEY_TIME.total_seconds() - 1)
    both.client.begin()
    both.run()
    both.clock.advance(REKEY_TIME.total_seconds() - 1)
    assert both.at_server.numbers == []
    both.clock.advance(1)
    assert both.at_server.numbers == [a.KEXINIT]
    both.server.stop()
    both.client.stop()
    assert both.clock.getDelayedCalls() == []


def test_completes_when_both_sides_begin() -> None:
    both = Both().first()
    session_id = both.server.session_id
    both.server.begin()
    both.client.begin()
    both.run()
    assert (both.server.rekeys, both.client.rekeys) == (1, 1)
    assert both.server.session_id == both.client.session_id == session_id


def test_pauses_peer_that_begins_too_many() -> None:
    both = reach(ExchangePhase.PAUSED)
    assert both.at_server.holds == {"rekeys"}
    both.clock.advance(REKEY_PAUSE)
    assert both.at_server.holds == set()
    rekeys = both.server.rekeys
    both.run()
    assert both.server.rekeys == both.client.rekeys == rekeys + 1


# --- blocked messages


def test_sends_blocked_messages_in_order_under_new_keys() -> None:
    both = Both().first()
    both.server.begin()
    for text in (b"one", b"two"):
        assert both.server.must_wait(DATA)
        both.server.block(DATA, text, 1000)
    assert len(both.server.blocked) == 2
    both.to_client()
    both.to_server()
    assert both.at_server.sent[-2:] == [(DATA, b"one"), (DATA, b"two")]
    assert both.at_server.numbers == [a.KEX_REPLY, a.NEWKEYS, DATA, DATA]
    assert len(both.server.blocked) == 0


def test_holds_producers_and_fails_when_too_many_bytes_wait() -> None:
    both = Both().first()
    both.server.begin()
    both.server.block(DATA, bytes(HOLD_AT), 2 * HOLD_AT)
    assert both.at_server.producers_held
    both.run()
    assert not both.at_server.producers_held
    both.server.begin()
    both.server.block(DATA, bytes(1000), 1000)
    assert str(both.at_server.error) == "the key exchange takes too long: too many messages wait for it"
