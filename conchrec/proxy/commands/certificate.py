"""A user certificate of the user's own: put into their agent, or for a key that they have.

The private key of ``into_agent`` is in memory until the agent has it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection

from cryptography.hazmat.primitives.asymmetric import ed25519

from conchrec.access.authorized_keys import parse_authorized_keys
from conchrec.access.certificate_contents import Grant, grant
from conchrec.access.certificate_permits import SELF_SERVICE
from conchrec.access.credentials import fingerprint
from conchrec.audit import events
from conchrec.ca.authority import CaKind, public_line
from conchrec.errors import RemoteViolation
from conchrec.proxy.agents import ANSWER_SECONDS
from conchrec.proxy.commands.request import CommandRefused, CommandRequest
from conchrec.reasons import ReasonCode
from conchrec.ssh.agent import AgentError, AgentKeyManager
from conchrec.ssh.agent_messages import AgentIdentity
from conchrec.ssh.certificate import Certificate, decode
from conchrec.ssh.wire import string
from conchrec.yaml_cursor import ConfigErrors

#: A key, and a long comment.
MAX_STDIN = 64 * 1024
#: For a client that sends nothing, and no end of it.
STDIN_SECONDS = 120.0

NO_AGENT = (
    "your SSH agent is not forwarded: connect with ssh -A (with ControlMaster, the first connection needs "
    "it), or use `sign` to get a certificate for a key file"
)

BY_CERTIFICATE = (
    "you logged in with a certificate, which cannot be used to get another one. Log in with a key "
    "(ssh -o IdentitiesOnly=yes -i KEY …) or with a password (ssh -o PubkeyAuthentication=no …)"
)

#: Of lines of public keys, and of private ones, about which something better is said.
_BEGINNINGS = ("ssh-", "ecdsa-", "sk-", "-----")


async def into_agent(asking: CommandRequest) -> tuple[Certificate, Grant]:
    """A fresh key and a certificate for it, in the user's agent, in the place of an earlier one of ours.

    The agent forgets them when the certificate ends. Raises ConchrecError; then it holds nothing new.
    """
    agent = asking.agent
    if not agent.announced:
        raise CommandRefused(NO_AGENT)
    granted = _granted(asking)
    within = asking.services.dialer.within
    keeper = await within(agent.open_keeper(), ANSWER_SECONDS, _silent)
    try:
        before = await within(keeper.identities(), ANSWER_SECONDS, _silent)
        key = ed25519.Ed25519PrivateKey.generate()
        public = string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw())
        certificate = await _certified(asking, public, granted, "login")
        await _add(asking, keeper, key, certificate)
        authorities = asking.services.authority.trusted(CaKind.USER)
        for one in before:
            if _is_ours(one, asking.identity.user, authorities):
                await within(keeper.remove(one.blob), ANSWER_SECONDS, _silent)
    finally:
        keeper.close()
    return certificate, granted


async def _add(
    asking: CommandRequest, keeper: AgentKeyManager, key: ed25519.Ed25519PrivateKey, certificate: Certificate
) -> None:
    within = asking.services.dialer.within
    assert certificate.expires is not None, "it has an end"
    added = keeper.add(
        key,
        certificate.blob,
        comment=comment(asking.identity.user),
        lifetime=certificate.expires - asking.services.now(),
    )
    took = await within(added, ANSWER_SECONDS, _silent)
    if took and certificate.blob in await _blobs(asking, keeper):
        return
    for blob in (certificate.blob, certificate.public_key):
        if blob in await _blobs(asking, keeper):
            await within(keeper.remove(blob), ANSWER_SECONDS, _silent)
    text = (
        "your agent did not accept the certificate. GNOME Keyring and gpg-agent cannot hold certificates: "
        "use OpenSSH's ssh-agent, and unlock it (ssh-add -X) if it is locked; or use `sign` to get a "
        "certificate for a key file"
    )
    if certificate.public_key in await _blobs(asking, keeper):
        key_name = fingerprint(certificate.public_key)
        text += f". It kept the key {key_name}, which has no use: remove it (gpg-agent: ~/.gnupg/sshcontrol)"
    raise CommandRefused(text)


async def _blobs(asking: CommandRequest, keeper: AgentKeyManager) -> frozenset[bytes]:
    """Of all that the agent holds."""
    held = await asking.services.dialer.within(keeper.identities(), ANSWER_SECONDS, _silent)
    return frozenset(one.blob for one in held)


async def for_key(asking: CommandRequest) -> str:
    """The certificate for the public key on stdin, as a line. Raises ConchrecError."""
    within = asking.services.dialer.within
    sent = await within(
        asking.stdin.read(MAX_STDIN),
        STDIN_SECONDS,
        lambda: CommandRefused("no public key on standard input: use sign < key.pub"),
    )
    key = _one_key(sent)
    if key in asking.services.authority.revoked().keys:
        raise CommandRefused(f"cannot sign the key {fingerprint(key)}: it is revoked. Use another key")
    granted = _granted(asking)
    certificate = await _certified(asking, key, granted, "sign")
    return f"{public_line(certificate.blob)} {comment(asking.identity.user)}\n"


async def held(asking: CommandRequest) -> tuple[Certificate, ...]:
    """The certificates of ours that the user's agent has, if it is here. Raises AgentError."""
    if not asking.agent.announced:
        return ()
    within = asking.services.dialer.within
    client = await within(asking.agent.open(), ANSWER_SECONDS, _silent)
    try:
        identities = await within(client.identities(), ANSWER_SECONDS, _silent)
    finally:
        client.close()
    authorities = asking.services.authority.trusted(CaKind.USER)
    return tuple(decode(one.blob) for one in identities if _is_ours(one, asking.identity.user, authorities))


