"""Scenarios: what a user asks the proxy itself. The texts are in the golden messages."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fuzz.channels.client import BACK
from tests.golden.codes import Codes
from tests.golden.registry import scenario
from tests.golden.scene import Scene
from tests.proxy.user_agent import UserAgent


@scenario
def proxy_commands(codes: Codes) -> Scene:
    """Each command that needs no agent, and wrong ones, with their exit status."""
    scene = Scene(codes)
    scene.come()
    for line in (b"", b"help", b"hosts", b"status", b"recordings", b"requests"):
        scene.command(line)
    scene.note("wrong ones")
    for line in (b"nonsense", b"help me", b"play 'x", b"play nothing", b"login", b"approve", b"sign --for 1"):
        scene.command(line)
    for line in (b"x" * 5000, b"sign --ttl soon", b"request", b"requests now", b"deny nothing", b"play"):
        scene.command(line)
    for line in (
        b"text a b",
        b"play x --speed 0",
        b"recordings --since yesterday",
        b"request root@192.0.2.1 why",
    ):
        scene.command(line)
    return scene


@scenario
def approved(codes: Codes) -> Scene:
    """A request in advance, which the user may not decide; then what is approved, and what is denied."""
    scene = Scene(codes, options={"approval": ["all"]}, more_users=("ann",))
    scene.come()
    scene.command(b"request --no-wait root@127.0.0.1:2222 disk full")
    scene.command(b"requests")
    request = scene.request_id()
    scene.command(b"approve " + request)
    scene.come(user=b"ann")
    scene.command(b"requests")
    scene.command(b"approve " + request + b" go ahead")
    scene.command(b"approve " + request)
    scene.begin()
    scene.session()
    scene.ask(b"exec", b"\0\0\0\2id")
    scene.exit()
    scene.come(user=b"joe")
    scene.command(b"request --no-wait root@127.0.0.1:2222 again")
    request = scene.request_id()
    scene.come(user=b"ann")
    scene.command(b"deny " + request + b" not now")
    return scene


@scenario
def sign(codes: Codes) -> Scene:
    """``sign``: a certificate for a key; then an empty and an invalid one."""
    scene = Scene(codes)
    scene.come()
    key = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32).public_key()
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    for text in (line + b" comment\n", b"", b"nonsense\n", line + b"\n" + line + b"\n"):
        scene.command(b"sign", stdin=text)
    return scene


@scenario
def login_into_agent(codes: Codes) -> Scene:
    """``login``: a key with a certificate for the agent; then without an agent."""
    scene = Scene(codes)
    scene.come()
    agent = UserAgent()
    agent.attach(scene)
    scene.hides(BACK)
    scene.command(b"login --ttl 1h")
    scene.come()
    scene.command(b"login")
    return scene


@scenario
def own_recordings(codes: Codes) -> Scene:
    """The user looks at a recording of a session of theirs."""
    scene = Scene(codes)
    scene.begin()
    scene.session()
    scene.ask(b"exec", b"\0\0\0\2id")
    scene.out(b"uid=0(root)\n")
    scene.exit()
    (sid,) = scene.sids()
    scene.command(b"recordings")
    scene.command(b"text " + sid.encode())
    return scene
