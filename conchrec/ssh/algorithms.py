"""The algorithms that conchrec offers to clients and targets, strongest first.

No CBC, SHA-1 or MD5, no cipher ``none``, and no compression before the login. The exception is ``LEGACY``,
which a rule of the configuration selects for one old target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from conchrec.ssh.compression import DELAYED, NONE
from conchrec.ssh.signatures import SIGNATURES


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithms:
    """Algorithm names of a KEXINIT (RFC 4253 section 7.1), and settings that belong to them."""

    kex: tuple[bytes, ...]
    ciphers: tuple[bytes, ...]
    macs: tuple[bytes, ...]
    #: Allow SHA-1 signatures and DSA, for host keys and for RSA keys that log in.
    sha1: bool = False
    #: The client chooses: OpenSSH uses compression only with ``Compression yes``.
    compressions: tuple[bytes, ...] = (NONE, DELAYED)
    #: For a server: a client that supports one of these ciphers is offered no others. The client's order
    #: decides among those that are offered (RFC 4253 section 7.1), and OpenSSH prefers ChaCha20. To know
    #: what the client supports, the server waits for its KEXINIT (``KEXINIT_WAIT``).
    preferred_ciphers: tuple[bytes, ...] = ()


MODERN = Algorithms(
    kex=(
        b"mlkem768x25519-sha256",
        b"sntrup761x25519-sha512",
        b"sntrup761x25519-sha512@openssh.com",
        b"curve25519-sha256",
        b"curve25519-sha256@libssh.org",
    ),
    ciphers=(
        b"aes128-gcm@openssh.com",
        b"aes256-gcm@openssh.com",
        b"chacha20-poly1305@openssh.com",
        b"aes128-ctr",
        b"aes192-ctr",
        b"aes256-ctr",
    ),
    macs=(b"hmac-sha2-256-etm@openssh.com", b"hmac-sha2-512-etm@openssh.com"),
)
#: For old clients: also the NIST curves, finite-field Diffie-Hellman, and MACs over the plaintext.
COMPATIBLE = replace(
    MODERN,
    kex=(
        *MODERN.kex,
        b"ecdh-sha2-nistp256",
        b"ecdh-sha2-nistp384",
        b"ecdh-sha2-nistp521",
        b"diffie-hellman-group16-sha512",
        b"diffie-hellman-group14-sha256",
    ),
    macs=(*MODERN.macs, b"hmac-sha2-256", b"hmac-sha2-512"),
)
#: For targets: all algorithms that are secure.
UPSTREAM = COMPATIBLE
#: For one old target, if a rule of the configuration selects it.
LEGACY = replace(
    UPSTREAM,
    kex=(*UPSTREAM.kex, b"diffie-hellman-group14-sha1", b"diffie-hellman-group1-sha1"),
    ciphers=(*UPSTREAM.ciphers, b"aes128-cbc", b"aes192-cbc", b"aes256-cbc", b"3des-cbc"),
    macs=(*UPSTREAM.macs, b"hmac-sha1"),
    sha1=True,
)
#: ``Algorithms.preferred_ciphers`` on a processor with AES instructions: a third of the time of ChaCha20.
AES_GCM = (b"aes128-gcm@openssh.com", b"aes256-gcm@openssh.com")
#: Algorithms that only ``LEGACY`` has. Their use is logged as a warning.
WEAK = (
    frozenset(LEGACY.kex + LEGACY.ciphers + LEGACY.macs)
    - frozenset(UPSTREAM.kex + UPSTREAM.ciphers + UPSTREAM.macs)
) | {b"ssh-rsa", b"ssh-dss"}

#: ``server-sig-algs`` (RFC 8308 section 3.1): the signature algorithms for logins.
USER_SIGNATURES = SIGNATURES
