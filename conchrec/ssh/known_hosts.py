"""Files of host keys that are known (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT")."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from twisted.logger import Logger

from conchrec.errors import RemoteViolation
from conchrec.files import FileStamp
from conchrec.model import Target
from conchrec.ssh.certificate import KEY_TYPES, key_type_of
from conchrec.ssh.signatures import WITH_SHA1
from conchrec.text import decode_text

_log = Logger()

#: A known_hosts file of more lines than a fleet has hosts is a mistake.
MAX_LINES = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHost:
    """One line: who it is for, and what it says. ``marker`` is empty, ``revoked`` or ``cert-authority``."""

    patterns: str
    marker: str
    key: bytes
    path: Path
    line: int

    def matches(self, name: str) -> bool:
        """``name`` is ``host`` or ``[host]:port``, lower case; a negated pattern that matches wins."""
        if self.patterns.startswith("|1|"):
            return _matches_hash(self.patterns, name)
        known = False
        for pattern in self.patterns.lower().split(","):
            if pattern.startswith("!"):
                if _matches_pattern(pattern[1:], name):
                    return False
            elif _matches_pattern(pattern, name):
                known = True
        return known

    @property
    def location(self) -> str:
        return f"{self.path}:{self.line}"


def _matches_pattern(pattern: str, name: str) -> bool:
    """``*`` and ``?`` only: in known_hosts brackets are for ports, not for sets."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _matches_hash(field: str, name: str) -> bool:
    """``|1|salt|hash``, both base64; HMAC-SHA1 (HashKnownHosts in ssh_config(5))."""
    try:
        _, _, salt, expected = field.split("|")
        digest = hmac.digest(base64.b64decode(salt), name.encode(), "sha1")
        return hmac.compare_digest(digest, base64.b64decode(expected))
    except (ValueError, binascii.Error):
        return False


class KnownHosts:
    """Some known_hosts files, read again when one of them changes. A missing file knows nobody."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._stamps: dict[Path, FileStamp | None] = {}
        self._lines: dict[Path, tuple[KnownHost, ...]] = {}

    @classmethod
    def load(cls, paths: Iterable[Path]) -> KnownHosts:
        known = cls(paths)
        known.refresh()
        return known

    def refresh(self) -> None:
        """Read what has changed. A file that can't be read keeps nobody in trust."""
        for path in self._paths:
            try:
                stamp = FileStamp.at(path)
            except OSError:
                stamp = None
            if path in self._stamps and self._stamps[path] == stamp:
                continue
            self._stamps[path] = stamp
            self._lines[path] = tuple(_read(path)) if stamp is not None else ()

    def lines_for(self, target: Target) -> tuple[KnownHost, ...]:
        """The lines for a target. As ssh does, a port other than 22 is part of its name, and only
        authorities are also looked for without it."""
        self.refresh()
        name = target.host if target.port == 22 else f"[{target.host}]:{target.port}"
        return tuple(
            line
            for path in self._paths
            for line in self._lines.get(path, ())
            if line.matches(name)
            or (line.marker == "cert-authority" and target.port != 22 and line.matches(target.host))
        )


def _read(path: Path) -> Iterator[KnownHost]:
    """The good lines; a bad one is said in the log and costs nobody else."""
    try:
        text = decode_text(path.read_bytes())
    except OSError as error:
        _log.error("cannot read {path}: {why}", path=str(path), why=error.strerror)
        return
    for number, line in enumerate(text.splitlines()[:MAX_LINES], 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        marker = ""
        if fields[0].startswith("@"):
            marker = fields.pop(0)[1:]
        try:
            patterns, kind, blob = fields[0], fields[1].encode(), base64.b64decode(fields[2], validate=True)
            good = key_type_of(blob) == kind and kind in (*KEY_TYPES, *WITH_SHA1)
        except (IndexError, ValueError, RemoteViolation):
            good = False
        if not good or marker not in ("", "revoked", "cert-authority"):
            _log.warn("ignored an invalid known_hosts line: {path}:{number}", path=str(path), number=number)
            continue
        yield KnownHost(patterns=patterns, marker=marker, key=blob, path=path, line=number)
