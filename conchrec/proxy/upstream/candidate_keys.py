"""Which keys of an agent are offered to a target, in which order, and the advice when no key is accepted.

sshd ends a login after ``MaxAuthTries`` (6) rejected offers, with or without a signature. So at most four
keys of agents are offered, which leaves room for our own certificate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from conchrec.config.model import UpstreamAuth
from conchrec.errors import RemoteViolation
from conchrec.model import Identity, Target
from conchrec.proxy.agents import issued_certificate
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.agent import AgentClient, AgentSigner
from conchrec.ssh.agent_messages import AgentIdentity
from conchrec.ssh.certificate import decode

#: The most keys of agents that are offered in one login.
MAX_OFFERS = 4


@dataclass(slots=True)
class Offers:
    """What has been offered in one login at a target.

    ``count`` keys of agents were offered, of the ``held`` different ones in ``agents`` agents.
    """

    identity: Identity
    count: int = 0
    held: int = 0
    seen: set[bytes] = field(default_factory=set)
    agents: int = 0
    failures: list[str] = field(default_factory=list)
    #: An agent that the client announced did not answer in time.
    has_silent_agent: bool = False
    #: ``offered``, or why our own certificate was not; empty where it is not to be used.
    own: str = ""

    @property
    def is_exhausted(self) -> bool:
        """Whether no further key of an agent may be offered."""
        return self.count >= MAX_OFFERS

    def agent_failed(self, path: str, reason: str) -> None:
        """Note that an agent could not be used."""
        self.failures.append(f"{path} agent: {reason}")

    def advice(self, target: Target, login: str, methods: tuple[UpstreamAuth, ...]) -> Reason:
        """Why no key was accepted, and what to do, in one line. ``methods`` are those that were allowed."""
        if UpstreamAuth.PROMPT in methods and not self.count and not self.own:
            text = (
                f"{target} does not ask {login} for a password. Enable PasswordAuthentication or "
                "KbdInteractiveAuthentication in its sshd_config, or let the proxy log in with keys "
                "(upstream_auth)"
            )
            return Reason(ReasonCode.NO_PROMPT, text)
        trust = f"let {target.host} trust the user CA (conchrec ca export --type user)"
        if self.own == "offered" and UpstreamAuth.AGENT not in methods:
            text = (
                f"{target} rejected the login as {login} with a certificate of the user CA. On that host, "
                "check that TrustedUserCAKeys has the key of this CA (conchrec ca export --type user), that "
                f"sshd allows {login}, and that the clock is right"
            )
            return Reason(ReasonCode.USER_CA_NOT_TRUSTED, text)
        if self.own == "offered":
            trust += f"; it rejected a certificate of this CA for {login}"
        elif self.own:
            trust += f"; no certificate of this CA was offered: {self.own}"
        if UpstreamAuth.AGENT not in methods:
            text = f"{target} rejected the login as {login}. To allow it, {trust}"
            return Reason(ReasonCode.USER_CA_NOT_TRUSTED, text)
        if not self.agents and self.has_silent_agent:
            text = (
                "your SSH agent does not answer. Does it ask for a confirmation on your screen? "
                f"Connect again and confirm there, or {trust}"
            )
            return Reason(ReasonCode.NO_AGENT, text)
        if not self.agents:
            text = 'no agent: connect with ssh -A, or set "ForwardAgent yes" for Host proxy; or ' + trust
            return Reason(ReasonCode.NO_AGENT, text)
        if not self.held:
            text = (
                "your agent holds no usable key: add one with ssh-add, or unlock the agent with ssh-add -X; "
                f"or {trust}"
            )
            return Reason(ReasonCode.AGENT_EMPTY, text)
        keys = "the key" if self.count == 1 else f"the {self.count} keys"
        more = ""
        if self.held > self.count:
            more = f" (of {self.held} in your agent; at most {MAX_OFFERS} are offered)"
        return Reason(
            ReasonCode.LOGIN_REJECTED,
            f"{target} rejected the login as {login} with {keys} that your agent offered{more}. "
            f"Add your public key to {login}'s authorized_keys there, or {trust}",
        )

    def fewer_tries(self, target: Target) -> str:
        """What to do where the target ended the login after too many tries."""
        agent = "forward an agent with fewer keys (ssh-add -l), or " if self.count else ""
        return (
            "That host allows fewer tries (MaxAuthTries in its sshd_config). To log in, "
            f"{agent}let {target.host} trust the user CA (conchrec ca export --type user)"
        )


def agent_signers(
    offers: Offers,
    client: AgentClient,
    identities: Iterable[AgentIdentity],
    *,
    login: str,
    authorities: Collection[bytes],
) -> Iterator[AgentSigner]:
    """The agent's keys in the order in which they are offered; none twice.

    First the credential that the user logged in with, the certificate before its key; then other
    certificates, then other keys, each in the agent's own order. A certificate by one of our ``authorities``
    (user CAs) that is not valid for ``login`` at a target is not offered.
    """
    offers.agents += 1
    new = [
        identity
        for identity in identities
        if identity.blob not in offers.seen and not _is_for_proxy_only(identity, login, authorities)
    ]
    offers.seen.update(identity.blob for identity in new)
    offers.held += len(new)
    new.sort(key=lambda identity: (not _is_own(identity, offers.identity), not identity.is_certificate))
    for identity in new:
        yield AgentSigner(client, identity)


def _is_for_proxy_only(identity: AgentIdentity, login: str, authorities: Collection[bytes]) -> bool:
    """Whether a certificate of ours is not valid at a target.

    The login is not among its principals, or it has a critical option: source-address has the user's address,
    and the target sees the proxy's.
    """
    certificate = issued_certificate(identity, authorities)
    return certificate is not None and (
        login not in certificate.principals
        or bool(certificate.critical_options.keys() - {"verify-required"})
    )


def _is_own(candidate: AgentIdentity, identity: Identity) -> bool:
    """Whether the user has logged in with this key, or with a certificate for it."""
    if candidate.blob in (identity.key, identity.certificate):
        return True
    if not candidate.is_certificate or not identity.key:
        return False
    try:
        return decode(candidate.blob).public_key == identity.key
    except RemoteViolation:
        return False
