"""What is locked, in the state directory: ``conchrec lock`` writes it, the running proxy obeys it at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from conchrec.access.keystore import locked, write
from conchrec.access.locks import Lock, LockKind
from conchrec.access.patterns import HostPattern, check_login_pattern
from conchrec.errors import ConfigError

_FILE = "locks.json"
_FIELDS = frozenset({"kind", "name", "until", "reason", "by", "made"})
_MAY_BE = frozenset({"of"})
LONGEST = 256


def check_name(kind: LockKind, name: str) -> str:
    """The name as it is. ValueError says what is wrong with it."""
    if not name or len(name) > LONGEST or not name.isprintable() or name != name.strip():
        raise ValueError(f"{name!r} is no name of a {kind.value}")
    if kind is LockKind.TARGET:
        HostPattern.parse(name)
    elif kind is LockKind.LOGIN:
        check_login_pattern(name)
    return name


class Locks:
    """The file, read again when it changes. Where it is damaged, what was known before stays locked."""

    def __init__(self, directory: Path, now: Callable[[], datetime]) -> None:
        """Raises ConfigError where the file can't be read."""
        self._path = directory / _FILE
        self._now = now
        self._stamp: tuple[int, ...] | None = None
        self._current: tuple[Lock, ...] = ()
        self.refresh()

    @property
    def current(self) -> tuple[Lock, ...]:
        """As of the last ``refresh``; some may be over."""
        return self._current

    def refresh(self) -> bool:
        """Look whether somebody has changed it; whether that is so. Raises ConfigError."""
        stamp = self._status()
        if stamp == self._stamp:
            return False
        self._current = self._read()
        self._stamp = stamp
        return True

    def add(self, *locks: Lock) -> None:
        """In the place of earlier ones of the same. Raises ConfigError and OSError."""
        same = {(lock.kind, lock.name, lock.of) for lock in locks}
        self._change(lambda one: (one.kind, one.name, one.of) not in same, *locks)

    def remove(self, kind: LockKind, name: str) -> Lock | None:
        """The one that was there, if it still held; the addresses that were locked with it go, too. Raises
        ConfigError and OSError."""
        self.refresh()
        now = self._now()
        meant = (one for one in self._current if (one.kind, one.name) == (kind, name) and one.holds(now))
        found = next(meant, None)
        self._change(lambda one: one.kind is not kind or name not in (one.name, one.of))
        return found

    def _change(self, stays: Callable[[Lock], bool], *added: Lock) -> None:
        with locked(self._path.parent):
            now = self._now()
            kept = [lock for lock in self._read() if lock.holds(now) and stays(lock)]
            fields = [_to_json(lock) for lock in (*kept, *added)]
            write(self._path, json.dumps(fields, indent=1).encode() + b"\n", 0o600)
        self.refresh()

    def _status(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return ()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> tuple[Lock, ...]:
        try:
            fields = json.loads(self._path.read_bytes())
            if not isinstance(fields, list):
                raise ValueError("not a list")
            return tuple(map(_from_json, fields))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError("state_dir", f"{self._path} can not be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError("state_dir", f"{self._path} is damaged: {error}") from error


def _to_json(lock: Lock) -> dict[str, str]:
    fields = {
        "kind": lock.kind.value,
        "name": lock.name,
        "until": _text(lock.until),
        "reason": lock.reason,
        "by": lock.by,
        "made": _text(lock.made),
    }
    return fields | ({"of": lock.of} if lock.of else {})


def _from_json(fields: object) -> Lock:
    """Raises ValueError for what ``_to_json`` can not have made."""
    if not isinstance(fields, dict) or set(fields) - _MAY_BE != _FIELDS:
        raise ValueError("not the fields of a lock")
    if not all(isinstance(text, str) and text.isprintable() for text in fields.values()):
        raise ValueError("not a text")
    kind = LockKind(fields["kind"])
    return Lock(
        kind=kind,
        name=check_name(kind, fields["name"]),
        until=_moment(fields["until"]),
        reason=fields["reason"],
        by=fields["by"],
        made=_moment(fields["made"]),
        of=fields.get("of", ""),
    )


def _text(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(timezone.utc).isoformat()


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment
