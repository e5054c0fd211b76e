"""Files that people write: known_hosts and authorized_keys, and the names and addresses in them."""

from __future__ import annotations

import base64

from conchrec.access.authorized_keys import matches_source, parse_authorized_keys
from conchrec.errors import ConfigError, ConfigErrors
from conchrec.model import Target as Place
from conchrec.ssh.certificate import KEY_TYPES
from conchrec.ssh.host_key_check import HostTrust
from conchrec.ssh.known_hosts import KnownHosts
from conchrec.ssh.wire import string
from fuzz.limits import Broken
from fuzz.scratch import scratch
from fuzz.target import Each, Target

KEY = base64.b64encode(string(b"ssh-ed25519") + string(bytes(range(32)))).decode()
TARGETS_OF_LINES = (Place(host="web1", port=22), Place(host="10.0.0.1", port=2222))


def _lines(data: bytes) -> None:
    """The first byte says as which of the two the rest is read."""
    if data[:1] < b"\x80":
        _authorized_keys(data[1:].decode("utf-8", "replace"))
    else:
        _known_hosts(data[1:])


def _known_hosts(data: bytes) -> None:
    path = scratch("known_hosts")
    path.write_bytes(data)
    known = KnownHosts.load([path])
    trust = HostTrust(known, authorities=())
    for target in TARGETS_OF_LINES:
        for line in known.lines_for(target):
            if line.marker not in ("", "revoked", "cert-authority"):
                raise Broken(f"the marker {line.marker!r}")
        if not trust.algorithms_for(target):
            raise Broken("nothing to offer")


def _authorized_keys(text: str) -> None:
    try:
        keys = parse_authorized_keys(text, "keys")
    except (ConfigError, ConfigErrors) as error:
        str(error)
        return
    for key in keys:
        if string(key.blob[4 : 4 + int.from_bytes(key.blob[:4], "big")])[4:] not in KEY_TYPES:
            raise Broken("a key of no type")
        if not key.comment.isprintable():
            raise Broken(f"the comment {key.comment!r}")
        for source in ("10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "nobody"):
            matches_source(key.sources or (), source)


def _corpus() -> list[bytes]:
    plain = f"ssh-ed25519 {KEY} joe@home"
    keys = (
        plain,
        f"# keys\n\n{plain}\r\n{plain}",
        f'from="10.0.0.0/8,!10.0.0.7,fd00::/8,192.168.*.?",expiry-time="20300101" {plain}',
        f'expiry-time="203001011200Z",from="::ffff:10.0.0.1" {plain}',
        f'command="id",no-pty {plain}',
    )
    salt = base64.b64encode(bytes(20)).decode()
    hosts = (
        f"web1,10.0.0.1 ssh-ed25519 {KEY}\n",
        f"# hosts\n@cert-authority *.example.com,!bad.example.com ssh-ed25519 {KEY} comment\n",
        f"@revoked * ssh-ed25519 {KEY}\n[10.0.0.1]:2222 ssh-ed25519 {KEY}\n",
        f"|1|{salt}|{salt} ssh-ed25519 {KEY}\nweb? ssh-ed25519 {KEY}\n",
    )
    return [b"\0" + text.encode() for text in keys] + [b"\xff" + text.encode() for text in hosts]


TARGET = Target(
    name="lines",
    about="known_hosts and authorized_keys: conchrec/ssh/known_hosts.py, conchrec/access/authorized_keys.py",
    corpus=_corpus,
    begin=lambda: Each(_lines),
)
