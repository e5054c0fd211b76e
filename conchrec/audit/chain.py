"""The chain of the audit log: how its lines are linked, and what its signed lines (heads) say. Pure.

Each process that writes to the log has a chain of its own: lines of several chains stand in one file. Every
line ends with three members::

    "chain":"5f0c9a7b21de","seq":17,"prev":"0f1e2d3c4b5a6978"}

``seq`` counts the chain's lines from 0. The digest of a chain is, before its first line, SHA-256 of
``conchrec audit 1``, a newline and the chain's name; after each line SHA-256 of the digest before (32 bytes)
and the line with its newline. ``prev`` is the start of the digest before the line, in hexadecimal: it shows
where a change is. What proves that there is none is the whole digest (``head``), in lines that are signed::

    …,"event":"audit.head","reason":"interval","head":"<64>","chain":…,"seq":…,"prev":…,"signature":"…"}

docs/audit.md describes the same for other verifiers.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass

from conchrec.audit.events import AuditHead
from conchrec.recording.format.signatures import RecordingSigner

MEMBERS = ("chain", "seq", "prev", "signature")
"""Names of members that no event may have."""
_SHOWN = 16
_NAME = re.compile("[0-9a-f]{12}")
_HEAD = re.compile("([0-9a-f]{12}):([0-9]{1,15}):([0-9a-f]{64})(?:@([0-9TZ:.+-]{1,40}))?")


@dataclass(frozen=True, slots=True)
class ChainLink:
    """How far a chain has come: ``number`` is that of its next line, ``digest`` covers all lines before."""

    chain: str
    number: int
    digest: bytes

    @classmethod
    def start(cls, chain: str = "") -> ChainLink:
        """Before the first line; without a name a random one is chosen."""
        chain = chain or secrets.token_hex(6)
        return cls(chain, 0, hashlib.sha256(f"conchrec audit 1\n{chain}".encode()).digest())

    @property
    def prev(self) -> str:
        """What the next line says of the lines before it."""
        return self.digest.hex()[:_SHOWN]

    def follow(self, line: bytes) -> ChainLink:
        """After this line, which ends in a newline."""
        return ChainLink(self.chain, self.number + 1, hashlib.sha256(self.digest + line).digest())

    def add(self, body: bytes) -> tuple[ChainLink, bytes]:
        """Link an event (as ``audit_encoder.encode`` has it): the chain after it, and the line."""
        line = body + self._members() + b"}\n"
        return self.follow(line), line

    def sign(self, body: bytes, signer: RecordingSigner) -> tuple[ChainLink, bytes]:
        """The same for a head, which is signed."""
        line = signer.audit_head(body + self._members() + b"}")
        return self.follow(line), line

    def _members(self) -> bytes:
        return b',"chain":"%s","seq":%d,"prev":"%s"' % (
            self.chain.encode("ascii"),
            self.number,
            self.prev.encode("ascii"),
        )


@dataclass(frozen=True, slots=True)
class Head:
    """Names a chain up to and with one of its lines: ``CHAIN:SEQ:DIGEST``, and ``@TIME`` where known."""

    chain: str
    number: int
    digest: bytes
    time: str = ""

    @classmethod
    def parse(cls, text: str) -> Head:
        """ValueError where it is not one."""
        found = _HEAD.fullmatch(text)
        if found is None:
            raise ValueError(f"invalid head {text!r}: must be CHAIN:SEQ:DIGEST, as `audit verify` prints it")
        return cls(found[1], int(found[2]), bytes.fromhex(found[3]), found[4] or "")

    def __str__(self) -> str:
        time = f"@{self.time}" if self.time else ""
        return f"{self.chain}:{self.number}:{self.digest.hex()}{time}"


@dataclass(frozen=True, slots=True)
class AuditLine:
    """A line of the log: its place in its chain, and the event's own members."""

    chain: str
    number: int
    prev: str
    members: dict[str, object]

    @property
    def is_head(self) -> bool:
        return self.members.get("event") == AuditHead.event

    def text(self, name: str) -> str:
        """A member that is a string; empty without one."""
        value = self.members.get(name)
        return value if isinstance(value, str) else ""

    def size(self, name: str) -> int:
        """A member that is a number; -1 where there is none."""
        value = self.members.get(name)
        return value if type(value) is int else -1

    def texts(self, name: str) -> tuple[str, ...]:
        """The strings of a member that is a list."""
        value = self.members.get(name)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def parse(line: bytes) -> AuditLine | None:
    """Read one whole line; None where it is not a line of a chain."""
    try:
        members = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not line.endswith(b"\n") or not isinstance(members, dict):
        return None
    chain, number, prev = members.get("chain"), members.get("seq"), members.get("prev")
    if not isinstance(chain, str) or not isinstance(prev, str) or type(number) is not int:
        return None
    if _NAME.fullmatch(chain) is None or not 0 <= number < 10**15:
        return None
    return AuditLine(chain, number, prev, members)


def head_of(line: bytes) -> Head | None:
    """What a head line names; None where the line is not one. The signature is for ``Keys`` to check."""
    found = parse(line)
    if found is None or not found.is_head:
        return None
    try:
        before = bytes.fromhex(found.text("head"))
    except ValueError:
        return None
    after = ChainLink(found.chain, found.number, before).follow(line)
    return Head(found.chain, found.number, after.digest, found.text("time"))
