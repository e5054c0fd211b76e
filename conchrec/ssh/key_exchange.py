"""The key exchange's part of a transport: the first one, and those that come while the connection lives
(RFC 4253 sections 7 to 9, strict key exchange as in OpenSSH's PROTOCOL).

Either side may begin one at any time, both may begin at once. From our KEXINIT to our NEWKEYS nothing goes
out but what belongs to the exchange; the rest waits here, in order and within limits.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.clock import Clock, DelayedCall
from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.reasons import ReasonCode
from conchrec.ssh.algorithms import Algorithms
from conchrec.ssh.backpressure import WriteBackpressure
from conchrec.ssh.compression import DELAYED
from conchrec.ssh.framing import Incoming, Outgoing
from conchrec.ssh.kex_methods import KeyExchange, ModularPowers, derive, exchange, hash_of, usable
from conchrec.ssh.kexinit import (
    EXT_INFO_CLIENT,
    STRICT_CLIENT,
    STRICT_SERVER,
    Agreement,
    Proposal,
    settle,
)
from conchrec.ssh.numbers import (
    KEX_FIRST,
    KEX_REPLY,
    KEXINIT,
    NEWKEYS,
    DisconnectReason,
    may_go_in_exchange,
)
from conchrec.ssh.packetcipher import Opener, Suite
from conchrec.ssh.peer_limits import RekeyAllowance
from conchrec.ssh.wire import Reader, string

_log = Logger()
T = TypeVar("T")

#: When new keys are asked for: OpenSSH's own default of volume, and RFC 4253's advice of an hour.
REKEY_BYTES = 1 << 30
REKEY_TIME = timedelta(hours=1)
#: So much under one pair of keys is a transfer, which ``Algorithms.bulk`` is for.
BULK_BYTES = 16 * 1024 * 1024
#: What may wait for new keys: with a login, and before it, when only answers of ours can wait.
MAX_BLOCKED = 8 * 1024 * 1024
MAX_BLOCKED_EARLY = 256 * 1024
#: What a message that waits costs beside its payload.
_OVERHEAD = 128
#: From here on whoever feeds us is asked to wait.
HOLD_AT = 1024 * 1024
CONNECTION = b"ssh-connection"


class ExchangePhase(enum.Enum):
    """Where a key exchange is."""

    IDLE = "none runs"
    ASKED = "our KEXINIT is out"
    RUNNING = "both KEXINITs have gone"
    SENT_KEYS = "our NEWKEYS is out"


class Keying:
    """Mixed in below the transports, which say what a server and a client do differently."""

    # What the transport has.
    isClient: bool
    service: SSHService | None
    sessionID: bytes | None
    peer_version: bytes | None
    _our_version: bytes | None

    def _set_up_keying(
        self,
        *,
        algorithms: Algorithms,
        powers: ModularPowers,
        clock: Clock,
        rekey_bytes: int,
        rekey_time: timedelta,
    ) -> None:
        self._algorithms = algorithms
        self._powers = powers
        self._clock = clock
        self._rekey_bytes = rekey_bytes
        self._rekey_time = rekey_time
        self._incoming = Incoming()
        self._outgoing = Outgoing()
        self._valve = WriteBackpressure()
        self._timers: dict[str, DelayedCall] = {}
        self._phase = ExchangePhase.IDLE
        self._first_exchange = True
        self._strict = False
        self._bulk: tuple[bytes, ...] = ()
        self._bulk_next = False
        self._peer_takes_ext_info = False
        self._ours: Proposal | None = None
        self._theirs: Proposal | None = None
        self._agreed: Agreement | None = None
        self._exchange: KeyExchange | None = None
        #: What the key exchange waits for, before the next message of the peer is handled.
        self._computing: Deferred[Any] | None = None
        self._offered = b""
        self._ignore_guess = False
        self._next_opener: Opener | None = None
        self._logged_in = False
        self._deflates = self._inflates = self._inflates_next = False
        self._blocked: deque[tuple[int, bytes]] = deque()
        self._blocked_bytes = 0
        self._allowance = RekeyAllowance()
        self.rekeys = 0
        #: The algorithms of the newest keys, for people: key exchange, host key, ciphers and MACs.
        self.agreed_names: tuple[bytes, ...] = ()

    # --- what the transport does for us

    def _send(self, number: int, payload: bytes) -> None:
        raise NotImplementedError

    def _fail(self, error: Exception, reason: int = DisconnectReason.PROTOCOL_ERROR) -> None:
        raise NotImplementedError

    def _attempt(self, step: Callable[..., object], *arguments: object) -> None:
        raise NotImplementedError

    def _hold(self, reason: str, on: bool) -> None:
        raise NotImplementedError

    @property
    def _over(self) -> bool:
        """The connection ends, or has ended."""
        raise NotImplementedError

    def _is_secure(self) -> None:
        """The first key exchange is done."""
        raise NotImplementedError

    def _is_renewing(self) -> None:
        """Our NEWKEYS is the last thing that was sent."""

    def _host_key_algorithms(self) -> tuple[bytes, ...]:
        raise NotImplementedError

    def _exchanged(self, run: KeyExchange, r: Reader) -> None:
        """The one message that the exchange has in our direction."""
        raise NotImplementedError

    # --- KEXINIT

    def _begin_exchange(self) -> None:
        """Send KEXINIT (RFC 4253 section 7.1)."""
        markers: tuple[bytes, ...] = ()
        if self._first_exchange:
            markers = (EXT_INFO_CLIENT, STRICT_CLIENT) if self.isClient else (STRICT_SERVER,)
        ours = replace(self._algorithms, kex=tuple(filter(usable, self._algorithms.kex)))
        if self._bulk_next and self._counted > BULK_BYTES:
            self._bulk, self._bulk_next = self._algorithms.bulk, False
        if self._bulk:
            ours = replace(ours, ciphers=self._bulk)
        self._ours = Proposal.make(ours, self._host_key_algorithms(), markers)
        self._phase = ExchangePhase.ASKED
        self._send(KEXINIT, self._ours.payload[1:])

    @property
    def _counted(self) -> int:
        """Bytes under these keys, both ways."""
        return self._incoming.counted + self._outgoing.counted

    def _rekey_where_due(self) -> None:
        if self._phase is ExchangePhase.IDLE and not self._first_exchange:
            limit = min(self._rekey_bytes, BULK_BYTES) if self._bulk_next else self._rekey_bytes
            if self._incoming.counted + self._outgoing.counted > limit:
                self._begin_exchange()

    def _rekey_by_time(self) -> None:
        if self._phase is ExchangePhase.IDLE and not self._over:
            self._begin_exchange()

    def _kexinit(self, payload: bytes) -> None:
        """The peer's KEXINIT. One that the peer begins may have to wait, so that key exchanges without end
        cost the peer its time and not ours; until then we go on sending under the old keys."""
        if self._phase in (ExchangePhase.RUNNING, ExchangePhase.SENT_KEYS):
            raise RemoteViolation("a key exchange inside a key exchange", code=ReasonCode.KEY_EXCHANGE_FAILED)
        if self._phase is ExchangePhase.IDLE and not self._first_exchange:
            carried = self._incoming.carried + self._outgoing.carried
            pause = self._allowance.charge(self._clock.seconds(), carried)
            if pause > 0:
                self._hold("rekeys", True)
                self._later("rekeys", pause, lambda: self._end_pause(payload))
                return
        self._settle(payload)

    def _end_pause(self, payload: bytes) -> None:
        self._attempt(self._settle, payload)
        self._hold("rekeys", False)

    def _settle(self, payload: bytes) -> None:
        """Agree on everything with the peer's KEXINIT."""
        theirs = Proposal.read(payload)
        if self._phase is ExchangePhase.IDLE:
            self._begin_exchange()
        assert self._ours is not None
        if self._first_exchange:
            self._strict = (STRICT_SERVER if self.isClient else STRICT_CLIENT) in theirs.kex
            self._peer_takes_ext_info = EXT_INFO_CLIENT in theirs.kex
            if self._strict and self._incoming.handling != 0:
                raise RemoteViolation(
                    "KEXINIT is not the first packet of a strict key exchange",
                    code=ReasonCode.KEY_EXCHANGE_FAILED,
                )
        self._theirs = theirs
        self._agreed = settle(self._ours, theirs, is_client=self.isClient)
        self._ignore_guess = self._agreed.guess_wrong
        bulk = set(self._algorithms.bulk)
        self._bulk_next = not bulk.issuperset(self._agreed.ciphers) and not any(
            map(bulk.isdisjoint, theirs.ciphers)
        )
        self._phase = ExchangePhase.RUNNING
        self._exchange = exchange(self._agreed.kex, self._powers)
        if self.isClient:
            self._compute(self._exchange.offer(), self._send_offer)

    def _send_offer(self, offered: bytes) -> None:
        self._offered = offered
        self._send(KEX_FIRST, string(offered))

    # --- the secret

    def _compute(self, result: Deferred[T], then: Callable[[T], object]) -> None:
        """Call ``then`` with what the key exchange computes. While that takes time, messages of the peer wait
        in order; the end of the connection cancels ``result``."""

        def computed(value: T) -> None:
            self._computing = None
            if not self._over:
                self._attempt(then, value)
                self._hold("key exchange", False)

        def failed(failure: Failure) -> None:
            self._computing = None
            if self._over:
                return
            error = failure.value
            assert isinstance(error, Exception)
            if not isinstance(error, ConchrecError):
                _log.failure("while a key exchange is computed", failure=failure)
            self._fail(error, DisconnectReason.BY_APPLICATION)

        self._computing = result
        result.addCallbacks(computed, failed)
        if self._computing is not None:
            self._hold("key exchange", True)

    def _stop_computing(self) -> None:
        """The connection ends."""
        computing, self._computing = self._computing, None
        if computing is not None:
            computing.cancel()

    def _exchange_message(self, number: int, payload: bytes) -> None:
        if self._phase is not ExchangePhase.RUNNING or self._exchange is None:
            raise RemoteViolation(
                "a key exchange message without a key exchange", code=ReasonCode.KEY_EXCHANGE_FAILED
            )
        if self._ignore_guess:
            self._ignore_guess = False
            return
        if number != (KEX_REPLY if self.isClient else KEX_FIRST):
            raise RemoteViolation("an unknown key exchange message", code=ReasonCode.KEY_EXCHANGE_FAILED)
        self._exchanged(self._exchange, Reader(payload))

    def _exchange_hash(self, host_key: bytes, client: bytes, server: bytes, secret: bytes) -> bytes:
        """H (RFC 4253 section 8): what is signed, and the first time the session's id."""
        assert self._ours is not None
        assert self._theirs is not None
        assert self._agreed is not None
        ours = (self._our_version or b"", self._ours.payload)
        theirs = (self.peer_version or b"", self._theirs.payload)
        (client_version, client_init), (server_version, server_init) = (
            (ours, theirs) if self.isClient else (theirs, ours)
        )
        hashed = (client_version, server_version, client_init, server_init, host_key, client, server)
        digest: bytes = hash_of(self._agreed.kex)(b"".join(map(string, hashed)) + secret).digest()
        return digest

    # --- NEWKEYS

    def _take_keys(self, secret: bytes, exchange_hash: bytes) -> None:
        """Our NEWKEYS goes out, and everything after it is under the new keys."""
        session_id = self.sessionID = self.sessionID or exchange_hash
        assert self._agreed is not None
        hash_ = hash_of(self._agreed.kex)
        to_server, to_client = self._agreed.suites

        def made(suite: Suite, letters: bytes) -> Any:
            iv, key, mac = (
                derive(hash_, secret, exchange_hash, session_id, bytes((letter,)), size)
                for letter, size in zip(letters, (suite.iv, suite.key, suite.mac), strict=True)
            )
            return suite.make(key, iv, mac)

        up, down = made(to_server, b"ACE"), made(to_client, b"BDF")
        sealer, opener = (up, down) if self.isClient else (down, up)
        self._send(NEWKEYS, b"")
        self._outgoing.renew(sealer, reset=self._strict)
        self._next_opener = opener
        compressions = [name == DELAYED for name in self._agreed.compressions]
        self._deflates, self._inflates_next = compressions if self.isClient else reversed(compressions)
        if self._logged_in and self._deflates:
            self._outgoing.deflate()
        self.agreed_names = self._agreed.names
        self._exchange = self._agreed = None
        self._phase = ExchangePhase.SENT_KEYS
        self._is_renewing()
        # Ours may go now; what the peer still sends under the old keys is read until its NEWKEYS.
        if not self._first_exchange:
            self._unblock()

    def _newkeys(self, payload: bytes) -> None:
        if self._phase is not ExchangePhase.SENT_KEYS or self._next_opener is None or payload:
            raise RemoteViolation("NEWKEYS out of place", code=ReasonCode.KEY_EXCHANGE_FAILED)
        self._incoming.renew(self._next_opener, reset=self._strict)
        self._next_opener = None
        self._inflates = self._inflates_next
        if self._logged_in and self._inflates:
            self._incoming.inflate()
        self._phase = ExchangePhase.IDLE
        self._later("rekey", self._rekey_time.total_seconds(), self._rekey_by_time)
        if not self._first_exchange:
            self.rekeys += 1
            return
        self._first_exchange = False
        self._unblock()
        self._is_secure()

    def _login_done(self) -> None:
        """USERAUTH_SUCCESS is the last thing that was sent, or read: compression begins, where it was
        agreed."""
        if self._logged_in:
            return
        self._logged_in = True
        if self._deflates:
            self._outgoing.deflate()
        # Where the peer's NEWKEYS is still to come, it begins with that.
        if self._inflates and self._phase is not ExchangePhase.SENT_KEYS:
            self._incoming.inflate()

    # --- what waits

    def _must_wait(self, number: int) -> bool:
        if self._phase is ExchangePhase.IDLE or may_go_in_exchange(number):
            return False
        # Under the new keys everything may go, but for the very first of them, which the peer confirms.
        return self._phase is not ExchangePhase.SENT_KEYS or self._first_exchange

    def _block(self, number: int, payload: bytes) -> None:
        """Keep a message for the new keys."""
        self._blocked.append((number, payload))
        self._blocked_bytes += len(payload) + _OVERHEAD
        with_login = self.service is not None and self.service.name == CONNECTION
        if self._blocked_bytes > (MAX_BLOCKED if with_login else MAX_BLOCKED_EARLY):
            self._fail(
                RemoteViolation("the key exchange takes too long", code=ReasonCode.KEY_EXCHANGE_FAILED)
            )
        elif self._blocked_bytes > HOLD_AT:
            self._valve.hold(True)

    def _unblock(self) -> None:
        blocked, self._blocked = self._blocked, deque()
        self._blocked_bytes = 0
        for message in blocked:
            self._send(*message)
        self._valve.hold(False)

    # --- time

    def _later(self, name: str, seconds: float, what: Callable[[], object]) -> None:
        """One timer of each name: the new one takes the place of the old."""
        self._not_later(name)
        if not self._over:
            self._timers[name] = self._clock.callLater(seconds, what)

    def _not_later(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None and timer.active():
            timer.cancel()
