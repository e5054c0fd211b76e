"""Logins at our server: which messages prove an identity, and which do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred, fail, succeed

from conchrec.errors import AccessDenied
from conchrec.model import Identity
from conchrec.ssh import userauth as u
from conchrec.ssh.authenticator import Ask, PartialSuccess
from conchrec.ssh.certificate import CERTIFICATE
from conchrec.ssh.login_attempts import MAX_REQUESTS
from conchrec.ssh.numbers import DisconnectReason
from conchrec.ssh.userauth_server import MAX_WAITING
from conchrec.ssh.wire import Reader, names, string, uint32
from tests.support.logins import (
    HOST_KEY,
    KINDS,
    Porter,
    Server,
    failure_of,
    identity,
    none,
    offer,
    request,
    signed,
    signer,
)

JOE, ANN, EVE = signer(label="joe"), signer(number=1, label="ann"), signer(number=2, label="eve")
CHANNEL_OPEN = 90
KBD = request("joe", u.KEYBOARD_INTERACTIVE, string(b"") + string(b""))


def porter() -> Porter:
    return Porter({"joe": (JOE.blob,), "ann": (ANN.blob,)})


@pytest.fixture
def server() -> Server:
    return Server(porter())


# --- keys


@pytest.mark.parametrize("certified", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_logs_in_with_each_key_type(kind: str, certified: bool) -> None:
    key = signer(kind, certified=certified)
    server = Server(Porter({"joe": (key.blob,)}))
    ((number, payload),) = server.ask(offer("joe", key))
    assert number == u.PK_OK
    r = Reader(payload)
    assert (r.string(), r.string()) == (key.algorithm(None), key.blob)
    r.end()
    assert not server.logged_in
    assert server.numbers(signed("joe", key)) == [u.SUCCESS]
    assert server.identities == [identity("joe")]
    assert server.wire.events[-2:] == [(u.SUCCESS, b""), ("service", b"ssh-connection")]
    assert server.refused == []


def test_does_not_log_in_by_offer(server: Server) -> None:
    for _ in range(3):
        assert server.numbers(offer("joe", JOE)) == [u.PK_OK]
    assert ("proved", "joe") not in server.porter.calls
    server.ask(b"", CHANNEL_OPEN)
    assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR
    assert not server.logged_in


def test_verifies_signature_with_key_of_request(server: Server) -> None:
    assert server.numbers(offer("joe", JOE)) == [u.PK_OK]
    assert server.numbers(signed("joe", EVE)) == [u.FAILURE]
    assert server.numbers(offer("joe", JOE)) == [u.PK_OK]
    assert server.numbers(signed("joe", ANN)) == [u.FAILURE]
    assert ("proved", "joe") not in server.porter.calls
    assert not server.logged_in


def test_rejects_signature_of_another_key(server: Server) -> None:
    theirs = signed("joe", EVE).replace(EVE.blob, JOE.blob)
    assert server.numbers(theirs) == [u.FAILURE]
    assert not server.logged_in


def test_accepts_signature_without_offer(server: Server) -> None:
    assert server.numbers(signed("joe", JOE)) == [u.SUCCESS]


@pytest.mark.parametrize("session_id", [b"another connection", b""])
def test_rejects_signature_for_another_connection(server: Server, session_id: bytes) -> None:
    assert server.numbers(signed("joe", JOE, session_id=session_id)) == [u.FAILURE]
    assert server.refused == [("joe", "publickey", server.refused[0][2])]
    assert "signature" in server.refused[0][2]


def test_rejects_signature_without_session_id() -> None:
    server = Server(porter(), session_id=b"")
    assert server.numbers(signed("joe", JOE, session_id=b"")) == [u.FAILURE]


@pytest.mark.parametrize("certified", [False, True])
@pytest.mark.parametrize(
    ("algorithm", "signs_as"),
    [
        (b"ssh-rsa", b"ssh-rsa"),
        (b"rsa-sha2-512", b"ssh-rsa"),
        (b"rsa-sha2-256", b"rsa-sha2-512"),
        (b"rsa-sha2-512", b"rsa-sha2-256"),
        (b"ssh-ed25519", b"rsa-sha2-512"),
        (b"", b"rsa-sha2-512"),
    ],
)
def test_verifies_signature_with_named_algorithm(algorithm: bytes, signs_as: bytes, certified: bool) -> None:
    """The test's authenticator accepts the key with any algorithm, so only the signature can be wrong."""
    key = signer("rsa", certified=certified)
    server = Server(Porter({"joe": (key.blob,)}))
    if certified and algorithm:
        algorithm += CERTIFICATE
    assert server.numbers(signed("joe", key, algorithm=algorithm, signs_as=signs_as)) == [u.FAILURE]
    assert not server.logged_in


