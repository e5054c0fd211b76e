"""The key exchanges of one connection: the first one, and those that renew the keys later (RFC 4253 sections
7 to 9, strict key exchange as in OpenSSH's PROTOCOL). ``kex_table`` says what happens in which phase.

A ``KeyExchange`` belongs to a transport, which hands it the messages of the exchange and asks it what may be
sent. It needs little of the transport: ``KexTransport``. What a server and a client do differently is in
``kex_sides``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.clock import Clock
from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.algorithms import Algorithms
from conchrec.ssh.compression import DELAYED
from conchrec.ssh.framing import InboundPackets, OutboundPackets
from conchrec.ssh.kex_methods import KexMethod, ModularPowers, derive, kex_hash, new_kex_method
from conchrec.ssh.kex_table import TABLE, ExchangePhase, KexAction, KexEvent
from conchrec.ssh.kexinit import (
    EXT_INFO_CLIENT,
    STRICT_CLIENT,
    STRICT_SERVER,
    Agreement,
    Proposal,
    Proposals,
    negotiate,
)
from conchrec.ssh.numbers import (
    KEX_FIRST,
    KEX_REPLY,
    KEXINIT,
    NEWKEYS,
    DisconnectReason,
    may_go_in_exchange,
)
from conchrec.ssh.packetcipher import Suite
from conchrec.ssh.peer_limits import RekeyAllowance
from conchrec.ssh.timers import Timers
from conchrec.ssh.wire import Reader, string

_log = Logger()
T = TypeVar("T")

#: When new keys are asked for: OpenSSH's own default of volume, and RFC 4253's advice of an hour.
REKEY_BYTES = 1 << 30
REKEY_TIME = timedelta(hours=1)
#: What may wait for new keys: with a login, and before it, when only answers of ours can wait.
MAX_BLOCKED = 8 * 1024 * 1024
MAX_BLOCKED_EARLY = 256 * 1024
#: What a message that waits costs beside its payload.
_OVERHEAD = 128
#: From here on the producer of messages is paused.
HOLD_AT = 1024 * 1024
_NEVER = float("inf")


class KexTransport(Protocol):
    """What a key exchange needs from its transport."""

    @property
    def is_over(self) -> bool:
        """The connection ends, or has ended."""

    @property
    def identifications(self) -> tuple[bytes, bytes]:
        """The identification strings of the client and of the server, without CR and LF."""

    def send_now(self, number: int, payload: bytes) -> None:
        """Send a message under the keys of now, whatever waits."""

    def fail(self, error: Exception, reason: int = DisconnectReason.PROTOCOL_ERROR) -> None:
        """End the connection with this error."""

    def attempt(self, step: Callable[..., object], *arguments: object) -> None:
        """Call ``step``; what it raises ends the connection."""

    def hold(self, reason: str, on: bool) -> None:
        """Handle no message of the peer while there is a reason not to."""

    def hold_producers(self, on: bool) -> None:
        """Pause those who feed the transport, or let them go on."""

    def keys_exchanged(self) -> None:
        """The first exchange is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KexSettings:
    """What an exchange depends on. ``powers`` computes what finite-field Diffie-Hellman needs; new keys are
    asked for after ``rekey_bytes``, both ways together, or ``rekey_time``."""

    algorithms: Algorithms
    powers: ModularPowers
    clock: Clock
    rekey_bytes: int = REKEY_BYTES
    rekey_time: timedelta = REKEY_TIME


@dataclass(slots=True, kw_only=True)
class KexRun:
    """One exchange, from the agreement to our NEWKEYS."""

    ours: Proposal
    theirs: Proposal
    agreed: Agreement
    method: KexMethod
    #: The client's value, on its own side.
    offered: bytes = b""
    #: The next message of the method is a wrong guess of the peer's (RFC 4253 section 7).
    ignores_guess: bool = False


class BlockedMessages:
    """Messages that wait for new keys, in order."""

    def __init__(self) -> None:
        self._messages: deque[tuple[int, bytes]] = deque()
        #: Their bytes, and what it costs to keep them.
        self.cost = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, number: int, payload: bytes) -> None:
        """Keep one more message."""
        self._messages.append((number, payload))
        self.cost += len(payload) + _OVERHEAD

    def take(self) -> deque[tuple[int, bytes]]:
        """All of them; none waits any more."""
        messages, self._messages = self._messages, deque()
        self.cost = 0
        return messages


