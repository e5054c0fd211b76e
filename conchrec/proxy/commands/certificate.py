"""Issues user certificates: ``login`` puts one into the user's agent, ``sign`` makes one for the user's key.

The private key that ``login`` makes is in memory until the agent has it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Collection

from cryptography.hazmat.primitives.asymmetric import ed25519

from conchrec.access.authorized_keys import parse_authorized_keys
from conchrec.access.certificate_grant import Grant, grant
from conchrec.access.certificate_permits import SELF_SERVICE
from conchrec.access.credentials import fingerprint
from conchrec.audit import events
from conchrec.ca.authority import CaKind
from conchrec.errors import ConfigErrors
from conchrec.proxy.agents import ANSWER_SECONDS, issued_certificate
from conchrec.proxy.commands.command_request import CommandRefused, CommandRequest
from conchrec.reasons import ReasonCode
from conchrec.ssh.agent import AgentError, AgentKeyManager
from conchrec.ssh.agent_messages import AgentIdentity
from conchrec.ssh.certificate import Certificate, decode, public_line
from conchrec.ssh.wire import string

#: The most that ``sign`` reads, in bytes: room for a key with a long comment.
MAX_STDIN = 64 * 1024
#: How long ``sign`` waits for the end of its standard input.
STDIN_SECONDS = 120.0

NO_AGENT = (
    "your SSH agent is not forwarded: connect with ssh -A (with ControlMaster, the first connection needs "
    "it), or use `sign` to get a certificate for a key file"
)

BY_CERTIFICATE = (
    "you logged in with a certificate, which cannot be used to get another one. Log in with a key "
    "(ssh -o IdentitiesOnly=yes -i KEY …) or with a password (ssh -o PubkeyAuthentication=no …)"
)

#: How public and private keys begin: for these the parser's own error is the better one.
_BEGINNINGS = ("ssh-", "ecdsa-", "sk-", "-----")


async def add_to_agent(request: CommandRequest) -> tuple[Certificate, Grant]:
    """Put a new key and a certificate for it into the user's agent, in place of an earlier one of ours.

    The agent removes them when the certificate expires. Raises ConchrecError; then the agent has nothing new.
    """
    agent = request.agent
    if not agent.announced:
        raise CommandRefused(NO_AGENT)
    granted = _grant(request)
    within = request.services.dialer.within
    keeper = await within(agent.open_key_manager(), ANSWER_SECONDS, _agent_timeout)
    try:
        earlier = await within(keeper.identities(), ANSWER_SECONDS, _agent_timeout)
        key = ed25519.Ed25519PrivateKey.generate()
        public = string(b"ssh-ed25519") + string(key.public_key().public_bytes_raw())
        certificate = await _sign(request, public, granted, "login")
        await _add(request, keeper, key, certificate)
        authorities = request.services.authority.trusted(CaKind.USER)
        for identity in earlier:
            if _is_ours(identity, request.identity.user, authorities):
                await within(keeper.remove(identity.blob), ANSWER_SECONDS, _agent_timeout)
    finally:
        keeper.close()
    return certificate, granted


async def _add(
    request: CommandRequest, keeper: AgentKeyManager, key: ed25519.Ed25519PrivateKey, certificate: Certificate
) -> None:
    """Add the key and the certificate, and check that the agent holds them. Raises CommandRefused."""
    within = request.services.dialer.within
    assert certificate.expires is not None, "login never makes one without an end"
    added = keeper.add(
        key,
        certificate.blob,
        comment=comment(request.identity.user),
        lifetime=certificate.expires - request.services.now(),
    )
    took = await within(added, ANSWER_SECONDS, _agent_timeout)
    if took and certificate.blob in await _blobs(request, keeper):
        return
    for blob in (certificate.blob, certificate.public_key):
        if blob in await _blobs(request, keeper):
            await within(keeper.remove(blob), ANSWER_SECONDS, _agent_timeout)
    text = (
        "your agent did not accept the certificate. GNOME Keyring and gpg-agent cannot hold certificates: "
        "use OpenSSH's ssh-agent, and unlock it (ssh-add -X) if it is locked; or use `sign` to get a "
        "certificate for a key file"
    )
    if certificate.public_key in await _blobs(request, keeper):
        key_name = fingerprint(certificate.public_key)
        text += f". It kept the key {key_name}, which has no use: remove it (gpg-agent: ~/.gnupg/sshcontrol)"
    raise CommandRefused(text)


async def _blobs(request: CommandRequest, keeper: AgentKeyManager) -> frozenset[bytes]:
    """The key blobs of all identities in the agent."""
    held = await request.services.dialer.within(keeper.identities(), ANSWER_SECONDS, _agent_timeout)
    return frozenset(identity.blob for identity in held)


async def sign_key(request: CommandRequest) -> str:
    """Sign the public key on standard input, and return the certificate as a line. Raises ConchrecError."""
    within = request.services.dialer.within
    sent = await within(
        request.stdin.read(MAX_STDIN),
        STDIN_SECONDS,
        lambda: CommandRefused("no public key on standard input: use sign < key.pub"),
    )
    key = _single_key(sent)
    if key in request.services.authority.revoked().keys:
        raise CommandRefused(f"cannot sign the key {fingerprint(key)}: it is revoked. Use another key")
    granted = _grant(request)
    certificate = await _sign(request, key, granted, "sign")
    return f"{public_line(certificate.blob)} {comment(request.identity.user)}\n"


async def certificates_in_agent(request: CommandRequest) -> tuple[Certificate, ...]:
    """Our certificates in the user's agent; none if it is not forwarded. Raises AgentError."""
    if not request.agent.announced:
        return ()
    within = request.services.dialer.within
    client = await within(request.agent.open(), ANSWER_SECONDS, _agent_timeout)
    try:
        identities = await within(client.identities(), ANSWER_SECONDS, _agent_timeout)
    finally:
        client.close()
    authorities = request.services.authority.trusted(CaKind.USER)
    user = request.identity.user
    return tuple(decode(identity.blob) for identity in identities if _is_ours(identity, user, authorities))