@pytest.mark.parametrize("certified", [False, True])
def test_rejects_algorithm_of_the_other_key_form(certified: bool) -> None:
    key = signer("rsa", certified=certified)
    server = Server(Porter({"joe": (key.blob,)}))
    algorithm = b"rsa-sha2-512" if certified else b"rsa-sha2-512" + CERTIFICATE
    assert server.numbers(signed("joe", key, algorithm=algorithm)) == [u.FAILURE]


# --- host-bound signatures


def test_accepts_host_bound_signature(server: Server) -> None:
    assert server.numbers(offer("joe", JOE, host_key=HOST_KEY)) == [u.PK_OK]
    assert server.numbers(signed("joe", JOE, host_key=HOST_KEY)) == [u.SUCCESS]


def test_rejects_signature_bound_to_another_host_key(server: Server) -> None:
    assert server.numbers(offer("joe", JOE, host_key=b"mine")) == [u.FAILURE]
    assert server.numbers(signed("joe", JOE, host_key=b"mine")) == [u.FAILURE]
    assert server.numbers(signed("joe", JOE, host_key=b"")) == [u.FAILURE]


def test_rejects_host_bound_signature_with_changed_host_key(server: Server) -> None:
    elsewhere = signed("joe", JOE, host_key=b"elsewhere")
    assert server.numbers(elsewhere.replace(string(b"elsewhere"), string(HOST_KEY))) == [u.FAILURE]
    unbound = signed("joe", JOE, host_key=HOST_KEY)
    unbound = unbound.replace(string(u.HOSTBOUND), string(u.PUBLICKEY)).replace(string(HOST_KEY), b"")
    assert server.numbers(unbound) == [u.FAILURE]
    assert not server.logged_in


# --- user names


@pytest.mark.parametrize("second", [none("ann"), offer("ann", ANN), signed("ann", ANN), signed("joe ", JOE)])
def test_rejects_change_of_user_name(server: Server, second: bytes) -> None:
    assert server.numbers(offer("joe", JOE)) == [u.PK_OK]
    server.ask(second)
    assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR
    assert not server.logged_in


def test_refuses_another_service(server: Server) -> None:
    server.ask(request("joe", u.NONE, service=b"ssh-userauth"))
    assert server.wire.disconnected == DisconnectReason.SERVICE_NOT_AVAILABLE


@pytest.mark.parametrize("name", ["", "a\nb", "a\x1b[2J", "a\0b", "j" * 600, "a\u202eb"])
def test_rejects_invalid_user_name(server: Server, name: str) -> None:
    server.ask(none(name))
    assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR
    assert server.porter.calls == []


def test_rejects_user_name_that_is_not_utf8(server: Server) -> None:
    server.ask(string(b"jo\xff") + string(u.CONNECTION) + string(u.NONE))
    assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR


def test_answers_unknown_users_like_known_users(server: Server) -> None:
    for make in (none, lambda user: offer(user, EVE), lambda user: signed(user, EVE)):
        answers = {user: Server(porter()).ask(make(user)) for user in ("joe", "nobody")}
        assert answers["joe"] == answers["nobody"]


# --- number of attempts


def test_does_not_count_first_none(server: Server) -> None:
    assert failure_of(server.ask(none())[0]) == ((u.PUBLICKEY,), False)
    assert server.refused == []
    for _ in range(5):
        assert server.numbers(none()) == [u.FAILURE]
    server.ask(none())
    assert server.wire.disconnected == DisconnectReason.NO_MORE_AUTH_METHODS_AVAILABLE
    assert len(server.refused) == 6


