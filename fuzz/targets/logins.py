"""Messages under good keys before the login has succeeded: to our server's authentication, and to our
client's, by a target that says anything at all."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.conch.ssh.service import SSHService
from twisted.internet.defer import Deferred, fail, succeed

from conchrec.errors import AccessDenied, ConchrecError
from conchrec.model import Identity
from conchrec.ssh import numbers as a
from conchrec.ssh import userauth as u
from conchrec.ssh.authenticator import Ask
from conchrec.ssh.signers import Signer
from conchrec.ssh.userauth_client import UserAuthClient
from conchrec.ssh.userauth_server import UserAuthServer
from conchrec.ssh.wire import Reader, names, string, uint32
from fuzz.corpus import certificates, signatures
from fuzz.limits import Broken
from fuzz.target import Session, Target
from fuzz.targets.linked import Linked, message, packed
from fuzz.targets.parsers import proposal

QUESTION = u.Challenge(
    name="n", instruction="i", prompts=(u.Prompt(text="code: "), u.Prompt(text="?", echo=True))
)
KEY = string(b"ssh-ed25519") + string(bytes(32))
USER = b"joe"


class Porter:
    """Takes every key, for what counts is the signature, which nobody can make; asks questions."""

    def methods(self, user: str) -> tuple[bytes, ...]:
        """Return the methods that are allowed."""
        return (u.PUBLICKEY, u.KEYBOARD_INTERACTIVE)

    def none(self, user: str) -> Deferred[Identity]:
        """Reject ``none``."""
        return fail(AccessDenied("Permission denied"))

    def accepts_key(self, user: str, algorithm: bytes, blob: bytes) -> bool:
        """Accept every key: no signature is valid."""
        return True

    def log_in_by_key(self, user: str, algorithm: bytes, blob: bytes) -> Deferred[Identity]:
        """Report a bug: no login can succeed."""
        raise Broken("somebody has logged in")

    def keyboard_interactive(self, user: str, submethods: str, ask: Ask) -> Deferred[Identity]:
        """Ask, and reject every answer."""

        def answered(answers: tuple[str, ...]) -> Deferred[Identity]:
            if submethods == "again":
                return ask(QUESTION).addCallback(answered)
            return fail(AccessDenied("Permission denied"))

        return ask(QUESTION).addCallback(answered)


class ToServer(Linked):
    """What a client may say before it has logged in."""

    def __init__(self) -> None:
        self._refused = 0
        super().__init__(to_server=True, service=self._service)

    def _service(self) -> SSHService:
        return UserAuthServer(
            Porter(),
            connection=self._logged_in,
            clock=self._pair.clock,
            banner="hello",
            host_key=lambda: self.server.host_key_blob,
            on_refused=self._hear,
        )

    def _logged_in(self, identity: Identity) -> SSHService:
        raise Broken("somebody has logged in")

    def _hear(self, user: str, method: str, reason: str) -> None:
        if not (user.isprintable() and method.isprintable() and reason.isprintable()):
            raise Broken(f"the audit hears {(user, method, reason)!r}")


class Pen:
    """A signer that has signed."""

    def __init__(self, blob: bytes, kind: bytes) -> None:
        self.blob = blob
        self.label = "pen"
        self._kind = kind

    def algorithm(self, accepted: frozenset[bytes] | None) -> bytes | None:
        """Return the one algorithm of this key."""
        return self._kind

    def sign(self, data: bytes, algorithm: bytes) -> Deferred[bytes]:
        """Return an invalid signature."""
        return succeed(string(algorithm) + string(bytes(64)))


class ToClient(Linked):
    """What a target may say while we log in there."""

    def __init__(self) -> None:
        self._ends = 0
        self._pens: list[Signer] = [Pen(KEY, b"ssh-ed25519"), Pen(certificates()[0], b"ssh-ed25519")]
        super().__init__(to_server=False, service=self._service)

    def _service(self) -> SSHService:
        client = UserAuthClient(
            USER,
            lambda methods: succeed(self._pens.pop() if self._pens else None),
            _Behind(),
            on_banner=lambda text: None,
            peer_extensions=lambda: self.client.peer_extensions,
            host_key=lambda: self.client.host_key_blob,
            prompter=lambda challenge: succeed(("x",) * len(challenge.prompts)),
            target="web1",
        )
        client.done.addCallbacks(lambda _: self._end(), lambda failure: self._fail(failure.value))
        return client

    def _end(self) -> None:
        self._ends += 1

    def _fail(self, error: BaseException | None) -> None:
        self._ends += 1
        if isinstance(error, ConchrecError) and not error.public.isprintable():
            raise Broken(f"it says {error.public!r}")

    def end(self) -> None:
        """End the session, and check what must hold at its end."""
        super().end()
        if self._ends != 1:
            raise Broken(f"the login ended {self._ends} times")


class _Behind(SSHService):
    """The service after the login."""

    name = b"ssh-connection"

    def serviceStarted(self) -> None:
        """It waits."""

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Whatever it is."""