def comment(user: str) -> str:
    """By which an agent's keys of ours are known."""
    return f"conchrec:{user}"


def _granted(asking: CommandRequest) -> Grant:
    """Raises ConchrecError. A certificate makes no other one, which would outlive its revocation."""
    if asking.identity.by_certificate:
        raise CommandRefused(BY_CERTIFICATE)
    return grant(
        asking.settings.policy,
        asking.identity,
        source=asking.source,
        now=asking.services.now(),
        recorded=asking.settings.config.session_recording.records,
        ttl=asking.ttl,
    )


async def _certified(asking: CommandRequest, public: bytes, granted: Grant, purpose: str) -> Certificate:
    """Signed, and audited: what can't be audited is not given away."""
    services, user = asking.services, asking.identity.user
    certificate = await services.signing(
        lambda: services.authority.sign_user(
            public,
            principals=granted.principals,
            key_id=user,
            ttl=granted.until - services.now(),
            extensions={**granted.extensions, SELF_SERVICE: b""},
            critical_options=granted.critical_options,
        )
    )
    services.audit.emit(
        events.CertCreate(
            user=user,
            addr=asking.address,
            cid=asking.cid,
            type="user",
            key_id=certificate.key_id,
            serial=certificate.serial,
            principals=certificate.principals,
            valid_until=certificate.valid_until_text,
            key=fingerprint(public),
            purpose=purpose,
        )
    )
    return certificate


def _is_ours(one: AgentIdentity, user: str, authorities: Collection[bytes]) -> bool:
    if not one.is_certificate or one.comment != comment(user):
        return False
    try:
        certificate = decode(one.blob)
    except RemoteViolation:
        return False
    return certificate.authority in authorities and certificate.key_id == user


def _one_key(sent: bytes) -> bytes:
    """The blob of ``type base64 [comment]``: one line and nothing else. Raises Refused."""
    try:
        text = sent.decode("utf-8").strip()
    except UnicodeDecodeError:
        text = "?"
    if text and not text.startswith(_BEGINNINGS):
        raise CommandRefused(
            "invalid public key on standard input: must be one line like ssh-ed25519 AAAA… comment"
        )
    try:
        keys = parse_authorized_keys(text, "stdin")
    except ConfigErrors as errors:
        raise CommandRefused(errors.errors[0].problem) from None
    if len(keys) != 1:
        raise CommandRefused(
            f"expected one public key on standard input, got {len(keys)}: use sign < key.pub"
        )
    return keys[0].blob


def _silent() -> AgentError:
    return AgentError(
        "your SSH agent does not answer. Does it ask for a confirmation on your screen?",
        code=ReasonCode.AGENT_TIMEOUT,
    )