def test_logs_in_by_none(server: Server) -> None:
    server.porter.free.add("joe")
    assert server.numbers(none()) == [u.SUCCESS]


def test_disconnects_after_six_failures() -> None:
    server = Server(porter(), tries=6)
    server.ask(none())
    for _ in range(5):
        assert server.numbers(signed("joe", EVE)) == [u.FAILURE]
    server.ask(signed("joe", EVE))
    assert server.wire.disconnected == DisconnectReason.NO_MORE_AUTH_METHODS_AVAILABLE
    assert [method for _, method, _ in server.refused] == ["publickey"] * 6


def test_does_not_count_offers_as_failures(server: Server) -> None:
    for _ in range(20):
        assert server.numbers(offer("joe", EVE)) == [u.FAILURE]
    assert server.numbers(signed("joe", JOE)) == [u.SUCCESS]
    assert server.refused == []


def test_limits_requests(server: Server) -> None:
    for _ in range(MAX_REQUESTS):
        server.ask(offer("joe", EVE))
    assert server.wire.disconnected is None
    server.ask(offer("joe", EVE))
    assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR
    ((user, method, reason),) = server.refused
    assert (user, method) == ("joe", "publickey")
    assert "SHA256:" in reason


def test_audits_unsuccessful_offers_once(server: Server) -> None:
    server.ask(offer("joe", EVE))
    server.ask(offer("joe", ANN))
    server.wire.stop()
    ((user, _, reason),) = server.refused
    assert user == "joe"
    assert reason.count("SHA256:") == 2


def test_counts_unavailable_methods_as_failures(server: Server) -> None:
    password = request("joe", u.PASSWORD, b"\0" + string(b"secret"))
    assert server.numbers(password) == [u.FAILURE]
    assert server.numbers(KBD) == [u.FAILURE]
    assert server.numbers(request("joe", b"hostbased", b"whatever")) == [u.FAILURE]
    assert all("secret" not in str(refusal) for refusal in server.refused)
    assert server.porter.calls == []


# --- login time


def test_disconnects_after_login_time(server: Server) -> None:
    server.ask(none())
    server.clock.advance(119)
    assert server.wire.disconnected is None
    server.clock.advance(1)
    assert server.wire.disconnected == DisconnectReason.BY_APPLICATION
    assert server.refused == [("joe", "login", "not logged in within 120 seconds")]


def test_pauses_login_time_while_deciding(server: Server) -> None:
    server.clock.advance(100)
    server.porter.hold = True
    server.ask(signed("joe", JOE))
    server.clock.advance(3600)
    held = server.porter.held
    assert held is not None
    held.errback(AccessDenied("Permission denied", "the target is down"))
    assert failure_of(server.wire.take()[0])[1] is False
    assert server.refused == [("joe", "publickey", "the target is down")]
    # The client still has the rest of the time.
    server.clock.advance(19)
    assert server.wire.disconnected is None
    server.clock.advance(1)
    assert server.wire.disconnected == DisconnectReason.BY_APPLICATION


def test_leaves_no_timer_after_end(server: Server) -> None:
    server.ask(signed("joe", JOE))
    assert server.clock.getDelayedCalls() == []
    other = Server(porter())
    other.wire.stop()
    assert other.clock.getDelayedCalls() == []


# --- pipelined messages


def test_queues_pipelined_requests(server: Server) -> None:
    server.porter.hold = True
    server.ask(none())
    assert server.ask(offer("joe", JOE)) == []
    assert server.ask(offer("joe", EVE)) == []
    held = server.porter.held
    assert held is not None
    held.errback(AccessDenied("no"))
    assert [number for number, _ in server.wire.take()] == [u.FAILURE, u.PK_OK, u.FAILURE]


def test_passes_pipelined_messages_to_connection_after_success(server: Server) -> None:
    server.porter.hold = True
    server.ask(none())
    server.ask(b"first", CHANNEL_OPEN)
    server.ask(none())
    server.ask(b"second", CHANNEL_OPEN)
    held = server.porter.held
    assert held is not None
    held.callback(identity("joe"))
    assert server.connection_service.received == [(CHANNEL_OPEN, b"first"), (CHANNEL_OPEN, b"second")]
    assert server.porter.calls == [("none", "joe")]
    assert server.connection_service.started == 1


