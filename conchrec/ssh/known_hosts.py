"""known_hosts files: trusted and revoked host keys, and trusted CAs.

The format is in sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
"""

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

#: The maximum number of lines that are read from one file.
MAX_LINES = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHost:
    """One line. ``marker`` is empty, ``revoked`` or ``cert-authority``."""

    patterns: str
    marker: str
    key: bytes
    path: Path
    line: int

    def matches(self, name: str) -> bool:
        """Return whether the line is for ``name``: ``host`` or ``[host]:port``, in lower case.

        A negated pattern has priority.
        """
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
        """The file and the line number, as ``path:line``."""
        return f"{self.path}:{self.line}"


def _matches_pattern(pattern: str, name: str) -> bool:
    """Match ``*`` and ``?`` only: in known_hosts brackets are for ports, not for sets of characters."""
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _matches_hash(field: str, name: str) -> bool:
    """Match a hashed name: ``|1|salt|hash``, both base64; HMAC-SHA1 (HashKnownHosts in ssh_config(5))."""
    try:
        _, _, salt, expected = field.split("|")
        digest = hmac.digest(base64.b64decode(salt), name.encode(), "sha1")
        return hmac.compare_digest(digest, base64.b64decode(expected))
    except (ValueError, binascii.Error):
        return False


class KnownHosts:
    """The lines of several known_hosts files, read again when a file changes. A missing file has no lines."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._stamps: dict[Path, FileStamp | None] = {}
        self._lines: dict[Path, tuple[KnownHost, ...]] = {}

    @classmethod
    def load(cls, paths: Iterable[Path]) -> KnownHosts:
        """Create the object and read the files."""
        known = cls(paths)
        known.refresh()
        return known

    def refresh(self) -> None:
        """Read changed files again. A file that cannot be read has no lines, so its keys are not trusted."""
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
        """Return the lines for a target.

        As in ssh, a port other than 22 is part of the name; only CAs are also looked up without it.
        """
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
    """Yield the valid lines of a file. An invalid line is logged and skipped."""
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
