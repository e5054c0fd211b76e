"""Which keys of an agent are offered to a target."""

from __future__ import annotations

import time

import pytest

from conchrec.access.certificate_grant import PROXY_ONLY
from conchrec.config.model import UpstreamAuth
from conchrec.model import Identity, named_target
from conchrec.proxy.upstream.candidate_keys import Offers, agent_signers
from conchrec.ssh.agent import AgentClient
from conchrec.ssh.agent_messages import AgentIdentity
from conchrec.ssh.wire import string
from tests.support.logins import authority, key, user_certificate

OURS, OTHER = authority(), authority(1)
PLAIN = key().public().blob()


def offered(*blobs: bytes, login: str = "root", identity: Identity | None = None) -> list[bytes]:
    """The blobs that a target gets to see, and whether ``held`` counts the same."""
    offers = Offers(identity or Identity(user="joe", method="publickey"))
    client = AgentClient(lambda data: None, lambda: None)
    identities = [AgentIdentity(blob=blob, comment="") for blob in blobs]
    signers = agent_signers(offers, client, identities, login=login, authorities=(OURS.blob,))
    seen = [signer.blob for signer in signers]
    assert offers.held == len(seen)
    return seen


def certificate(*principals: str, **options: bytes) -> bytes:
    return user_certificate(
        key(), principals=principals or ("joe",), by=OURS, critical_options=options, valid_before=_later()
    )


def _later() -> int:
    return int(time.time()) + 3600


def test_offers_our_certificate_that_is_valid_for_login() -> None:
    certified = certificate("joe", "root")
    assert offered(PLAIN, certified) == [certified, PLAIN]
    touched = certificate("root", **{"verify-required": b""})
    assert offered(touched) == [touched]


@pytest.mark.parametrize(
    "blob",
    [
        certificate("joe"),
        certificate("joe", "ubuntu"),
        certificate("root", **{PROXY_ONLY: b""}),
        certificate("root", **{"source-address": string(b"192.0.2.0/24")}),
        certificate("root", **{"source-address": string(b"192.0.2.0/24"), "verify-required": b""}),
    ],
)
def test_does_not_offer_our_certificate_that_is_not_valid(blob: bytes) -> None:
    """Not even if the user has logged in with it."""
    me = Identity(user="joe", method="publickey", key=PLAIN, certificate=blob)
    assert offered(PLAIN, blob, identity=me) == [PLAIN]


def test_offers_certificates_of_other_authorities() -> None:
    theirs = user_certificate(key(), principals=("joe",), by=OTHER)
    nonsense = string(b"ssh-ed25519-cert-v01@openssh.com") + b"nonsense"
    assert offered(PLAIN, theirs, nonsense) == [theirs, nonsense, PLAIN]


def test_offers_key_of_two_agents_once() -> None:
    offers = Offers(Identity(user="joe", method="publickey"))
    client = AgentClient(lambda data: None, lambda: None)
    held = [AgentIdentity(blob=PLAIN, comment="")]
    counts = [len(list(agent_signers(offers, client, held, login="root", authorities=()))) for _ in range(2)]
    assert counts == [1, 0]


def _advice(**values: object) -> str:
    offers = Offers(Identity(user="joe", method="publickey"))
    for name, value in values.items():
        setattr(offers, name, value)
    target = named_target("web1", "22")
    assert target is not None
    return offers.advice(target, "root", (UpstreamAuth.AGENT, UpstreamAuth.CERTIFICATE))


def test_advises_to_confirm_when_announced_agent_is_silent() -> None:
    assert _advice().startswith("no agent: connect with ssh -A")
    assert _advice(has_silent_agent=True).startswith("your SSH agent does not answer. ")
    assert _advice(has_silent_agent=True, agents=1).startswith("your agent holds no usable key")


@pytest.mark.parametrize("count", [0, 4])
def test_advises_fewer_keys_when_target_allows_fewer_tries(count: int) -> None:
    target = named_target("web1", "22")
    assert target is not None
    advice = Offers(Identity(user="joe", method="publickey"), count=count).fewer_tries(target)
    assert "MaxAuthTries" in advice and "let web1 trust the user CA" in advice
    assert ("fewer keys (ssh-add -l)" in advice) == bool(count)
