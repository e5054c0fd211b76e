"""Which keys of an agent are offered to a target, in which order, and what to say when none would do.

sshd ends a login after ``MaxAuthTries`` (6) refusals, offers without a signature among them, so an agent
with many keys must not use them up: four at most, and our own certificate still has its turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from conchrec.config.model import UpstreamAuth
from conchrec.errors import RemoteViolation
from conchrec.model import Identity, Target
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh.agent import AgentClient, AgentSigner
from conchrec.ssh.agent_messages import AgentIdentity
from conchrec.ssh.certificate import decode

#: Offers of agents' keys in one login.
MAX_OFFERS = 4


@dataclass(slots=True)
class Offers:
    """What has been tried in one login at a target."""

    identity: Identity
    count: int = 0
    held: int = 0
    seen: set[bytes] = field(default_factory=set)
    agents: int = 0
    failures: list[str] = field(default_factory=list)
    #: What became of our own certificate; empty where it is not to be used.
    own: str = ""

    @property
    def spent(self) -> bool:
        return self.count >= MAX_OFFERS

    def agent_failed(self, path: str, why: str) -> None:
        self.failures.append(f"{path} agent: {why}")

    def advice(self, target: Target, login: str, ways: tuple[UpstreamAuth, ...]) -> Reason:
        """One line: what was missing, and what to do."""
        if UpstreamAuth.PROMPT in ways and not self.count and not self.own:
            text = (
                f"{target} does not ask {login} for a password. Enable PasswordAuthentication or "
                "KbdInteractiveAuthentication in its sshd_config, or let the proxy log in with keys "
                "(upstream_auth)"
            )
            return Reason(ReasonCode.NO_PROMPT, text)
        trust = f"let {target.host} trust the user CA (conchrec ca export --type user)"
        if self.own == "offered":
            trust += f"; it rejected a certificate of this CA for {login}"
        elif self.own:
            trust += f"; no certificate of this CA was offered: {self.own}"
        if UpstreamAuth.AGENT not in ways:
            text = f"{target} rejected the login as {login}. To allow it, {trust}"
            return Reason(ReasonCode.USER_CA_NOT_TRUSTED, text)
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


def agent_signers(
    offers: Offers,
    client: AgentClient,
    identities: Iterable[AgentIdentity],
    *,
    login: str,
    authorities: Collection[bytes],
) -> Iterator[AgentSigner]:
    """The agent's keys in the order in which they are offered; none twice.

    What the user logged in with comes first, the certificate before its key; then other certificates,
    then other keys, each in the agent's own order. A certificate by one of our ``authorities`` (user CAs)
    that is not good for ``login`` at a target is not offered: it is for the proxy.
    """
    offers.agents += 1
    fresh = [
        one for one in identities if one.blob not in offers.seen and not _is_for_us(one, login, authorities)
    ]
    offers.seen.update(one.blob for one in fresh)
    offers.held += len(fresh)
    fresh.sort(key=lambda one: (not _is_own(one, offers.identity), not one.is_certificate))
    for identity in fresh:
        yield AgentSigner(client, identity)


def _is_for_us(one: AgentIdentity, login: str, authorities: Collection[bytes]) -> bool:
    """The login is no principal; or it is for the proxy alone, or for other addresses than the proxy's."""
    if not one.is_certificate:
        return False
    try:
        certificate = decode(one.blob)
    except RemoteViolation:
        return False
    if certificate.authority not in authorities:
        return False
    return login not in certificate.principals or bool(
        certificate.critical_options.keys() - {"verify-required"}
    )


def _is_own(one: AgentIdentity, identity: Identity) -> bool:
    if one.blob in (identity.key, identity.certificate):
        return True
    if not one.is_certificate or not identity.key:
        return False
    try:
        return decode(one.blob).public_key == identity.key
    except RemoteViolation:
        return False