def test_rejects_pipelined_connection_messages_after_failure(server: Server) -> None:
    server.porter.hold = True
    server.ask(none())
    server.ask(b"too early", CHANNEL_OPEN)
    held = server.porter.held
    assert held is not None
    held.errback(AccessDenied("no"))
    assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR
    assert server.connection_service.received == []


def test_limits_pipelined_messages(server: Server) -> None:
    server.porter.hold = True
    server.ask(none())
    for _ in range(MAX_WAITING):
        server.ask(none())
    assert server.wire.disconnected is None
    server.ask(none())
    assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR
    assert server.porter.cancelled == 1


def test_cancels_decision_when_connection_ends(server: Server) -> None:
    server.porter.hold = True
    server.ask(signed("joe", JOE))
    server.wire.stop()
    assert server.porter.cancelled == 1
    assert not server.logged_in
    assert server.refused == []
    server.userauth.packetReceived(u.REQUEST, none())
    server.userauth.send_banner("late")
    assert server.wire.take() == []


@pytest.mark.parametrize("number", [u.SUCCESS, u.FAILURE, u.BANNER, u.PK_OK, u.INFO_RESPONSE, 80, 90, 127])
def test_rejects_unexpected_messages(server: Server, number: int) -> None:
    server.ask(none())
    server.ask(b"", number)
    assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR
    assert not server.logged_in


@pytest.mark.parametrize("number", [54, 79, 128, 192, 255])
def test_answers_unknown_message_with_unimplemented(server: Server, number: int) -> None:
    server.ask(b"", number)
    assert server.wire.unimplemented == 1
    assert server.numbers(signed("joe", JOE)) == [u.SUCCESS]


# --- banners


def test_sends_banner_once_before_first_answer() -> None:
    server = Server(porter(), banner="Sessions are recorded.")
    banner = (u.BANNER, string(b"Sessions are recorded.\n") + string(b""))
    assert server.ask(none()) == [banner, (u.FAILURE, names((u.PUBLICKEY,)) + b"\0")]
    assert server.numbers(none()) == [u.FAILURE]


def test_sends_banner_of_target_while_deciding(server: Server) -> None:
    server.porter.hold = True
    server.ask(signed("joe", JOE))
    server.userauth.send_banner("Welcome to web1\n")
    assert [number for number, _ in server.wire.take()] == [u.BANNER]
    held = server.porter.held
    assert held is not None
    held.callback(identity("joe"))
    server.userauth.send_banner("too late")
    assert [number for number, _ in server.wire.take()] == [u.SUCCESS]


# --- several steps, and internal errors


def test_reports_partial_success(server: Server) -> None:
    server.porter.hold = True
    server.ask(signed("joe", JOE))
    held = server.porter.held
    assert held is not None
    held.errback(PartialSuccess((u.KEYBOARD_INTERACTIVE,)))
    assert failure_of(server.wire.take()[0]) == ((u.KEYBOARD_INTERACTIVE,), True)
    assert server.refused == []


def test_rejects_login_after_internal_error(server: Server) -> None:
    def broken(*_: object) -> Deferred[Identity]:
        raise ZeroDivisionError

    server.porter.log_in_by_key = broken  # type: ignore[method-assign,assignment]
    assert server.numbers(signed("joe", JOE)) == [u.FAILURE]
    assert server.refused == [("joe", "publickey", "internal error")]
    server.porter.accepts_key = broken  # type: ignore[method-assign,assignment]
    server.ask(offer("joe", JOE))
    assert server.wire.disconnected == DisconnectReason.BY_APPLICATION
    assert not server.logged_in


def test_sends_no_success_when_connection_cannot_be_created() -> None:
    def broken(who: Identity) -> SSHService:
        raise ZeroDivisionError

    server = Server(porter(), connection=broken)
    assert server.numbers(signed("joe", JOE)) == []
    assert server.wire.disconnected == DisconnectReason.BY_APPLICATION


# --- keyboard-interactive


