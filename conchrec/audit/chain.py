"""The chain of the audit log: how its lines are linked, and how its signed lines (heads) are read. No files.

Each process that writes to the log has a chain of its own, so lines of several chains stand in one file.
Every line ends with three members::

    "chain":"5f0c9a7b21de","seq":17,"prev":"0f1e2d3c4b5a6978"}

``seq`` counts the lines of the chain from 0. Before the first line, the digest of a chain is SHA-256 of
``conchrec audit 1``, a newline and the name of the chain; after each line it is SHA-256 of the digest before
(32 bytes) and the line with its newline. ``prev`` is the start of the digest before the line, in hexadecimal:
it shows where a change is. The whole digest (``head``) proves that there is no change. It stands in the lines
that are signed::

    …,"event":"audit.head","reason":"interval","head":"<64>","chain":…,"seq":…,"prev":…,"signature":"…"}

docs/audit.md describes the same for people who write another verifier.
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
"""The names of members that belong to the chain: no event may have them."""
_SHOWN = 16
_NAME = re.compile("[0-9a-f]{12}")
_HEAD = re.compile("([0-9a-f]{12}):([0-9]{1,15}):([0-9a-f]{64})(?:@([0-9TZ:.+-]{1,40}))?")


@dataclass(frozen=True, slots=True)
class ChainLink:
    """The state of a chain: ``number`` is that of the next line, and ``digest`` covers the lines before
    it."""

    chain: str
    number: int
    digest: bytes

    @classmethod
    def start(cls, chain: str = "") -> ChainLink:
        """Return a chain before its first line, with a random name where none is given."""
        chain = chain or secrets.token_hex(6)
        return cls(chain, 0, hashlib.sha256(f"conchrec audit 1\n{chain}".encode()).digest())

    @property
    def prev(self) -> str:
        """The member ``prev`` of the next line."""
        return self.digest.hex()[:_SHOWN]

    def follow(self, line: bytes) -> ChainLink:
        """Return the chain after this line, which ends in a newline."""
        return ChainLink(self.chain, self.number + 1, hashlib.sha256(self.digest + line).digest())

    def add(self, body: bytes) -> tuple[ChainLink, bytes]:
        """Link an event, in the form that ``encoder.encode`` returns. Returns the chain after it, and the
        line."""
        line = body + self._members() + b"}\n"
        return self.follow(line), line

    def sign(self, body: bytes, signer: RecordingSigner) -> tuple[ChainLink, bytes]:
        """Link a head and sign it. Returns the chain after it, and the line."""
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
    """Names a chain up to one of its lines, and with it: ``CHAIN:SEQ:DIGEST``, and ``@TIME`` where it is
    known."""

    chain: str
    number: int
    digest: bytes
    time: str = ""

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read the text of a head. Raises ValueError."""
        match = _HEAD.fullmatch(text)
        if match is None:
            raise ValueError(f"invalid head {text!r}: must be CHAIN:SEQ:DIGEST, as `audit verify` prints it")
        return cls(match[1], int(match[2]), bytes.fromhex(match[3]), match[4] or "")

    def __str__(self) -> str:
        time = f"@{self.time}" if self.time else ""
        return f"{self.chain}:{self.number}:{self.digest.hex()}{time}"


@dataclass(frozen=True, slots=True)
class AuditLine:
    """A line of the log: its position in its chain, and the members of the event."""

    chain: str
    number: int
    prev: str
    members: dict[str, object]

    @property
    def is_head(self) -> bool:
        """Whether the line is a head."""
        return self.members.get("event") == AuditHead.event

    def text(self, name: str) -> str:
        """Return a member that is a string; empty without one."""
        value = self.members.get(name)
        return value if isinstance(value, str) else ""

    def size(self, name: str) -> int:
        """Return a member that is a number; -1 without one."""
        value = self.members.get(name)
        return value if type(value) is int else -1

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the strings of a member that is a list."""
        value = self.members.get(name)
        return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def parse(line: bytes) -> AuditLine | None:
    """Read one complete line. Returns None where it is not a line of a chain."""
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
    """Return the head that a head line stands for, or None. The signature is checked by ``TrustedKeys``."""
    parsed = parse(line)
    if parsed is None or not parsed.is_head:
        return None
    try:
        before = bytes.fromhex(parsed.text("head"))
    except ValueError:
        return None
    after = ChainLink(parsed.chain, parsed.number, before).follow(line)
    return Head(parsed.chain, parsed.number, after.digest, parsed.text("time"))