def _request(method: bytes, rest: bytes = b"", user: bytes = USER) -> bytes:
    return message(u.REQUEST, string(user) + string(u.CONNECTION) + string(method) + rest)


def _small() -> Sequence[bytes]:
    """What either side may say at any time."""
    return (
        message(a.PING, string(b"x")),
        message(a.IGNORE, string(b"x")),
        message(a.EXT_INFO, uint32(1) + string(b"publickey-hostbound@openssh.com") + string(b"0")),
        message(a.KEXINIT, proposal((b"curve25519-sha256",))),
        message(a.KEX_FIRST, string(b"\x09" + bytes(31))),
        message(a.NEWKEYS),
        message(a.SERVICE_REQUEST, string(b"ssh-userauth")),
        message(a.DISCONNECT, uint32(11) + string(b"bye") + string(b"")),
    )


def _of_client() -> list[bytes]:
    r = Reader(signatures()[0])
    algorithm, blob, _, signature = r.string(), r.string(), r.string(), r.string()
    key = string(algorithm) + string(blob)
    certificate = string(b"ssh-ed25519-cert-v01@openssh.com") + string(certificates()[0])
    signed = b"\1" + key + string(signature)
    unsigned, nobody = b"\0" + certificate, b"\1" + certificate + string(b"")
    plain, again = (_request(u.KEYBOARD_INTERACTIVE, string(b"") + string(sub)) for sub in (b"", b"again"))
    answers = message(u.INFO_RESPONSE, uint32(2) + string(b"1") + string(b"2"))
    small = _small()
    return packed(
        (_request(u.NONE), _request(u.PUBLICKEY, b"\0" + key), _request(u.PUBLICKEY, signed)),
        (_request(u.HOSTBOUND, b"\0" + key + string(blob)), _request(u.HOSTBOUND, signed)),
        (_request(u.PUBLICKEY, unsigned), _request(u.PUBLICKEY, nobody)),
        (plain, answers),
        (again, answers, answers, _request(u.NONE)),
        (_request(u.PASSWORD, b"\0" + string(b"x")), _request(u.NONE, user=b"root")),
        (_request(u.NONE), message(90, string(b"session") + bytes(12)), message(80, string(b"x") + b"\1")),
        small[:3],
        small[3:6],
        small[6:],
    )


def _of_target() -> list[bytes]:
    failure = message(u.FAILURE, names((u.PUBLICKEY, u.KEYBOARD_INTERACTIVE, u.PASSWORD)) + b"\0")
    partial = message(u.FAILURE, names((u.PASSWORD,)) + b"\1")
    fine = message(u.PK_OK, string(b"ssh-ed25519") + string(KEY))
    second = message(u.PK_OK, string(b"ssh-ed25519") + string(certificates()[0]))
    question = message(u.INFO_REQUEST, u.info_request(QUESTION))
    password = message(u.FAILURE, names((u.PASSWORD,)) + b"\0")
    banner = message(u.BANNER, string(b"\x1b[31mhello\n") + string(b""))
    small = _small()
    return packed(
        (failure, second, failure, fine, message(u.SUCCESS)),
        (failure, second, partial, question, failure),
        (failure, failure, failure, question, question, message(u.SUCCESS)),
        (failure, failure, failure, failure, failure),
        (banner, password, message(u.PASSWD_CHANGEREQ, string(b"x") * 2)),
        (message(u.SUCCESS), message(90, string(b"session") + bytes(12))),
        small[:3],
        small[3:6],
        small[6:],
    )


def _begin_server() -> Session:
    return ToServer()


def _begin_client() -> Session:
    return ToClient()


SERVER = Target(
    name="login-server",
    about="a client that logs in: conchrec/ssh/userauth_server.py, and rekeying",
    corpus=_of_client,
    begin=_begin_server,
    packed=True,
    length=50,
)
CLIENT = Target(
    name="login-client",
    about="a target that lets nobody in easily: conchrec/ssh/userauth_client.py, and rekeying",
    corpus=_of_target,
    begin=_begin_client,
    packed=True,
    length=50,
)
