"""The agent client, with OpenSSH's agent and with agents that misbehave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st
from twisted.conch.ssh.keys import Key as PrivateKey
from twisted.internet.defer import Deferred

from conchrec.ssh import agent_messages as a
from conchrec.ssh.agent import AgentClient, AgentError, AgentKeyManager, AgentSigner
from conchrec.ssh.agent_messages import AgentIdentity, SessionBinding
from conchrec.ssh.signatures import verify_signature
from conchrec.ssh.wire import Reader, string, uint32
from tests.support.agent import Agent
from tests.support.keys import Key, sign_user
from tests.support.logins import key as memory_key
from tests.support.logins import signer as memory_signer
from tests.support.logins import user_certificate
from tests.support.process import environment, run
from tests.support.stage import Stage
from tests.support.unixagent import connect_agent, connect_keeper
from tests.support.wait import becomes

KEY = memory_key().public().blob()
RSA = memory_key("rsa").public().blob()


# --- OpenSSH's agent


async def certified(stage: Stage, kind: str) -> Key:
    authority = await stage.key("authority")
    return await sign_user(authority, await stage.key("key", kind), "joe", "joe")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_signs_with_keys_and_certificates_of_each_type(stage: Stage, kind: str) -> None:
    key = await certified(stage, kind)
    client = await connect_agent(stage, await stage.agent(key))
    identities = await client.identities()
    assert sorted(entry.is_certificate for entry in identities) == [False, True]
    assert {entry.comment for entry in identities} == {key.path.name}
    for accepted in (None, frozenset({b"rsa-sha2-256"})):
        for identity in identities:
            signer = AgentSigner(client, identity)
            algorithm = signer.algorithm(accepted)
            assert algorithm is not None
            signature = await signer.sign(b"data", algorithm)
            assert verify_signature(algorithm, identity.blob, b"data", signature)
            word = "certificate" if identity.is_certificate else "key"
            assert signer.label == f"agent {word} {key.path.name}"


async def test_assigns_replies_when_requests_overlap(stage: Stage) -> None:
    client = await connect_agent(stage, await stage.agent(await stage.key()))
    (identity,) = await client.identities()
    signer = AgentSigner(client, identity)
    signing = [signer.sign(b"%d" % number, b"ssh-ed25519") for number in range(20)]
    listing = client.identities()
    for number, deferred in enumerate(signing):
        assert verify_signature(b"ssh-ed25519", identity.blob, b"%d" % number, await deferred)
    assert await listing == (identity,)


async def test_fails_to_sign_with_unknown_key(stage: Stage) -> None:
    client = await connect_agent(stage, await stage.agent())
    assert await client.identities() == ()
    with pytest.raises(AgentError, match="refused to sign"):
        await client.sign(KEY, b"data", 0)
    assert not client.closed


async def _askpass(agent: Agent, directory: Path, option: str) -> None:
    program = directory / "askpass"
    program.write_text("#!/bin/sh\necho secret\n")
    program.chmod(0o700)
    env = environment(
        SSH_AUTH_SOCK=str(agent.socket), SSH_ASKPASS=str(program), SSH_ASKPASS_REQUIRE="force", DISPLAY=":0"
    )
    (await run("ssh-add", option, env=env)).check()


async def test_lists_no_identities_when_agent_is_locked(stage: Stage, tmp_path: Path) -> None:
    agent = await stage.agent(await stage.key())
    client = await connect_agent(stage, agent)
    (identity,) = await client.identities()
    await _askpass(agent, tmp_path, "-x")
    assert await client.identities() == ()
    with pytest.raises(AgentError):
        await client.sign(identity.blob, b"data", 0)
    await _askpass(agent, tmp_path, "-X")
    assert await client.identities() == (identity,)


async def test_binds_agent_to_session(stage: Stage) -> None:
    host = memory_signer(number=3)
    session_id = b"s" * 32
    signature = await host.sign(session_id, b"ssh-ed25519")
    agent = await stage.agent()
    client = await connect_agent(stage, agent)
    binding = SessionBinding(host_key=host.blob, session_id=session_id, signature=signature)
    assert await client.bind_session(binding, forwarding=False) is True
    # For another session, signature verification fails; the agent continues anyway.
    other = await connect_agent(stage, agent)
    wrong = replace(binding, session_id=b"t" * 32)
    assert await other.bind_session(wrong, forwarding=True) is False
    assert await other.identities() == ()


async def test_returns_none_for_unknown_extension(stage: Stage) -> None:
    client = await connect_agent(stage, await stage.agent())
    assert await client.extension(b"no-such-thing@example.com", b"contents") is None
    assert await client.identities() == ()


async def test_forwards_message_without_parsing(stage: Stage) -> None:
    agent = await stage.agent(await stage.key())
    client = await connect_agent(stage, agent)
    (identity,) = await client.identities()
    answer = await client.forward(bytes((a.REQUEST_IDENTITIES,)))
    assert answer == bytes((a.IDENTITIES_ANSWER,)) + uint32(1) + string(identity.blob) + string(
        identity.comment.encode()
    )


async def test_fails_when_agent_ends(stage: Stage) -> None:
    agent = await stage.agent()
    client = await connect_agent(stage, agent)
    assert await client.identities() == ()
    await agent.stop()
    with pytest.raises(AgentError):
        await client.identities()
    assert client.closed


# --- keys that are added


PRIVATE = ed25519.Ed25519PrivateKey.generate()
PUBLIC = string(b"ssh-ed25519") + string(PRIVATE.public_key().public_bytes_raw())
CERTIFICATE = user_certificate(PrivateKey(PRIVATE))


async def test_adds_and_removes_key_with_certificate(stage: Stage) -> None:
    """The agent keeps the certificate, signs with it, and removes it."""
    agent = await stage.agent(await stage.key())
    client = await connect_keeper(stage, agent)
    (other,) = await client.identities()
    assert await client.add(PRIVATE, CERTIFICATE, comment="conchrec:joe", lifetime=timedelta(hours=1)) is True
    mine = AgentIdentity(blob=CERTIFICATE, comment="conchrec:joe")
    assert await client.identities() == (other, mine)
    algorithm = b"ssh-ed25519-cert-v01@openssh.com"
    signature = await AgentSigner(client, mine).sign(b"data", algorithm)
    assert verify_signature(algorithm, CERTIFICATE, b"data", signature)
    assert await client.remove(PUBLIC) is False
    assert await client.remove(CERTIFICATE) is True
    assert await client.identities() == (other,)


async def test_rounds_lifetime_up_to_one_second(stage: Stage) -> None:
    """Some agents keep a key with a lifetime of 0 for ever."""
    client = await connect_keeper(stage, await stage.agent())
    await client.add(PRIVATE, CERTIFICATE, comment="", lifetime=timedelta(milliseconds=1))

    async def held() -> tuple[AgentIdentity, ...]:
        return await client.identities()

    await becomes(held, (), "it is not forgotten")


@pytest.mark.parametrize("number", [a.FAILURE, a.EXTENSION_FAILURE, a.OLD_FAILURE])
def test_returns_false_when_agent_refuses_to_add_or_remove(number: int) -> None:
    fake = Fake()
    keeper = AgentKeyManager(fake.requests.extend, lambda: None)
    fake.keep(keeper.remove(PUBLIC))
    fake.keep(keeper.add(PRIVATE, CERTIFICATE, comment="", lifetime=timedelta(hours=8)))
    for _ in range(2):
        keeper.data_received(uint32(1) + bytes((number,)))
    assert fake.results == [False, False]
    r = Reader(bytes(fake.requests))
    assert r.string() == bytes((18,)) + string(PUBLIC)
    assert r.string().endswith(b"\x01" + uint32(8 * 3600))


@pytest.mark.parametrize("message", [b"\x06x", bytes((a.IDENTITIES_ANSWER,)) + uint32(0), b"\xff"])
def test_rejects_malformed_reply_to_remove(message: bytes) -> None:
    fake = Fake()
    keeper = AgentKeyManager(fake.requests.extend, lambda: None)
    fake.keep(keeper.remove(PUBLIC))
    keeper.data_received(uint32(len(message)) + message)
    assert "malformed reply" in fake.error
    assert keeper.closed


def test_gives_target_logins_no_operation_on_keys() -> None:
    """A login at a target gets an AgentClient, which has no operation that changes keys."""
    ours = {name for name in vars(AgentClient) if not name.startswith("_")}
    assert ours == {
        *("identities", "sign", "extension", "bind_session", "forward"),
        *("data_received", "connection_lost", "close", "closed"),
    }


# --- agents that misbehave


class Fake:
    """A client whose agent is the test. ``requests`` has the sent bytes; ``lost`` counts the calls of
    ``lose``.
    """

    def __init__(self) -> None:
        self.requests = bytearray()
        self.lost = 0
        self.client = AgentClient(self.requests.extend, self._lose)
        self.results: list[object] = []

    def _lose(self) -> None:
        self.lost += 1

    def keep(self, deferred: Deferred[Any]) -> None:
        deferred.addBoth(lambda result: self.results.append(getattr(result, "value", result)))

    def say(self, message: bytes) -> None:
        self.client.data_received(uint32(len(message)) + message)

    @property
    def error(self) -> str:
        error = self.results[-1]
        assert isinstance(error, AgentError), error
        return error.public


@pytest.fixture
def fake() -> Fake:
    return Fake()


def listed(*keys: tuple[bytes, bytes]) -> bytes:
    return a.identities_answer(keys)


def test_sends_only_messages_that_a_login_needs(fake: Fake) -> None:
    fake.keep(fake.client.identities())
    fake.keep(fake.client.sign(KEY, b"data", 4))
    fake.keep(fake.client.extension(b"x@y", b"contents"))
    messages = []
    r = Reader(bytes(fake.requests))
    while not r.at_end:
        messages.append(r.string())
    assert messages == [
        b"\x0b",
        b"\x0d" + string(KEY) + string(b"data") + uint32(4),
        b"\x1b" + string(b"x@y") + b"contents",
    ]
    fake.client.close()


REPLIES = listed((KEY, b"joe"), (RSA, b"\xff\x1b[2J\n")), bytes((a.SIGN_RESPONSE,)) + string(b"s"), b"\x05"


@given(st.lists(st.integers(min_value=1, max_value=200), min_size=1))
def test_parses_replies_in_pieces_of_any_size(cuts: list[int]) -> None:
    fake = Fake()
    fake.keep(fake.client.identities())
    fake.keep(fake.client.sign(KEY, b"data", 0))
    fake.keep(fake.client.extension(b"x@y", b""))
    stream = b"".join(uint32(len(reply)) + reply for reply in REPLIES)
    for at in [*cuts, len(stream)]:
        fake.client.data_received(stream[:at])
        stream = stream[at:]
    identities, signature, extension = fake.results
    assert identities == (
        AgentIdentity(blob=KEY, comment="joe"),
        AgentIdentity(blob=RSA, comment="\\xff\\x1b[2J "),
    )
    assert (signature, extension) == (b"s", None)


NO: list[int] = [a.FAILURE, a.EXTENSION_FAILURE, a.OLD_FAILURE]


@pytest.mark.parametrize("number", NO)
def test_reports_refusal_for_each_failure_message(fake: Fake, number: int) -> None:
    fake.keep(fake.client.identities())
    fake.say(bytes((number,)))
    assert fake.error == "the agent refused to list its keys"
    fake.keep(fake.client.sign(KEY, b"data", 0))
    fake.say(bytes((number,)))
    assert fake.error == "the agent refused to sign"
    fake.keep(fake.client.extension(b"x@y", b""))
    fake.say(bytes((number,)))
    assert fake.results[-1] is None
    assert fake.lost == 0


def test_accepts_both_replies_to_an_extension(fake: Fake) -> None:
    for answer in (b"\x06contents", b"\x1d" + string(b"x@y") + b"contents"):
        fake.keep(fake.client.extension(b"x@y", b""))
        fake.say(answer)
        assert fake.results[-1] == b"contents"


Ask = Callable[[AgentClient], Deferred[Any]]
LIST: Ask = lambda client: client.identities()  # noqa: E731
SIGN: Ask = lambda client: client.sign(KEY, b"data", 0)  # noqa: E731
EXTEND: Ask = lambda client: client.extension(b"x@y", b"")  # noqa: E731


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (LIST, b"\x06"),
        (LIST, bytes((a.SIGN_RESPONSE,)) + string(b"s")),
        (LIST, bytes((a.IDENTITIES_ANSWER,))),
        (LIST, bytes((a.IDENTITIES_ANSWER,)) + uint32(2) + string(KEY) + string(b"")),
        (LIST, bytes((a.IDENTITIES_ANSWER,)) + uint32(2**32 - 1)),
        (LIST, listed((KEY, b"joe")) + b"x"),
        (SIGN, b"\x06"),
        (SIGN, bytes((a.SIGN_RESPONSE,))),
        (SIGN, bytes((a.SIGN_RESPONSE,)) + string(b"s") + b"x"),
        (SIGN, listed()),
        (EXTEND, listed()),
        (EXTEND, b"\x1d"),
        (EXTEND, b"\x1d" + string(b"another")),
        (EXTEND, b"\xff"),
    ],
)
def test_ends_connection_after_malformed_reply(fake: Fake, ask: Ask, message: bytes) -> None:
    fake.keep(ask(fake.client))
    fake.keep(fake.client.identities())
    fake.say(message)
    assert fake.lost == 1
    assert [type(result) for result in fake.results] == [AgentError, AgentError]
    fake.say(listed())
    assert len(fake.results) == 2


@pytest.mark.parametrize("header", [b"\0\0\0\0", uint32(a.MAX_MESSAGE + 1), b"\xff\xff\xff\xff"])
def test_rejects_message_of_invalid_length(fake: Fake, header: bytes) -> None:
    fake.keep(fake.client.identities())
    fake.client.data_received(header)
    assert fake.lost == 1
    assert "its length is" in fake.error


def test_rejects_reply_without_request(fake: Fake) -> None:
    fake.say(listed((KEY, b"joe")))
    assert fake.lost == 1
    fake.keep(fake.client.identities())
    assert "a reply without a request" in fake.error


def test_fails_all_requests_when_connection_ends(fake: Fake) -> None:
    for ask in (LIST, SIGN, EXTEND):
        fake.keep(ask(fake.client))
    fake.client.connection_lost()
    fake.client.connection_lost()
    assert len(fake.results) == 3
    assert fake.error == "the agent closed the connection"
    assert fake.lost == 0
    fake.keep(fake.client.identities())
    assert fake.error == "the agent closed the connection"


def test_closes_connection_once(fake: Fake) -> None:
    fake.keep(fake.client.identities())
    fake.client.close()
    fake.client.close()
    assert (fake.lost, fake.client.closed) == (1, True)
    assert fake.error == "the agent connection was closed"


def test_discards_reply_to_cancelled_request(fake: Fake) -> None:
    signing = fake.client.sign(KEY, b"data", 0)
    fake.keep(signing)
    signing.cancel()
    fake.keep(fake.client.identities())
    fake.say(bytes((a.SIGN_RESPONSE,)) + string(b"late"))
    fake.say(listed())
    assert fake.results[1] == ()
    assert fake.lost == 0


def test_rejects_request_that_is_too_long(fake: Fake) -> None:
    fake.keep(fake.client.sign(KEY, bytes(a.MAX_MESSAGE), 0))
    assert "too long" in fake.error
    assert not fake.requests


def test_handles_no_message_after_close_in_callback(fake: Fake) -> None:
    """A callback that closes the connection gets no later message of the same delivery."""
    fake.client.identities().addCallback(lambda _: fake.client.close())
    fake.keep(fake.client.identities())
    reply = listed()
    fake.client.data_received((uint32(len(reply)) + reply) * 2)
    assert fake.error == "the agent connection was closed"


# --- signatures


@pytest.mark.parametrize(
    ("algorithm", "flags", "made"),
    [
        (b"ssh-ed25519", 0, b"ssh-ed25519"),
        (b"rsa-sha2-256", 2, b"rsa-sha2-256"),
        (b"rsa-sha2-512", 4, b"rsa-sha2-512"),
        (b"rsa-sha2-512-cert-v01@openssh.com", 4, b"rsa-sha2-512"),
        (b"sk-ssh-ed25519-cert-v01@openssh.com", 0, b"sk-ssh-ed25519@openssh.com"),
    ],
)
def test_sets_flags_for_each_algorithm(fake: Fake, algorithm: bytes, flags: int, made: bytes) -> None:
    signer = AgentSigner(fake.client, AgentIdentity(blob=KEY, comment="joe"))
    fake.keep(signer.sign(b"data", algorithm))
    assert fake.requests.endswith(uint32(flags))
    signature = string(made) + string(b"s") + b"\x01\0\0\0\x05"
    fake.say(bytes((a.SIGN_RESPONSE,)) + string(signature))
    assert fake.results == [signature]


@pytest.mark.parametrize("made", [b"ssh-rsa", b"rsa-sha2-256", b"", b"\x1b[2J"])
def test_rejects_signature_with_another_algorithm(fake: Fake, made: bytes) -> None:
    signer = AgentSigner(fake.client, AgentIdentity(blob=RSA, comment="joe"))
    fake.keep(signer.sign(b"data", b"rsa-sha2-512"))
    fake.say(bytes((a.SIGN_RESPONSE,)) + string(string(made) + string(b"s")))
    assert "but rsa-sha2-512 was requested" in fake.error
    assert fake.error.isprintable()


def test_rejects_malformed_signature(fake: Fake) -> None:
    signer = AgentSigner(fake.client, AgentIdentity(blob=RSA, comment=""))
    assert signer.label == "agent key ssh-rsa"
    fake.keep(signer.sign(b"data", b"rsa-sha2-512"))
    fake.say(bytes((a.SIGN_RESPONSE,)) + string(b"\0\0"))
    assert "malformed signature" in fake.error


@pytest.mark.parametrize("blob", [b"", b"\0", b"\0\0\0\x05abc", b"\xff\xff\xff\xff"])
def test_accepts_malformed_blob_as_identity(blob: bytes) -> None:
    identity = AgentIdentity(blob=blob, comment="x")
    assert identity.algorithm == b""
    assert not identity.is_certificate


def test_makes_comments_safe_to_print(fake: Fake) -> None:
    fake.keep(fake.client.identities())
    fake.say(listed((KEY, b"a\r\nb\x1b]0;x\x07" + b"y" * 100_000)))
    ((identity,),) = cast(list[tuple[AgentIdentity]], fake.results)
    assert identity.comment.isprintable()
    assert len(identity.comment) <= a.MAX_COMMENT


@pytest.mark.parametrize("kind", [b"x\xfe\xff", b"\x1b[31m"])
def test_makes_key_types_safe_to_print(fake: Fake, kind: bytes) -> None:
    """The agent may name any key type; it appears in labels and errors."""
    signer = AgentSigner(fake.client, AgentIdentity(blob=string(kind), comment=""))
    assert signer.label.isprintable()
    fake.keep(signer.sign(b"data", kind))
    fake.say(bytes((a.SIGN_RESPONSE,)) + string(string(b"ssh-ed25519") + string(b"s")))
    assert fake.error.isprintable()