def comment(user: str) -> str:
    """The comment of our keys in an agent, by which we recognise them."""
    return f"conchrec:{user}"


def _grant(request: CommandRequest) -> Grant:
    """What the certificate will allow. Raises ConchrecError.

    A login by certificate gets none: the new certificate would stay valid after the first one is revoked.
    """
    if request.identity.by_certificate:
        raise CommandRefused(BY_CERTIFICATE)
    return grant(
        request.settings.policy,
        request.identity,
        source=request.source,
        now=request.services.now(),
        recorded=request.settings.config.session_recording.records,
        ttl=request.ttl,
    )


async def _sign(request: CommandRequest, public: bytes, granted: Grant, purpose: str) -> Certificate:
    """Sign a certificate and audit it. Raises WriteFailed where it cannot be audited: nobody gets it then."""
    services, user = request.services, request.identity.user
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
            addr=request.address,
            cid=request.cid,
            type="user",
            key_id=certificate.key_id,
            serial=str(certificate.serial),
            principals=certificate.principals,
            valid_until=certificate.valid_until_text,
            key=fingerprint(public),
            purpose=purpose,
        )
    )
    return certificate


def _is_ours(identity: AgentIdentity, user: str, authorities: Collection[bytes]) -> bool:
    """Whether an identity in an agent is a certificate that we have issued to this user."""
    if identity.comment != comment(user):
        return False
    certificate = issued_certificate(identity, authorities)
    return certificate is not None and certificate.key_id == user


def _single_key(sent: bytes) -> bytes:
    """The blob of the one line ``type base64 [comment]``. Raises CommandRefused."""
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
        problem = errors.errors[0].problem
        raise CommandRefused(f"invalid public key on standard input: {problem}") from None
    if len(keys) != 1:
        raise CommandRefused(
            f"expected one public key on standard input, got {len(keys)}: use sign < key.pub"
        )
    return keys[0].blob


def _agent_timeout() -> AgentError:
    return AgentError(
        "your SSH agent does not answer. Does it ask for a confirmation on your screen?",
        code=ReasonCode.AGENT_TIMEOUT,
    )
