"""The key exchanges of one connection: the first one, and later ones that renew the keys.

RFC 4253 sections 7 to 9; strict key exchange as in OpenSSH's PROTOCOL. ``kex_table`` has the state table.

A ``KeyExchange`` belongs to a transport (``KexTransport``). The transport gives it the messages of the
exchange and asks which messages may be sent. ``kex_sides`` has what differs between a server and a client.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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
from conchrec.ssh.agent_messages import SessionBinding
from conchrec.ssh.algorithms import Algorithms
from conchrec.ssh.blocked_messages import BlockedMessages
from conchrec.ssh.compression import DELAYED
from conchrec.ssh.framing import InboundPackets, OutboundPackets
from conchrec.ssh.kex_methods import KexMethod, ModularPowers, SntrupKeyPairs, kex_hash, new_kex_method
from conchrec.ssh.kex_table import TABLE, ExchangePhase, KexAction, KexEvent
from conchrec.ssh.kexinit import (
    EXT_INFO_CLIENT,
    STRICT_CLIENT,
    STRICT_SERVER,
    Agreement,
    Proposal,
    negotiate,
    prefer_ciphers,
    select_usable,
)
from conchrec.ssh.numbers import (
    KEX_FIRST,
    KEX_REPLY,
    KEXINIT,
    NEWKEYS,
    DisconnectReason,
    may_go_in_exchange,
)
from conchrec.ssh.peer_limits import RekeyAllowance
from conchrec.ssh.timers import Timers
from conchrec.ssh.wire import Reader, string

_log = Logger()
T = TypeVar("T")

#: When to start a new key exchange: OpenSSH's default volume, and the hour that RFC 4253 recommends.
REKEY_BYTES = 1 << 30
REKEY_TIME = timedelta(hours=1)
#: How long a server waits for the client's KEXINIT, if its own depends on it.
KEXINIT_WAIT = timedelta(milliseconds=100)
#: The maximum number of bytes that wait for new keys, after and before the login. Before the login only our
#: replies can wait.
MAX_BLOCKED = 8 * 1024 * 1024
MAX_BLOCKED_EARLY = 256 * 1024
#: When this many bytes wait, the producers are paused.
HOLD_AT = 1024 * 1024
_NEVER = float("inf")


class KexTransport(Protocol):
    """The part of a transport that a key exchange needs."""

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended or is ending."""

    @property
    def identifications(self) -> tuple[bytes, bytes]:
        """The identification strings of the client and of the server, without CR and LF."""

    def send_now(self, number: int, payload: bytes) -> None:
        """Send a message under the current keys, before messages that wait."""

    def fail(self, error: Exception, reason: int = DisconnectReason.PROTOCOL_ERROR) -> None:
        """End the connection with an error."""

    def attempt(self, step: Callable[..., object], *arguments: object) -> None:
        """Call ``step``. If it raises, the connection ends."""

    def hold(self, reason: str, on: bool) -> None:
        """Do not handle messages of the peer while there is a reason not to."""

    def hold_producers(self, on: bool) -> None:
        """Pause or resume the producers that write to the transport."""

    def keys_exchanged(self) -> None:
        """The first key exchange is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KexSettings:
    """The settings of key exchanges.

    ``powers`` computes finite-field Diffie-Hellman. ``key_pairs`` are for a client: without them it does not
    offer sntrup761. A new exchange starts after ``rekey_bytes``, counted in both directions together, or
    after ``rekey_time``.
    """

    algorithms: Algorithms
    powers: ModularPowers
    clock: Clock
    key_pairs: SntrupKeyPairs | None = None
    rekey_bytes: int = REKEY_BYTES
    rekey_time: timedelta = REKEY_TIME


@dataclass(slots=True, kw_only=True)
class KexRun:
    """One key exchange, from the agreement to our NEWKEYS."""

    ours: Proposal
    theirs: Proposal
    agreed: Agreement
    method: KexMethod
    #: The client's public value; only on the client's side.
    offered: bytes = b""
    #: The peer's next message is a wrong guess and is ignored (RFC 4253 section 7).
    ignores_guess: bool = False


class KeyExchange(ABC):
    """The successive key exchanges of one side.

    ``inbound`` and ``outbound`` are the packets of the transport, which get the new keys.
    """

    is_client: bool

    def __init__(
        self,
        transport: KexTransport,
        settings: KexSettings,
        *,
        inbound: InboundPackets,
        outbound: OutboundPackets,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._inbound = inbound
        self._outbound = outbound
        self._timers = Timers(settings.clock)
        #: What each of our proposals contains.
        self._algorithms = select_usable(settings.algorithms)
        self._allowance = RekeyAllowance()
        #: The computation that must finish before the next message of the peer is handled.
        self._computing: Deferred[Any] | None = None
        self._is_logged_in = False
        #: Start a new exchange after this many bytes under the current keys.
        self._rekey_at = _NEVER
        self.blocked = BlockedMessages()
        self.phase = ExchangePhase.INITIAL
        #: Whether every message may be sent now. Read for each message that is sent.
        self.is_open = False
        #: Whether the first exchange is done.
        self.is_secure = False
        #: Whether both sides use strict key exchange.
        self.strict = False
        #: Our KEXINIT of the exchange in progress.
        self.proposal: Proposal | None = None
        self.run: KexRun | None = None
        #: The host key, the session identifier and the signature of the first exchange.
        self.binding: SessionBinding | None = None
        #: The number of exchanges after the first.
        self.rekeys = 0
        #: The names of the current algorithms, for people: key exchange, host key, ciphers and MACs.
        self.agreed_names: tuple[bytes, ...] = ()

    # --- what a server and a client do differently

    @abstractmethod
    def _host_key_algorithms(self) -> tuple[bytes, ...]:
        """Return the host key algorithms for our KEXINIT, in order of preference."""

    @abstractmethod
    def _start_method(self, run: KexRun) -> None:
        """Start the negotiated method: the client sends its value."""

    @abstractmethod
    def _handle_method(self, run: KexRun, r: Reader) -> None:
        """Handle the method's message from the peer, then call ``_use_secret``."""

    def _keys_sent(self, run: KexRun) -> None:  # noqa: B027  # only a server does something here
        """Called directly after our NEWKEYS was sent."""

    @property
    def session_id(self) -> bytes | None:
        """The session identifier: the hash of the first exchange (RFC 4253 section 7.2)."""
        return self.binding.session_id if self.binding is not None else None

    # --- what the transport calls

    def begin_first(self) -> None:
        """Start the first key exchange, when the identification strings are sent.

        If our proposal depends on the peer's, wait for that for a short time. Most clients send their
        KEXINIT at once, but a client may wait for ours.
        """
        if self._algorithms.preferred_ciphers:
            self._timers.start("first", KEXINIT_WAIT.total_seconds(), self._begin_by_time)
        else:
            self.begin()

    def begin(self) -> None:
        """Start a key exchange, unless one is in progress."""
        self.handle_event(KexEvent.BEGIN)

    def log_in(self) -> None:
        """Renew keys by volume and time from now on. Called at USERAUTH_SUCCESS.

        During the login OpenSSH starts no key exchange, and its client rejects one.
        """
        self._is_logged_in = True
        self._enter(self.phase)

    def begin_if_due(self) -> None:
        """Start a key exchange if many bytes were sent under the current keys. Called after each message."""
        if self._inbound.counted + self._outbound.counted > self._rekey_at:
            self.handle_event(KexEvent.BEGIN)

    def must_wait(self, number: int) -> bool:
        """Return whether a message with this number must wait for new keys."""
        return not self.is_open and not may_go_in_exchange(number)

    def block(self, number: int, payload: bytes, limit: int) -> None:
        """Keep a message until the new keys are in use. More than ``limit`` bytes end the connection."""
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
        """Handle the peer's KEXINIT."""
        self.handle_event(KexEvent.KEXINIT, payload)

    def method_received(self, number: int, payload: bytes) -> None:
        """Handle a message of the method (30 to 49)."""
        self.handle_event(KexEvent.METHOD, number, payload)

    def newkeys_received(self, payload: bytes) -> None:
        """Handle the peer's NEWKEYS."""
        self.handle_event(KexEvent.NEWKEYS, payload)

    def stop(self) -> None:
        """Cancel the computation and the timers, and discard messages that wait.

        Called when the connection ends.
        """
        self._timers.stop()
        self.blocked.take()
        computing, self._computing = self._computing, None
        if computing is not None:
            computing.cancel()

    def release(self) -> None:
        """Forget the transport, which has ended."""
        del self._transport

    # --- the state table

    def handle_event(self, event: KexEvent, *arguments: object) -> None:
        """Do what the state table says, with the arguments of the event. Raises RemoteViolation."""
        action = TABLE[self.phase, event]
        if action is KexAction.REFUSE:
            raise _violation(event)
        assert action is not KexAction.NEVER, f"{event.name} in the phase {self.phase.name}"
        self._ACTIONS[action](self, *arguments)

    def _enter(self, phase: ExchangePhase) -> None:
        """Change the phase."""
        self.phase = phase
        self.is_open = TABLE[phase, KexEvent.MESSAGE] is KexAction.SEND
        renews = self._is_logged_in and phase in (ExchangePhase.IDLE, ExchangePhase.PAUSED)
        self._rekey_at = self._settings.rekey_bytes if renews else _NEVER
        if renews:
            self._timers.start("rekey", self._settings.rekey_time.total_seconds(), self._begin_by_time)

    def _ignore(self) -> None:  # noqa: B027  # a row of the table that does nothing
        """Do nothing: an exchange is in progress."""

    def _propose(self) -> None:
        """Send our KEXINIT."""
        markers: tuple[bytes, ...] = ()
        if not self.is_secure:
            markers = (EXT_INFO_CLIENT, STRICT_CLIENT) if self.is_client else (STRICT_SERVER,)
        self._timers.cancel("first")
        self.proposal = Proposal.make(self._algorithms, self._host_key_algorithms(), markers)
        self._enter(ExchangePhase.PROPOSED)
        self._transport.send_now(KEXINIT, self.proposal.payload[1:])

    def _charge(self, payload: bytes) -> None:
        """Accept an exchange that the peer starts, at once or after a pause.

        The pause makes endless key exchanges cost the peer time instead of us. During the pause we send
        under the old keys.
        """
        carried = self._inbound.carried + self._outbound.carried
        pause = self._allowance.charge(self._settings.clock.seconds(), carried)
        if pause <= 0:
            self._accept(payload)
            return
        self._enter(ExchangePhase.PAUSED)
        self._transport.hold("rekeys", True)
        self._timers.start("pause", pause, lambda: self._end_pause(payload))

    def _end_pause(self, payload: bytes) -> None:
        """Accept the exchange after the pause."""
        if not self._transport.is_over:
            self._transport.attempt(self.handle_event, KexEvent.PAUSE_OVER, payload)
            self._transport.hold("rekeys", False)

    def _accept(self, payload: bytes) -> None:
        """Send our KEXINIT and agree with the peer's."""
        theirs = Proposal.read(payload)
        if not self.is_secure:
            self._algorithms = prefer_ciphers(self._algorithms, theirs)
        self._propose()
        self._agree_on(theirs)

    def _agree(self, payload: bytes) -> None:
        """Agree with the peer's KEXINIT after ours was sent."""
        self._agree_on(Proposal.read(payload))

    def _agree_on(self, theirs: Proposal) -> None:
        """Choose the algorithms and start the method."""
        assert self.proposal is not None
        if not self.is_secure:
            self.strict = (STRICT_SERVER if self.is_client else STRICT_CLIENT) in theirs.kex
            if self.strict and self._inbound.handling != 0:
                raise RemoteViolation(
                    "KEXINIT is not the first packet of a strict key exchange",
                    code=ReasonCode.KEY_EXCHANGE_FAILED,
                )
        agreed = negotiate(self.proposal, theirs, is_client=self.is_client)
        self.run = KexRun(
            ours=self.proposal,
            theirs=theirs,
            agreed=agreed,
            method=new_kex_method(agreed.kex, self._settings.powers, self._settings.key_pairs),
            ignores_guess=agreed.guess_wrong,
        )
        self._enter(ExchangePhase.AGREED)
        self._start_method(self.run)

    def _answer(self, number: int, payload: bytes) -> None:
        """Handle a message of the method, or ignore it as a wrong guess."""
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

    def _switch(self, secret: bytes, exchange_hash: bytes, host_key: bytes, signature: bytes) -> None:
        """Send NEWKEYS and use the new keys for what follows."""
        run = self.run
        assert run is not None
        agreed = run.agreed
        if self.binding is None:
            self.binding = SessionBinding(host_key=host_key, session_id=exchange_hash, signature=signature)
        up, down = agreed.derive_ciphers(secret, exchange_hash, self.binding.session_id)
        sealer, opener = (up, down) if self.is_client else (down, up)
        up_compressed, down_compressed = (name == DELAYED for name in agreed.compressions)
        if not self.is_client:
            up_compressed, down_compressed = down_compressed, up_compressed
        self._transport.send_now(NEWKEYS, b"")
        self._outbound.renew(sealer, reset=self.strict, compress=up_compressed)
        # Messages of the peer before its NEWKEYS are under the old keys.
        self._inbound.expect(opener, reset=self.strict, compress=down_compressed)
        self.agreed_names = agreed.names
        self.proposal = self.run = None
        self._enter(ExchangePhase.NEW_KEYS if self.is_secure else ExchangePhase.FIRST_KEYS)
        self._keys_sent(run)
        if self.is_open:
            self._send_blocked()

    def _finish_first(self, payload: bytes) -> None:
        """Finish the first exchange."""
        self._read_under_new_keys(payload)
        self.is_secure = True
        self._send_blocked()
        self._transport.keys_exchanged()

    def _finish(self, payload: bytes) -> None:
        """Finish a later exchange."""
        self._read_under_new_keys(payload)
        self.rekeys += 1

    def _read_under_new_keys(self, payload: bytes) -> None:
        """Use the new keys for what the peer sends after its NEWKEYS."""
        if payload:
            raise _violation(KexEvent.NEWKEYS)
        self._inbound.renew()
        self._enter(ExchangePhase.IDLE)

    def _begin_by_time(self) -> None:
        """Start a key exchange because the keys are old, or because the peer sent no KEXINIT."""
        if not self._transport.is_over:
            self.handle_event(KexEvent.BEGIN)

    def _send_blocked(self) -> None:
        """Send the messages that waited, and resume the producers."""
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
        """Call ``then`` with the result of a computation.

        Meanwhile messages of the peer wait in order. The end of the connection cancels ``result``.
        """

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
                _log.failure("unexpected error while a key exchange was computed", failure=failure)
            self._transport.fail(error, DisconnectReason.BY_APPLICATION)

        self._computing = result
        result.addCallbacks(computed, failed)
        if self._computing is not None:
            self._transport.hold("key exchange", True)

    def _exchange_hash(
        self, run: KexRun, host_key: bytes, client: bytes, server: bytes, secret: bytes
    ) -> bytes:
        """Return the exchange hash H (RFC 4253 section 8), which the host key signs.

        That of the first exchange is the session identifier.
        """
        inits = (run.ours.payload, run.theirs.payload)
        client_init, server_init = inits if self.is_client else reversed(inits)
        parts = (*self._transport.identifications, client_init, server_init, host_key, client, server)
        digest: bytes = kex_hash(run.agreed.kex)(b"".join(map(string, parts)) + secret).digest()
        return digest

    def _use_secret(self, secret: bytes, exchange_hash: bytes, host_key: bytes, signature: bytes) -> None:
        """Use the keys of an exchange that the host key has signed."""
        self.handle_event(KexEvent.SIGNED, secret, exchange_hash, host_key, signature)


def _violation(event: KexEvent) -> RemoteViolation:
    """Return the error for a message of the peer in the wrong phase."""
    if event is KexEvent.KEXINIT:
        return RemoteViolation("KEXINIT during a key exchange", code=ReasonCode.KEY_EXCHANGE_FAILED)
    if event is KexEvent.NEWKEYS:
        return RemoteViolation("unexpected NEWKEYS", code=ReasonCode.KEY_EXCHANGE_FAILED)
    return RemoteViolation("key exchange message outside a key exchange", code=ReasonCode.KEY_EXCHANGE_FAILED)
