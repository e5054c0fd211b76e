"""The SSH agent of a Scene's user, in memory; it answers on the channels that the proxy opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ed25519

from conchrec.ssh import agent_messages as a
from conchrec.ssh.wire import Reader, string
from fuzz.channels import wire as w
from fuzz.channels.ends import public_blob
from tests.golden.scene import Scene

CHANNEL = b"auth-agent@openssh.com"
REQUEST = w.Request(b"auth-agent-req@openssh.com", False, b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """A key of the agent: the blob and comment that it lists, and the private key."""

    blob: bytes
    comment: bytes
    key: ed25519.Ed25519PrivateKey
    lifetime: int | None = None
    """Seconds; None without the constraint."""


@dataclass(slots=True)
class UserAgent:
    """An agent that refuses the requests in ``refuses``; ``received`` are the numbers of all requests."""

    keys: list[HeldKey] = field(default_factory=list)
    refuses: frozenset[int] = frozenset()
    received: list[int] = field(default_factory=list)
    bindings: list[bytes] = field(default_factory=list)
    """The contents of each session-bind."""
    _frames: dict[int, a.AgentFrames] = field(default_factory=dict)
    _consumed: dict[int, int] = field(default_factory=dict)

    def hold(self, key: ed25519.Ed25519PrivateKey, comment: bytes = b"own key") -> bytes:
        """Add a plain key; returns its blob."""
        self.keys.append(HeldKey(blob=public_blob(key), comment=comment, key=key))
        return self.keys[-1].blob

    def attach(self, scene: Scene) -> None:
        """Forward it with a session on the outer connection, as for a jump host with ``ForwardAgent yes``."""
        jump = scene.jump

        def receive(number: int, payload: bytes) -> None:
            jump.received(number, payload)
            self._serve(scene)

        scene.outer_received = receive
        jump.open(1, b"session", 1 << 20, 1 << 15, b"", generous=True)
        scene.settle()
        jump.request(1, REQUEST)
        scene.settle()

    def _serve(self, scene: Scene) -> None:
        for index, channel in scene.jump.channels.items():
            if channel.kind != CHANNEL:
                continue
            frames = self._frames.setdefault(index, a.AgentFrames())
            consumed = self._consumed.get(index, 0)
            self._consumed[index] = len(channel.stdout)
            frames.feed(bytes(channel.stdout[consumed:]))
            while (message := frames.next_message()) is not None:
                scene.jump.data(index, a.frame(self.reply(message)))

    def reply(self, message: bytes) -> bytes:
        """Return the answer to a request."""
        number = message[0]
        self.received.append(number)
        if number in self.refuses:
            return a.encode_message(a.FAILURE)
        if number == a.REQUEST_IDENTITIES:
            return a.identities_answer((held.blob, held.comment) for held in self.keys)
        if number == a.SIGN_REQUEST:
            request = a.SignRequest.parse(message)
            (held,) = (held for held in self.keys if held.blob == request.blob)
            return a.sign_response(string(b"ssh-ed25519") + string(held.key.sign(request.data)))
        if number == a.ADD_ID_CONSTRAINED:
            self._add(Reader(message[1:]))
            return a.encode_message(a.SUCCESS)
        if number == a.REMOVE_IDENTITY:
            blob = Reader(message[1:]).string()
            self.keys = [held for held in self.keys if held.blob != blob]
            return a.encode_message(a.SUCCESS)
        if number == a.EXTENSION:
            extension = a.ExtensionRequest.parse(message)
            self.bindings.append(extension.contents)
            return a.encode_message(a.SUCCESS if extension.name == a.SESSION_BIND else a.EXTENSION_FAILURE)
        return a.encode_message(a.FAILURE)

    def _add(self, r: Reader) -> None:
        assert r.string() == b"ssh-ed25519-cert-v01@openssh.com"
        certificate, _, both, comment = r.string(), r.string(), r.string(), r.string()
        assert r.byte() == a.CONSTRAIN_LIFETIME
        key = ed25519.Ed25519PrivateKey.from_private_bytes(both[:32])
        self.keys.append(HeldKey(blob=certificate, comment=comment, key=key, lifetime=r.uint32()))

    def comments(self) -> Sequence[bytes]:
        """Return the comments of the keys, in their order."""
        return [held.comment for held in self.keys]
