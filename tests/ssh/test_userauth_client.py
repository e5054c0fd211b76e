"""Logins at a target: the order of requests, and all replies that a target may send."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from conchrec.errors import AccessDenied, ConchrecError, LoginRejected, UpstreamError
from conchrec.ssh import userauth as u
from conchrec.ssh.authenticator import PartialSuccess
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.prompt_login import Prompter
from conchrec.ssh.signatures import verify_signature
from conchrec.ssh.signers import Accepted, Signer
from conchrec.ssh.userauth_client import MAX_OFFERS, Login, UserAuthClient
from conchrec.ssh.wire import names, string
from tests.support.logins import (
    HOST_KEY,
    KINDS,
    SESSION,
    ConnectionService,
    Pair,
    Porter,
    Wire,
    identity,
    none,
    offer,
    request,
    signed,
    signer,
)

FIRST, SECOND = signer(label="one"), signer(number=1, label="two")
HOSTBOUND = {u.HOSTBOUND_EXTENSION: b"0"}


class Bad:
    """A signer that fails, or never signs."""

    label = "bad"

    def __init__(self, error: Exception | None) -> None:
        self.blob = signer(number=9).blob
        self.error = error
        self.pending: Deferred[bytes] = Deferred(lambda _: self.ended.append("cancelled"))
        self.ended: list[str] = []

    def algorithm(self, accepted: Accepted) -> bytes | None:
        return b"ssh-ed25519"

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        if self.error is not None:
            self.pending.errback(self.error)
        return self.pending


class Client:
    """A UserAuthClient on a Wire; the server is the test."""

    def __init__(
        self,
        *signers: Signer | None,
        extensions: Mapping[bytes, bytes] | None = None,
        prompter: Prompter | None = None,
        next_signer: Callable[[frozenset[bytes]], Deferred[Signer | None]] | None = None,
        on_offer: Callable[[Signer], None] | None = None,
        max_offers: int = MAX_OFFERS,
    ) -> None:
        self.extensions = dict(extensions or {})
        self.wire, self.next_service = Wire(), ConnectionService()
        self.left = list(signers)
        self.requested: list[frozenset[bytes]] = []
        self.heard: list[tuple[str, object]] = []
        self.result: Login | Exception | None = None
        self.userauth = UserAuthClient(
            b"root",
            next_signer or self._next,
            self.next_service,
            on_banner=lambda text: self.heard.append(("banner", text)),
            peer_extensions=lambda: self.extensions,
            host_key=lambda: HOST_KEY,
            on_offer=on_offer or (lambda signer: self.heard.append(("offer", signer.label))),
            on_signing=lambda signer: self.heard.append(("signing", signer.label)),
            prompter=prompter,
            target="web1",
            max_offers=max_offers,
        )
        self.userauth.done.addCallbacks(self._done, self._failed)
        self.wire.setService(self.userauth)

    def _next(self, methods: frozenset[bytes]) -> Deferred[Signer | None]:
        self.requested.append(methods)
        return succeed(self.left.pop(0) if self.left else None)

    def _done(self, login: Login) -> None:
        self.result = login

    def _failed(self, failure: Failure) -> None:
        assert isinstance(failure.value, Exception)
        self.result = failure.value

    def hear(self, number: int, payload: bytes = b"") -> list[tuple[int, bytes]]:
        """Receive a message of the server, and return the messages that we send then."""
        self.wire.take()
        self.wire.deliver(number, payload)
        return self.wire.take()

    def refuse(self, *methods: bytes, partial: bool = False) -> list[tuple[int, bytes]]:
        return self.hear(u.FAILURE, names(methods or (u.PUBLICKEY,)) + bytes((partial,)))

    def welcome(self, by: Signer) -> list[tuple[int, bytes]]:
        return self.hear(u.PK_OK, string(by.algorithm(None) or b"") + string(by.blob))

    @property
    def rejected(self) -> str:
        assert isinstance(self.result, LoginRejected)
        return self.result.public


def offered(by: Signer, host_key: bytes | None = None) -> list[tuple[int, bytes]]:
    return [(u.REQUEST, offer("root", by, host_key=host_key))]


def proof(by: Signer, host_key: bytes | None = None) -> list[tuple[int, bytes]]:
    return [(u.REQUEST, signed("root", by, host_key=host_key))]


# --- logins by key


def test_sends_none_then_offer_then_signature() -> None:
    client = Client(FIRST)
    assert client.wire.take() == [(u.REQUEST, none("root"))]
    assert client.refuse(u.PUBLICKEY, u.PASSWORD) == offered(FIRST)
    assert client.requested == [frozenset({u.PUBLICKEY, u.PASSWORD})]
    assert client.welcome(FIRST) == proof(FIRST)
    assert client.hear(u.SUCCESS) == []
    assert client.result == Login(signer=FIRST, steps=(u.PUBLICKEY,))
    assert client.heard == [("offer", "one"), ("signing", "one")]
    assert client.wire.events[-1] == ("service", b"ssh-connection")


def test_logs_in_by_none() -> None:
    client = Client(FIRST)
    client.hear(u.SUCCESS)
    assert client.result == Login(signer=None, steps=(u.NONE,))
    assert client.requested == []


def test_starts_connection_before_login_is_reported() -> None:
    client = Client(FIRST)
    started: list[tuple[int, SSHService | None]] = []
    client.userauth.done.addBoth(lambda _: started.append((client.next_service.started, client.wire.service)))
    client.hear(u.SUCCESS)
    assert started == [(1, client.next_service)]
    client.hear(80, b"hostkeys")
    assert client.next_service.received == [(80, b"hostkeys")]


def test_does_not_sign_with_refused_key() -> None:
    client = Client(FIRST, SECOND)
    client.refuse()
    assert client.refuse() == offered(SECOND)
    assert client.welcome(SECOND) == proof(SECOND)
    client.hear(u.SUCCESS)
    assert client.result == Login(signer=SECOND, steps=(u.PUBLICKEY,))
    assert client.heard == [("offer", "one"), ("offer", "two"), ("signing", "two")]


def test_reports_tried_keys_and_accepted_methods() -> None:
    client = Client(FIRST, SECOND)
    client.refuse(u.PUBLICKEY, u.PASSWORD)
    client.refuse(u.PUBLICKEY, u.PASSWORD)
    assert client.refuse(u.PUBLICKEY, u.PASSWORD) == []
    assert client.rejected == "web1 rejected the login as root: tried one, two; it accepts password,publickey"
    assert client.wire.disconnected is None


def test_reports_when_nothing_can_be_tried() -> None:
    client = Client()
    assert client.refuse(u.PASSWORD) == []
    assert client.rejected == "web1 rejected the login as root: no usable credential; it accepts password"


def test_makes_methods_safe_to_print() -> None:
    client = Client()
    client.refuse(b"\x1b[2Jgone\n", b"\xff")
    assert client.rejected.isprintable()


def test_tries_next_key_after_rejected_signature() -> None:
    client = Client(FIRST, SECOND)
    client.refuse()
    client.welcome(FIRST)
    assert client.refuse() == offered(SECOND)
    client.refuse()
    assert "tried one (the target rejected its signature), two;" in client.rejected


@pytest.mark.parametrize("certified", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extensions", [{}, HOSTBOUND], ids=["plain", "hostbound"])
def test_logs_in_at_own_server_with_each_key_type(
    kind: str, certified: bool, extensions: dict[bytes, bytes]
) -> None:
    key = signer(kind, certified=certified)
    pair = Pair(Porter({"joe": (key.blob,)}), [SECOND, key], extensions=extensions, banner="Hello").pump()
    results: list[Login] = []
    pair.client.done.addCallback(results.append)
    assert results == [Login(signer=key, steps=(u.PUBLICKEY,))]
    assert pair.banners == [b"Hello\n"]
    assert pair.server.identities == [identity("joe")]
    assert pair.connection_service.started == pair.server.connection_service.started == 1


@given(st.lists(st.integers(min_value=0, max_value=9), max_size=12), st.sets(st.integers(0, 9)))
def test_signs_only_with_first_accepted_key(held: list[int], good: set[int]) -> None:
    keys = [signer(number=number, label=str(number)) for number in held]
    pair = Pair(Porter({"joe": tuple(signer(number=number).blob for number in good)}), list(keys)).pump()
    results: list[object] = []
    pair.client.done.addBoth(results.append)
    expected = next((key for key in keys[:6] if int(key.label) in good), None)
    if expected is not None:
        assert results == [Login(signer=expected, steps=(u.PUBLICKEY,))]
        assert pair.signing == [expected.label]
        assert pair.server.logged_in
    else:
        (failure,) = results
        assert isinstance(failure, Failure)
        assert isinstance(failure.value, LoginRejected)
        assert pair.signing == []
        assert not pair.server.logged_in
    assert pair.wire.disconnected is None


# --- algorithms and methods


@pytest.mark.parametrize(
    ("sig_algs", "expected"),
    [
        (b"ssh-ed25519,rsa-sha2-256,rsa-sha2-512", b"rsa-sha2-512"),
        (b"ssh-ed25519,rsa-sha2-256,ssh-rsa", b"rsa-sha2-256"),
        (None, b"rsa-sha2-512"),
    ],
)
def test_uses_algorithms_that_server_lists(sig_algs: bytes | None, expected: bytes) -> None:
    key = signer("rsa")
    client = Client(key)
    # EXT_INFO may arrive at any time before the login succeeds.
    if sig_algs is not None:
        client.extensions[b"server-sig-algs"] = sig_algs
    assert client.refuse() == [(u.REQUEST, offer("root", key, algorithm=expected))]
    ((_, request),) = client.hear(u.PK_OK, string(expected) + string(key.blob))
    requested = u.publickey_request(
        user=b"root", algorithm=expected, blob=key.blob, host_key=None, signed=True
    )
    assert request.startswith(requested)
    signature = request[len(requested) + 4 :]
    assert verify_signature(expected, key.blob, u.signed_data(SESSION, requested), signature)


def test_skips_rsa_key_when_server_accepts_only_sha1() -> None:
    client = Client(
        signer("rsa", label="rsa"), SECOND, extensions={b"server-sig-algs": b"ssh-rsa,ssh-ed25519"}
    )
    assert client.refuse() == offered(SECOND)
    client.refuse()
    assert "tried rsa (the target does not accept its algorithm), two;" in client.rejected


def test_binds_to_host_key_when_server_supports_it() -> None:
    client = Client(FIRST, extensions=HOSTBOUND)
    assert client.refuse() == offered(FIRST, HOST_KEY)
    assert client.welcome(FIRST) == proof(FIRST, HOST_KEY)


def test_accepts_pk_ok_with_another_algorithm_name() -> None:
    key = signer("rsa")
    client = Client(key)
    client.refuse()
    ((number, _),) = client.hear(u.PK_OK, string(b"ssh-rsa") + string(key.blob))
    assert number == u.REQUEST
    assert client.wire.disconnected is None


# --- limits


def test_limits_offers() -> None:
    client = Client(*(signer(number=number, label=str(number)) for number in range(9)), max_offers=3)
    client.refuse()
    client.refuse()
    client.refuse()
    assert client.refuse() == []
    assert "tried 0, 1, 2;" in client.rejected
    assert len(client.left) == 6


def test_limits_signers() -> None:
    client = Client(*[signer("rsa")] * 5000, extensions={b"server-sig-algs": b"ssh-ed25519"})
    client.refuse()
    assert isinstance(client.result, LoginRejected)


# --- signers that fail


def test_tries_next_key_when_agent_refuses() -> None:
    bad = Bad(AccessDenied("the agent refused to sign"))
    client = Client(bad, SECOND)
    client.refuse()
    assert client.welcome(bad) == offered(SECOND)
    client.refuse()
    assert "tried bad (the agent refused to sign), two;" in client.rejected


def test_tries_next_key_when_signer_raises() -> None:
    bad = Bad(ZeroDivisionError("secret"))
    client = Client(bad)
    client.refuse()
    client.welcome(bad)
    assert "tried bad (signing failed);" in client.rejected


def test_discards_signature_after_end() -> None:
    bad = Bad(None)
    client = Client(bad)
    client.refuse()
    client.welcome(bad)
    client.wire.stop()
    assert bad.ended == ["cancelled"]
    assert isinstance(client.result, ConnectionLost)


def test_cancels_login() -> None:
    bad = Bad(None)
    client = Client(bad)
    client.refuse()
    client.welcome(bad)
    client.userauth.done.cancel()
    assert bad.ended == ["cancelled"]
    assert isinstance(client.result, CancelledError)
    assert client.hear(u.SUCCESS) == []
    assert client.next_service.started == 0


def test_cancels_login_from_callback() -> None:
    client = Client(FIRST, on_offer=lambda _: client.userauth.done.cancel())
    assert client.refuse() == []
    assert isinstance(client.result, CancelledError)
    assert client.welcome(FIRST) == []


def test_fails_with_error_of_signers() -> None:
    client = Client(next_signer=lambda methods: Deferred())
    client.refuse()
    client.wire.stop()
    assert isinstance(client.result, ConnectionLost)

    def broken(methods: frozenset[bytes]) -> Deferred[Signer | None]:
        raise ZeroDivisionError

    client = Client(next_signer=broken)
    client.refuse()
    assert isinstance(client.result, ZeroDivisionError)


# --- several steps


def test_does_not_offer_proved_key_again() -> None:
    certified = signer(certified=True, label="certificate of one")
    client = Client(FIRST, FIRST, certified, SECOND)
    client.refuse()
    client.welcome(FIRST)
    assert client.refuse(partial=True) == offered(SECOND)
    client.welcome(SECOND)
    client.hear(u.SUCCESS)
    assert client.result == Login(signer=SECOND, steps=(u.PUBLICKEY, u.PUBLICKEY))


def test_reports_partial_success_without_further_method() -> None:
    client = Client(FIRST)
    client.refuse()
    client.welcome(FIRST)
    assert client.refuse(u.PASSWORD, partial=True) == []
    expected = (
        "web1 rejected the login as root: publickey succeeded but was not sufficient; no usable"
        " credential; it accepts password"
    )
    assert client.rejected == expected


def test_limits_steps() -> None:
    keys = [signer(number=number) for number in range(50)]
    client = Client(*keys, max_offers=100)
    client.refuse()
    for key in keys:
        if client.result is None:
            client.welcome(key)
            client.refuse(partial=True)
    assert isinstance(client.result, LoginRejected)


def test_logs_in_at_own_server_in_several_steps() -> None:
    porter = Porter({"joe": (FIRST.blob, SECOND.blob)})
    porter.hold = True
    porter.can = (u.PUBLICKEY,)
    pair = Pair(porter, [FIRST, SECOND])
    results: list[Login] = []
    pair.client.done.addCallback(results.append)
    pair.pump()
    for answer in (AccessDenied("a key is wanted"), PartialSuccess((u.PUBLICKEY,))):
        assert porter.held is not None
        porter.held.errback(answer)
        pair.pump()
    assert porter.held is not None
    porter.held.callback(identity("joe"))
    pair.pump()
    assert results == [Login(signer=SECOND, steps=(u.PUBLICKEY, u.PUBLICKEY))]


# --- prompts


class Person:
    """Answers from a list, and keeps the questions."""

    def __init__(self, *answers: tuple[str, ...] | Exception) -> None:
        self.answers = list(answers)
        self.challenges: list[u.Challenge] = []

    def __call__(self, challenge: u.Challenge) -> Deferred[tuple[str, ...]]:
        self.challenges.append(challenge)
        answer = self.answers.pop(0)
        done: Deferred[tuple[str, ...]] = Deferred()
        if isinstance(answer, Exception):
            done.errback(answer)
        else:
            done.callback(answer)
        return done


CODE = u.Challenge(name="Token", prompts=(u.Prompt(text="Code: ", echo=True), u.Prompt(text="PIN: ")))


def test_answers_keyboard_interactive() -> None:
    person = Person(("1", "2"), ())
    client = Client(prompter=person)
    started = request("root", u.KEYBOARD_INTERACTIVE, string(b"") + string(b""))
    assert client.refuse(u.KEYBOARD_INTERACTIVE) == [(u.REQUEST, started)]
    answers = [(u.INFO_RESPONSE, u.info_response(("1", "2")))]
    assert client.hear(u.INFO_REQUEST, u.info_request(CODE)) == answers
    assert client.hear(u.INFO_REQUEST, u.info_request(u.Challenge())) == [
        (u.INFO_RESPONSE, u.info_response(()))
    ]
    client.hear(u.SUCCESS)
    assert person.challenges == [CODE, u.Challenge()]
    assert client.result == Login(signer=None, steps=(u.KEYBOARD_INTERACTIVE,))


def test_tries_three_passwords() -> None:
    person = Person(("a",), ("b",), ("c",))
    client = Client(prompter=person)

    def password(word: bytes) -> list[tuple[int, bytes]]:
        return [(u.REQUEST, request("root", u.PASSWORD, b"\0" + string(word)))]

    assert client.refuse(u.PASSWORD) == password(b"a")
    assert client.refuse(u.PASSWORD) == password(b"b")
    assert client.refuse(u.PASSWORD) == password(b"c")
    assert client.refuse(u.PASSWORD) == []
    assert client.rejected == "web1 rejected the login as root: tried password; it accepts password"
    assert person.challenges[0].prompts == (u.Prompt(text="root@web1's password: "),)


def test_continues_with_key_after_password() -> None:
    client = Client(None, FIRST, prompter=Person(("a",)))
    client.refuse(u.PASSWORD)
    assert client.refuse(u.PUBLICKEY, partial=True) == offered(FIRST)
    assert client.requested == [frozenset({u.PASSWORD}), frozenset({u.PUBLICKEY})]
    client.welcome(FIRST)
    client.hear(u.SUCCESS)
    assert client.result == Login(signer=FIRST, steps=(u.PASSWORD, u.PUBLICKEY))


def test_reports_when_person_does_not_answer() -> None:
    client = Client(prompter=Person(AccessDenied("nobody is there")))
    assert client.refuse(u.PASSWORD, u.KEYBOARD_INTERACTIVE) != []
    assert client.hear(u.INFO_REQUEST, u.info_request(CODE)) == []
    assert "tried keyboard-interactive (nobody is there);" in client.rejected


def test_reports_expired_password() -> None:
    client = Client(prompter=Person(("a",)))
    client.refuse(u.PASSWORD)
    assert client.hear(u.PASSWD_CHANGEREQ, string(b"new one") + string(b"")) == []
    assert "it has expired" in client.rejected


def test_sends_answers_only_to_server() -> None:
    client = Client(prompter=Person(("secret",), ("secret",), ("secret",)))
    for _ in range(4):
        client.refuse(u.PASSWORD)
    assert "secret" not in client.rejected
    assert isinstance(client.result, ConchrecError)
    assert "secret" not in client.result.detail


def test_limits_questions() -> None:
    client = Client(prompter=Person(*[()] * 100))
    client.refuse(u.KEYBOARD_INTERACTIVE)
    for _ in range(60):
        client.hear(u.INFO_REQUEST, u.info_request(u.Challenge()))
    assert client.wire.disconnected == DisconnectReason.PROTOCOL_ERROR


# --- protocol violations of a target


def at_none() -> Client:
    return Client(FIRST)


def at_an_offer() -> Client:
    client = Client(FIRST)
    client.refuse()
    return client


def at_signing() -> Client:
    bad = Bad(None)
    client = Client(bad)
    client.refuse()
    client.welcome(bad)
    return client


def at_a_proof() -> Client:
    client = at_an_offer()
    client.welcome(FIRST)
    return client


def at_choosing() -> Client:
    client = Client(next_signer=lambda methods: Deferred())
    client.refuse()
    return client


def at_a_question() -> Client:
    client = Client(prompter=lambda challenge: Deferred())
    client.refuse(u.KEYBOARD_INTERACTIVE)
    return client


def at_an_answer() -> Client:
    client = at_a_question()
    client.hear(u.INFO_REQUEST, u.info_request(CODE))
    return client


Situation = Callable[[], Client]
SITUATIONS = [at_none, at_an_offer, at_signing, at_a_proof, at_choosing, at_a_question, at_an_answer]
GOOD = {
    at_none: {u.FAILURE, u.SUCCESS},
    at_an_offer: {u.FAILURE, u.PK_OK},
    at_a_proof: {u.FAILURE, u.SUCCESS},
    at_a_question: {u.FAILURE, u.SUCCESS, u.INFO_REQUEST},
}


@pytest.mark.parametrize(
    ("situation", "number"),
    [
        (situation, number)
        for situation in SITUATIONS
        for number in (50, 51, 52, 60, 61, 80, 90, 100)
        if number not in GOOD.get(situation, ())
    ],
)
def test_rejects_unexpected_messages(situation: Situation, number: int) -> None:
    client = situation()
    assert client.hear(number, b"") == []
    assert client.wire.disconnected == DisconnectReason.PROTOCOL_ERROR
    assert isinstance(client.result, UpstreamError)
    assert "web1 violated the SSH protocol" in client.result.public
    assert client.next_service.started == 0
    assert client.hear(u.SUCCESS) == []


@pytest.mark.parametrize("situation", SITUATIONS)
def test_accepts_banner_at_any_time(situation: Situation) -> None:
    client = situation()
    client.hear(u.BANNER, string(b"\x1b[1mHello\xff") + string(b"en"))
    client.hear(u.BANNER, string(b"no language"))
    assert client.heard[-2:] == [("banner", b"\x1b[1mHello\xff"), ("banner", b"no language")]
    assert client.wire.disconnected is None


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("number", [54, 62, 79, 130, 255])
def test_answers_unknown_message_with_unimplemented(situation: Situation, number: int) -> None:
    client = situation()
    client.hear(number, b"whatever")
    assert client.wire.unimplemented == 1
    assert client.result is None


@pytest.mark.parametrize("situation", SITUATIONS)
def test_fails_when_connection_ends(situation: Situation) -> None:
    client = situation()
    client.wire.stop()
    assert isinstance(client.result, ConnectionLost)
    client.userauth.serviceStopped()
    client.userauth.packetReceived(u.SUCCESS, b"")


@pytest.mark.parametrize("blob", [SECOND.blob, b"", FIRST.blob + b"x"])
def test_rejects_pk_ok_for_another_key(blob: bytes) -> None:
    client = at_an_offer()
    client.hear(u.PK_OK, string(b"ssh-ed25519") + string(blob))
    assert client.wire.disconnected == DisconnectReason.PROTOCOL_ERROR


def test_rejects_partial_success_for_offer() -> None:
    client = at_an_offer()
    client.refuse(partial=True)
    assert client.wire.disconnected == DisconnectReason.PROTOCOL_ERROR


@given(st.binary(max_size=60), st.integers(min_value=50, max_value=255), st.sampled_from(SITUATIONS))
def test_never_raises_for_random_messages(rubbish: bytes, number: int, situation: Situation) -> None:
    client = situation()
    client.hear(number, rubbish)
    if client.wire.disconnected is not None:
        assert isinstance(client.result, UpstreamError)
        assert client.next_service.started == 0