class Conversation:
    """An authenticator that asks the questions of the test, one after another."""

    def __init__(self, *challenges: u.Challenge) -> None:
        self.challenges = challenges
        self.heard: list[tuple[str, ...]] = []
        self.ask: Ask | None = None
        self.failures: list[Exception] = []

    def __call__(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        self.ask = ask
        return Deferred.fromCoroutine(self.hold(user, ask))

    async def hold(self, user: str, ask: Ask) -> Identity:
        for challenge in self.challenges:
            try:
                self.heard.append(await ask(challenge))
            except Exception as error:
                self.failures.append(error)
                raise
        return identity(user)


TOKEN = u.Challenge(name="Token", instruction="Look at it", prompts=(u.Prompt(text="Code: ", echo=True),))
TWO = u.Challenge(prompts=(u.Prompt(text="First: "), u.Prompt(text="Second: ")))


def converser(conversation: Callable[[str, str, Ask], Deferred[Identity]]) -> Server:
    porter = Porter({"joe": (JOE.blob,)})
    porter.can = (u.PUBLICKEY, u.KEYBOARD_INTERACTIVE)
    porter.conversation = conversation
    return Server(porter)


def test_asks_and_receives_answers() -> None:
    conversation = Conversation(TOKEN, u.Challenge(instruction="Thank you"), TWO)
    server = converser(conversation)
    assert server.ask(KBD) == [(u.INFO_REQUEST, u.info_request(TOKEN))]
    assert server.numbers(u.info_response(("12",)), u.INFO_RESPONSE) == [u.INFO_REQUEST]
    assert server.numbers(u.info_response(()), u.INFO_RESPONSE) == [u.INFO_REQUEST]
    assert server.numbers(u.info_response(("ä", "")), u.INFO_RESPONSE) == [u.SUCCESS]
    assert conversation.heard == [("12",), (), ("ä", "")]
    assert server.logged_in


@pytest.mark.parametrize("answers", [(), ("1", "2")])
def test_fails_when_number_of_answers_is_wrong(answers: tuple[str, ...]) -> None:
    server = converser(Conversation(TOKEN))
    server.ask(KBD)
    assert server.numbers(u.info_response(answers), u.INFO_RESPONSE) == [u.FAILURE]
    assert not server.logged_in
    assert [method for _, method, _ in server.refused] == ["keyboard-interactive"]


def test_fails_when_answer_is_not_utf8() -> None:
    server = converser(Conversation(TOKEN))
    server.ask(KBD)
    assert server.numbers(uint32(1) + string(b"\xff"), u.INFO_RESPONSE) == [u.FAILURE]


@pytest.mark.parametrize("payload", [b"", uint32(1), uint32(2**32 - 1), uint32(0) + b"x"])
def test_rejects_malformed_answers(payload: bytes) -> None:
    server = converser(Conversation(TOKEN))
    server.ask(KBD)
    server.ask(payload, u.INFO_RESPONSE)
    assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR


def test_abandons_questions_after_new_request() -> None:
    conversation = Conversation(TOKEN)
    server = converser(conversation)
    server.ask(KBD)
    assert server.numbers(offer("joe", JOE)) == [u.PK_OK]
    assert isinstance(conversation.failures[0], AccessDenied)
    # A question of the abandoned attempt fails.
    assert conversation.ask is not None
    late: list[object] = []
    conversation.ask(TOKEN).addErrback(late.append)
    assert len(late) == 1
    assert server.wire.take() == []
    assert server.numbers(signed("joe", JOE)) == [u.SUCCESS]


def test_ignores_answer_to_withdrawn_question() -> None:
    questions: list[Deferred[tuple[str, ...]]] = []

    def conversation(user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        answer = ask(TOKEN)
        questions.append(answer)
        decided: Deferred[Identity] = Deferred()
        answer.addErrback(lambda _: decided.errback(AccessDenied("Permission denied", "too slow")))
        return decided

    server = converser(conversation)
    server.ask(KBD)
    questions[0].cancel()
    assert [number for number, _ in server.wire.take()] == [u.FAILURE]
    assert server.ask(u.info_response(("12",)), u.INFO_RESPONSE) == []
    assert server.wire.disconnected is None
    server.ask(u.info_response(("12",)), u.INFO_RESPONSE)
    assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR


def test_runs_login_time_while_user_answers() -> None:
    server = converser(Conversation(TOKEN))
    server.ask(KBD)
    server.clock.advance(120)
    assert server.wire.disconnected == DisconnectReason.BY_APPLICATION


def test_refuses_second_question_while_one_is_open() -> None:
    refused: list[object] = []

    def conversation(user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        first = ask(TOKEN)
        ask(TOKEN).addErrback(refused.append)
        return first.addCallback(lambda _: identity(user))

    server = converser(conversation)
    assert server.numbers(KBD) == [u.INFO_REQUEST]
    assert len(refused) == 1
    assert server.numbers(u.info_response(("12",)), u.INFO_RESPONSE) == [u.SUCCESS]


def test_succeeds_without_question() -> None:
    server = converser(lambda user, submethods, ask: fail(AccessDenied("Permission denied")))
    assert server.numbers(KBD) == [u.FAILURE]
    server = converser(lambda user, submethods, ask: succeed(identity(user)))
    assert server.numbers(KBD) == [u.SUCCESS]


# --- random input


@given(st.binary(max_size=200), st.integers(min_value=50, max_value=255))
def test_never_raises_or_logs_in_for_random_messages(rubbish: bytes, number: int) -> None:
    server = Server(porter())
    server.ask(rubbish, number)
    assert not server.logged_in


@given(st.data())
def test_rejects_truncated_or_extended_request(data: st.DataObject) -> None:
    whole = signed("joe", JOE)
    cut = data.draw(st.integers(min_value=0, max_value=len(whole) - 1))
    server = Server(porter())
    server.ask(whole[:cut])
    assert not server.logged_in
    for message in (whole, offer("joe", JOE), none()):
        server = Server(porter())
        server.ask(message + b"\0")
        assert server.wire.disconnected == DisconnectReason.PROTOCOL_ERROR
        assert not server.logged_in


@given(st.data())
def test_rejects_request_with_one_bit_changed(data: st.DataObject) -> None:
    whole = bytearray(signed("joe", JOE))
    at = data.draw(st.integers(min_value=0, max_value=len(whole) * 8 - 1))
    whole[at // 8] ^= 1 << at % 8
    server = Server(porter())
    server.ask(bytes(whole))
    assert not server.logged_in


STEPS: dict[str, tuple[int, bytes]] = {
    "none": (u.REQUEST, none()),
    "offer of joe's key": (u.REQUEST, offer("joe", JOE)),
    "offer of another key": (u.REQUEST, offer("joe", EVE)),
    "joe's signature": (u.REQUEST, signed("joe", JOE)),
    "another signature": (u.REQUEST, signed("joe", EVE)),
    "a signature for another connection": (u.REQUEST, signed("joe", JOE, session_id=b"x")),
    "ann": (u.REQUEST, signed("ann", ANN)),
    "channel": (CHANNEL_OPEN, b""),
    "success": (u.SUCCESS, b""),
    "answers": (u.INFO_RESPONSE, u.info_response(())),
    "unknown": (70, b""),
}
ENDS = {"ann", "channel", "success", "answers"}


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
def test_logs_in_only_by_valid_signature_after_any_sequence(steps: list[str]) -> None:
    server = Server(porter())
    named = alive = False
    expected: list[str] = []
    for step in steps:
        if not server.logged_in and server.wire.disconnected is None:
            alive = True
            if step == "ann" and not named:
                expected.append("ann")
            elif step in ENDS:
                alive = False
            elif step == "joe's signature":
                expected.append("joe")
            named = named or STEPS[step][0] == u.REQUEST
        number, payload = STEPS[step]
        server.ask(payload, number)
        if not alive:
            assert server.wire.disconnected is not None
            break
        if server.wire.disconnected is not None:
            assert server.wire.disconnected == DisconnectReason.NO_MORE_AUTH_METHODS_AVAILABLE
            break
    assert [who.user for who in server.identities] == expected[: len(server.identities)]
    assert bool(expected) == server.logged_in