class KeyExchange(ABC):
    """One side's key exchanges, one after the other.

    ``incoming`` and ``outgoing`` are the packets of the transport; the exchange gives them new keys.
    """

    is_client: bool

    def __init__(
        self,
        transport: KexTransport,
        settings: KexSettings,
        *,
        incoming: InboundPackets,
        outgoing: OutboundPackets,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._incoming = incoming
        self._outgoing = outgoing
        self._timers = Timers(settings.clock)
        self._proposals = Proposals(settings.algorithms)
        self._allowance = RekeyAllowance()
        #: What the exchange waits for, before the next message of the peer is handled.
        self._computing: Deferred[Any] | None = None
        #: A new exchange begins after more bytes than that under these keys.
        self._rekey_at = _NEVER
        self.blocked = BlockedMessages()
        self.phase = ExchangePhase.INITIAL
        #: Every message may be sent at once. Read for each message that is sent.
        self.is_open = False
        #: The first exchange is done.
        self.is_secure = False
        #: Both sides do strict key exchange.
        self.strict = False
        #: Our last KEXINIT.
        self.proposal: Proposal | None = None
        self.run: KexRun | None = None
        #: The hash of the first exchange (RFC 4253 section 7.2).
        self.session_id: bytes | None = None
        #: What the server has shown in the first exchange, and signed it with.
        self.host_key_blob = b""
        self.host_key_signature = b""
        #: Exchanges after the first.
        self.rekeys = 0
        #: The algorithms of the newest keys, for people: key exchange, host key, ciphers and MACs.
        self.agreed_names: tuple[bytes, ...] = ()

    # --- what a server and a client do differently

    @abstractmethod
    def _host_key_algorithms(self) -> tuple[bytes, ...]:
        """The host key algorithms of our KEXINIT, in order of preference."""

    @abstractmethod
    def _start_method(self, run: KexRun) -> None:
        """Begin the method that was agreed on: the client sends its public value."""

    @abstractmethod
    def _handle_method(self, run: KexRun, r: Reader) -> None:
        """Handle the one message of the method that the peer sends, as far as ``_use_secret``."""

    def _keys_sent(self, run: KexRun) -> None:  # noqa: B027  # only a server does something here
        """Our NEWKEYS was sent; nothing follows it yet."""

    # --- what the transport asks and tells

    def begin(self) -> None:
        """Begin an exchange, unless one runs."""
        self._handle_event(KexEvent.BEGIN)

    def begin_if_due(self) -> None:
        """Begin an exchange where much has passed under these keys. Called after each message."""
        if self._incoming.counted + self._outgoing.counted > self._rekey_at:
            self._handle_event(KexEvent.BEGIN)

    def must_wait(self, number: int) -> bool:
        """Must a message of ours with this number wait for new keys?"""
        return not self.is_open and not may_go_in_exchange(number)

    def block(self, number: int, payload: bytes, limit: int) -> None:
        """Keep a message for the new keys. More than ``limit`` bytes end the connection."""
        self.blocked.add(number, payload)
        if self.blocked.cost > limit:
            self._transport.fail(
                RemoteViolation(
                    "the key exchange takes too long: too many messages wait for it",
                    code=ReasonCode.KEY_EXCHANGE_FAILED,
                )
            )
        elif self.blocked.cost > HOLD_AT:
            self._transport.hold_producers(True)

    def kexinit_received(self, payload: bytes) -> None:
        """The peer's KEXINIT."""
        self._handle_event(KexEvent.KEXINIT, payload)

    def method_received(self, number: int, payload: bytes) -> None:
        """A message of the method, 30 to 49."""
        self._handle_event(KexEvent.METHOD, number, payload)

    def newkeys_received(self, payload: bytes) -> None:
        """The peer's NEWKEYS."""
        self._handle_event(KexEvent.NEWKEYS, payload)

    def stop(self) -> None:
        """The connection ends: compute no more, and forget what waits."""
        self._timers.stop()
        self.blocked.take()
        computing, self._computing = self._computing, None
        if computing is not None:
            computing.cancel()

    # --- the state table

    def _handle_event(self, event: KexEvent, *arguments: object) -> None:
        action = TABLE[self.phase, event]
        if action is KexAction.REFUSE:
            raise _violation(event)
        assert action is not KexAction.NEVER, f"{event.name} in the phase {self.phase.name}"
        self._ACTIONS[action](self, *arguments)

    def _enter(self, phase: ExchangePhase) -> None:
        self.phase = phase
        self.is_open = TABLE[phase, KexEvent.MESSAGE] is KexAction.SEND
        idle = phase in (ExchangePhase.IDLE, ExchangePhase.PAUSED)
        self._rekey_at = self._proposals.due(self._settings.rekey_bytes) if idle else _NEVER

    def _ignore(self) -> None:  # noqa: B027  # a row of the table that does nothing
        """An exchange runs already."""

    def _propose(self) -> None:
        markers: tuple[bytes, ...] = ()
        if not self.is_secure:
            markers = (EXT_INFO_CLIENT, STRICT_CLIENT) if self.is_client else (STRICT_SERVER,)
        counted = self._incoming.counted + self._outgoing.counted
        self.proposal = self._proposals.make(self._host_key_algorithms(), markers, counted)
        self._enter(ExchangePhase.PROPOSED)
        self._transport.send_now(KEXINIT, self.proposal.payload[1:])

    def _charge(self, payload: bytes) -> None:
        """An exchange that the peer begins may have to wait, so that exchanges without end cost the peer its
        time and not ours; until then we go on sending under the old keys."""
        carried = self._incoming.carried + self._outgoing.carried
        pause = self._allowance.charge(self._settings.clock.seconds(), carried)
        if pause <= 0:
            self._accept(payload)
            return
        self._enter(ExchangePhase.PAUSED)
        self._transport.hold("rekeys", True)
        self._timers.start("pause", pause, lambda: self._end_pause(payload))

    def _end_pause(self, payload: bytes) -> None:
        if not self._transport.is_over:
            self._transport.attempt(self._handle_event, KexEvent.PAUSE_OVER, payload)
            self._transport.hold("rekeys", False)

    def _accept(self, payload: bytes) -> None:
        theirs = Proposal.read(payload)
        self._propose()
        self._agree_on(theirs)

    def _agree(self, payload: bytes) -> None:
        self._agree_on(Proposal.read(payload))

    def _agree_on(self, theirs: Proposal) -> None:
        """Agree on everything with the peer's KEXINIT."""
        assert self.proposal is not None
        if not self.is_secure:
            self.strict = (STRICT_SERVER if self.is_client else STRICT_CLIENT) in theirs.kex
            if self.strict and self._incoming.handling != 0:
                raise RemoteViolation(
                    "KEXINIT is not the first packet of a strict key exchange",
                    code=ReasonCode.KEY_EXCHANGE_FAILED,
                )
        agreed = negotiate(self.proposal, theirs, is_client=self.is_client)
        self._proposals.agreed(agreed, theirs)
        self.run = KexRun(
            ours=self.proposal,
            theirs=theirs,
            agreed=agreed,
            method=new_kex_method(agreed.kex, self._settings.powers),
            ignores_guess=agreed.guess_wrong,
        )
        self._enter(ExchangePhase.AGREED)
        self._start_method(self.run)

    def _answer(self, number: int, payload: bytes) -> None:
        run = self.run
        assert run is not None
        if run.ignores_guess:
            run.ignores_guess = False
        elif number != (KEX_REPLY if self.is_client else KEX_FIRST):
            raise RemoteViolation(
                f"unexpected key exchange message {number}", code=ReasonCode.KEY_EXCHANGE_FAILED
            )
        else:
            self._handle_method(run, Reader(payload))

    def _switch(self, secret: bytes, exchange_hash: bytes) -> None:
        run = self.run
        assert run is not None
        agreed = run.agreed
        self.session_id = self.session_id or exchange_hash
        up, down = self._derive_ciphers(agreed, secret, exchange_hash)
        sealer, opener = (up, down) if self.is_client else (down, up)
        up_compressed, down_compressed = (name == DELAYED for name in agreed.compressions)
        if not self.is_client:
            up_compressed, down_compressed = down_compressed, up_compressed
        self._transport.send_now(NEWKEYS, b"")
        self._outgoing.renew(sealer, reset=self.strict, compress=up_compressed)
        # What the peer still sends under the old keys is read until its NEWKEYS.
        self._incoming.expect(opener, reset=self.strict, compress=down_compressed)
        self.agreed_names = agreed.names
        self.run = None
        self._enter(ExchangePhase.NEW_KEYS if self.is_secure else ExchangePhase.FIRST_KEYS)
        self._keys_sent(run)
        if self.is_open:
            self._send_blocked()

    def _derive_ciphers(self, agreed: Agreement, secret: bytes, exchange_hash: bytes) -> tuple[Any, Any]:
        """What seals and opens packets from client to server, and from server to client (RFC 4253 section
        7.2)."""
        hash_ = kex_hash(agreed.kex)
        session_id = self.session_id or b""

        def make(suite: Suite, letters: bytes) -> Any:
            iv, key, mac = (
                derive(hash_, secret, exchange_hash, session_id, bytes((letter,)), size)
                for letter, size in zip(letters, (suite.iv, suite.key, suite.mac), strict=True)
            )
            return suite.make(key, iv, mac)

        to_server, to_client = agreed.suites
        return make(to_server, b"ACE"), make(to_client, b"BDF")

    def _finish_first(self, payload: bytes) -> None:
        self._read_under_new_keys(payload)
        self.is_secure = True
        self._send_blocked()
        self._transport.keys_exchanged()

    def _finish(self, payload: bytes) -> None:
        self._read_under_new_keys(payload)
        self.rekeys += 1

    def _read_under_new_keys(self, payload: bytes) -> None:
        if payload:
            raise _violation(KexEvent.NEWKEYS)
        self._incoming.renew()
        self._enter(ExchangePhase.IDLE)
        self._timers.start("rekey", self._settings.rekey_time.total_seconds(), self._begin_by_time)

    def _begin_by_time(self) -> None:
        if not self._transport.is_over:
            self._handle_event(KexEvent.BEGIN)

    def _send_blocked(self) -> None:
        for message in self.blocked.take():
            self._transport.send_now(*message)
        self._transport.hold_producers(False)

    _ACTIONS: Mapping[KexAction, Callable[..., None]] = {
        KexAction.PROPOSE: _propose,
        KexAction.ACCEPT: _accept,
        KexAction.CHARGE: _charge,
        KexAction.AGREE: _agree,
        KexAction.ANSWER: _answer,
        KexAction.SWITCH: _switch,
        KexAction.FINISH_FIRST: _finish_first,
        KexAction.FINISH: _finish,
        KexAction.IGNORE: _ignore,
    }

    # --- for the sides

    def _compute(self, result: Deferred[T], then: Callable[[T], object]) -> None:
        """Call ``then`` with what the method computes. While that takes time, messages of the peer wait in
        order; the end of the connection cancels ``result``."""

        def computed(value: T) -> None:
            self._computing = None
            if not self._transport.is_over:
                self._transport.attempt(then, value)
                self._transport.hold("key exchange", False)

        def failed(failure: Failure) -> None:
            self._computing = None
            if self._transport.is_over:
                return
            error = failure.value
            assert isinstance(error, Exception)
            if not isinstance(error, ConchrecError):
                _log.failure("internal error while a key exchange was computed", failure=failure)
            self._transport.fail(error, DisconnectReason.BY_APPLICATION)

        self._computing = result
        result.addCallbacks(computed, failed)
        if self._computing is not None:
            self._transport.hold("key exchange", True)

    def _exchange_hash(
        self, run: KexRun, host_key: bytes, client: bytes, server: bytes, secret: bytes
    ) -> bytes:
        """H (RFC 4253 section 8): what is signed, and the first time the session's id."""
        inits = (run.ours.payload, run.theirs.payload)
        client_init, server_init = inits if self.is_client else reversed(inits)
        parts = (*self._transport.identifications, client_init, server_init, host_key, client, server)
        digest: bytes = kex_hash(run.agreed.kex)(b"".join(map(string, parts)) + secret).digest()
        return digest

    def _use_secret(self, secret: bytes, exchange_hash: bytes) -> None:
        """The host key has signed the exchange: use the keys."""
        self._handle_event(KexEvent.SIGNED, secret, exchange_hash)


def _violation(event: KexEvent) -> RemoteViolation:
    """What is wrong with a message of the peer that comes in the wrong phase."""
    if event is KexEvent.KEXINIT:
        return RemoteViolation("KEXINIT during a key exchange", code=ReasonCode.KEY_EXCHANGE_FAILED)
    if event is KexEvent.NEWKEYS:
        return RemoteViolation("unexpected NEWKEYS", code=ReasonCode.KEY_EXCHANGE_FAILED)
    return RemoteViolation("key exchange message outside a key exchange", code=ReasonCode.KEY_EXCHANGE_FAILED)
