"""An agent that answers anything at all: who asked is told, once, and only that the agent failed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from conchrec.ssh import agent_messages as a
from conchrec.ssh.agent import AgentClient, AgentError, AgentSigner
from conchrec.ssh.agent_messages import AgentIdentity
from conchrec.ssh.wire import string
from fuzz.corpus import certificates, signatures
from fuzz.limits import Broken
from fuzz.mutation import MAX_LARGE
from fuzz.target import Each, Target

#: What is bound does not matter to the answers.
BINDING = a.SessionBinding(host_key=b"", session_id=b"", signature=b"")


class Conversation:
    """A client that has asked for everything; the first byte says where the answers are cut."""

    def __init__(self, data: bytes) -> None:
        self._lost = 0
        self._requests = 0
        self._answered = 0
        client = self._client = AgentClient(lambda message: None, self._lose)
        self._ask(client.identities().addCallback(self._listed))
        self._ask(client.sign(b"blob", b"data", 0))
        self._ask(client.extension(a.SESSION_BIND, b""))
        self._ask(client.bind_session(BINDING, forwarding=True))
        nobody = client.identities()
        nobody.addErrback(lambda _: None)
        nobody.cancel()
        self._ask(client.forward(a.encode_message(a.REQUEST_IDENTITIES)))
        step = (data[0] if data else 0) or MAX_LARGE
        for at in range(1, len(data), step):
            client.data_received(data[at : at + step])
        client.connection_lost()
        if self._answered != self._requests or self._lost > 1 or not client.closed:
            raise Broken(f"{self._answered} of {self._requests} were answered, lost {self._lost} times")

    def _lose(self) -> None:
        self._lost += 1

    def _ask(self, deferred: Deferred[Any]) -> None:
        self._requests += 1
        deferred.addCallbacks(self._answer, self._failure)

    def _answer(self, _: object) -> None:
        self._answered += 1

    def _failure(self, failure: Failure) -> None:
        failure.trap(AgentError)
        self._answered += 1

    def _listed(self, identities: tuple[AgentIdentity, ...]) -> None:
        for identity in identities[:3]:
            if not identity.comment.isprintable() or len(identity.comment) > a.MAX_COMMENT:
                raise Broken(f"the comment {identity.comment!r}")
            signer = AgentSigner(self._client, identity)
            if not signer.label.isprintable():
                raise Broken(f"the label {signer.label!r}")
            algorithm = signer.algorithm(frozenset({b"rsa-sha2-512", b"ssh-ed25519"}))
            if algorithm is not None:
                self._ask(signer.sign(b"data", algorithm))


def _corpus() -> list[bytes]:
    """Streams of answers, each ``uint32 length, byte number, contents``."""
    listed = a.identities_answer((blob, "kürzel@home".encode()) for blob in certificates())
    short = a.identities_answer([(string(b"ssh-ed25519") + string(bytes(32)), b"key")])
    signed = a.sign_response(string(b"ssh-ed25519") + string(bytes(64)))
    success, failure = a.encode_message(a.SUCCESS), a.encode_message(a.FAILURE)
    extended = a.extension_response(a.SESSION_BIND, b"rest")
    unknown = a.encode_message(a.EXTENSION_FAILURE)
    streams = (
        (listed, signed, success, success, failure, short, signed, signed),
        (short, signed, extended, unknown, listed, listed, signed),
        (failure, failure, unknown, failure),
        (short, a.sign_response(signatures()[3])),
    )
    return [bytes((step,)) + b"".join(map(a.frame, answers)) for answers in streams for step in (0, 1, 7)]


def _converse(data: bytes) -> None:
    Conversation(data)


TARGET = Target(
    name="agent",
    about="the answers of a user's agent: conchrec/ssh/agent.py",
    corpus=_corpus,
    begin=lambda: Each(_converse),
)
