"""Logs in at a server with public keys (RFC 4252 section 7). The client's side.

Keys are offered one after another, first without a signature, so that a refused key does not need a touch or
a confirmation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from conchrec.errors import ConchrecError, RemoteViolation
from conchrec.ssh import userauth as u
from conchrec.ssh.certificate import decode, key_type_of, plain_type
from conchrec.ssh.login_exchange import LoginExchange, LoginProgress, LoginReply, StepOutcome
from conchrec.ssh.signers import Accepted, Signer
from conchrec.ssh.wire import Reader, string

_log = Logger()

#: The maximum number of signers, including those that the server cannot use.
MAX_SIGNERS = 100

Signers = Callable[[frozenset[bytes]], Deferred[Signer | None]]
_RSA_SHA2 = frozenset({b"rsa-sha2-512", b"rsa-sha2-256"})


class KeyLogin:
    """Offers the keys of ``signers``, at most ``max_offers``. ``UserAuthClient`` describes the arguments."""

    def __init__(
        self,
        exchange: LoginExchange,
        progress: LoginProgress,
        *,
        signers: Signers,
        peer_extensions: Callable[[], Mapping[bytes, bytes]],
        host_key: Callable[[], bytes],
        on_offer: Callable[[Signer], None],
        on_signing: Callable[[Signer], None],
        max_offers: int,
        sha1: bool,
    ) -> None:
        self._exchange = exchange
        self._progress = progress
        self._signers = signers
        self._peer_extensions = peer_extensions
        self._host_key = host_key
        self._on_offer = on_offer
        self._on_signing = on_signing
        self._offers_left = max_offers
        self._sha1 = sha1
        #: Plain keys that were accepted as one step of the login.
        self._accepted_keys: set[bytes] = set()

    async def run(self) -> StepOutcome:
        """Offer keys until one succeeds or none is left."""
        for _ in range(MAX_SIGNERS):
            if not self._offers_left:
                break
            signer = await self._exchange.wait(self._signers(self._progress.methods))
            if signer is None:
                break
            outcome = await self._try_key(signer)
            if outcome is not StepOutcome.REFUSED:
                return outcome
        return StepOutcome.REFUSED

    async def _try_key(self, signer: Signer) -> StepOutcome:
        """Offer a key, and sign if the server accepts the offer (RFC 4252 section 7)."""
        key = _plain_key(signer.blob)
        if key in self._accepted_keys or u.PUBLICKEY not in self._progress.methods:
            return StepOutcome.REFUSED
        extensions = self._peer_extensions()
        accepted = _accepted_algorithms(extensions)
        algorithm = signer.algorithm(accepted)
        if self._sha1 and _is_rsa(signer.blob) and not (accepted and accepted & _RSA_SHA2):
            # The server is older than RFC 8332.
            algorithm = b"ssh-rsa"
        if algorithm is None:
            text = f"{signer.label} (the target does not accept its algorithm)"
            self._progress.failed_attempts.append(text)
            return StepOutcome.REFUSED
        host_key = self._host_key() if u.HOSTBOUND_EXTENSION in extensions else None
        self._offers_left -= 1
        self._on_offer(signer)
        request = self._request(signer, algorithm, host_key, signed=False)
        reply = await self._exchange.send(request, u.PK_OK)
        if reply.number == u.FAILURE:
            self._progress.failed_attempts.append(signer.label)
            return self._read_offer_outcome(reply)
        _check_pk_ok(reply.payload, signer.blob)
        request = self._request(signer, algorithm, host_key, signed=True)
        data = u.signed_data(self._exchange.session_id, request)
        self._on_signing(signer)
        try:
            signature = await self._exchange.wait(signer.sign(data, algorithm))
        except CancelledError:
            raise
        except ConchrecError as error:
            self._progress.failed_attempts.append(f"{signer.label} ({error.public})")
            return StepOutcome.REFUSED
        except Exception:
            _log.failure("unexpected error while {label} signed a login", label=signer.label)
            self._progress.failed_attempts.append(f"{signer.label} (signing failed)")
            return StepOutcome.REFUSED
        reply = await self._exchange.send(request + string(signature), u.SUCCESS)
        outcome = self._progress.read_outcome(reply, u.PUBLICKEY, signer)
        if outcome is StepOutcome.PARTIAL:
            self._accepted_keys.add(key)
        elif outcome is StepOutcome.REFUSED:
            self._progress.failed_attempts.append(f"{signer.label} (the target rejected its signature)")
        return outcome

    def _read_offer_outcome(self, reply: LoginReply) -> StepOutcome:
        """Read the FAILURE after an offer. An offer proves nothing, so partial success is a violation."""
        if self._progress.read_outcome(reply, u.PUBLICKEY) is StepOutcome.PARTIAL:
            raise RemoteViolation("a key was accepted without a signature")
        return StepOutcome.REFUSED

    def _request(self, signer: Signer, algorithm: bytes, host_key: bytes | None, *, signed: bool) -> bytes:
        """Encode a public key request."""
        return u.publickey_request(
            user=self._exchange.user, algorithm=algorithm, blob=signer.blob, host_key=host_key, signed=signed
        )


def _accepted_algorithms(extensions: Mapping[bytes, bytes]) -> Accepted:
    """Return the algorithms in ``server-sig-algs`` (RFC 8308 section 3.1), or None without that extension."""
    names = extensions.get(b"server-sig-algs")
    return None if names is None else frozenset(names.split(b","))


def _is_rsa(blob: bytes) -> bool:
    """Return whether a blob is a plain RSA key."""
    try:
        return key_type_of(blob) == b"ssh-rsa"
    except RemoteViolation:
        return False


def _plain_key(blob: bytes) -> bytes:
    """Return the plain key of a blob. sshd treats a key and its certificate as the same key."""
    try:
        key_type = key_type_of(blob)
        return blob if plain_type(key_type) == key_type else decode(blob).public_key
    except RemoteViolation:
        return blob


def _check_pk_ok(payload: bytes, blob: bytes) -> None:
    """Check PK_OK: ``string algorithm, string blob``. Servers differ in the name of the algorithm."""
    r = Reader(payload)
    r.string()
    if r.string() != blob:
        raise RemoteViolation("PK_OK for a key that was not offered")
    r.end()
