"""The file of locks in the state directory. ``conchrec lock`` writes it; the running proxy
applies it immediately."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from conchrec.access.locks import Lock, LockKind
from conchrec.access.login_names import check_pattern, folded
from conchrec.access.patterns import HostPattern
from conchrec.state.state_file import StateFile

_FILE = "locks.json"
_FIELDS = frozenset({"kind", "name", "until", "reason", "by", "made"})
_MAY_BE = frozenset({"of"})
LONGEST = 256


def check_name(kind: LockKind, name: str) -> str:
    """Return the name of a lock. Raises ValueError, whose text is for the administrator."""
    if not name or len(name) > LONGEST or not name.isprintable() or name != name.strip():
        raise ValueError(
            f"invalid {kind.value} {name!r}: must be 1 to {LONGEST} printable characters, without spaces at"
            " the ends"
        )
    if kind is LockKind.TARGET:
        HostPattern.parse(name)
    elif kind is LockKind.LOGIN:
        check_pattern(name)
    return name


class Locks(StateFile[tuple[Lock, ...]]):
    """The file with the locks. Some of the ``current`` ones may have expired."""

    def __init__(self, directory: Path, now: Callable[[], datetime]) -> None:
        """Read the file in the state directory. Raises ConfigError where that fails."""
        super().__init__(directory / _FILE, empty=(), from_json=_all_from_json, to_json=_all_to_json)
        self._now = now

    def add(self, *locks: Lock) -> None:
        """Add locks, in place of earlier ones with the same names. Raises ConfigError and OSError."""
        same = {(lock.kind, folded(lock.name), lock.of) for lock in locks}
        self._replace(lambda lock: (lock.kind, folded(lock.name), lock.of) not in same, *locks)

    def remove(self, kind: LockKind, name: str) -> Lock | None:
        """Remove a lock, and the addresses that were locked with it. Raises ConfigError and OSError.

        Returns the lock, or None where there was none, or only an expired one.
        """
        self.refresh()
        now = self._now()
        name = folded(name)
        matches = (lock for lock in self.current if lock.kind is kind and folded(lock.name) == name)
        removed = next((lock for lock in matches if lock.holds(now)), None)
        self._replace(lambda lock: lock.kind is not kind or name not in (folded(lock.name), folded(lock.of)))
        return removed

    def _replace(self, stays: Callable[[Lock], bool], *added: Lock) -> None:
        """Remove expired locks and those that do not stay, and add some."""
        now = self._now()
        self._update(lambda locks: (*(lock for lock in locks if lock.holds(now) and stays(lock)), *added))


def _all_to_json(locks: tuple[Lock, ...]) -> list[dict[str, str]]:
    return [_to_json(lock) for lock in locks]


def _all_from_json(fields: object) -> tuple[Lock, ...]:
    if not isinstance(fields, list):
        raise ValueError("not a list")
    return tuple(map(_from_json, fields))


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
    """The lock of a JSON object of ``_to_json``. Raises ValueError for anything else."""
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
        raise ValueError("a time without a zone")
    return moment
