"""Files of the state directory that commands write and that the running proxy follows at once."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from conchrec.errors import ConfigError
from conchrec.file_lock import exclusive_file
from conchrec.files import FileStamp, write_atomic
from conchrec.ownership import create

T = TypeVar("T")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of the state directory. Raises OSError, and ConfigError where there is no such
    directory."""
    path = directory / ".lock"
    if not directory.is_dir():
        problem = f"{directory} does not exist: start conchrec once with this configuration, which makes it"
        raise ConfigError("state_dir", problem)
    try:
        descriptor = create(path, os.O_RDWR)
    except FileExistsError:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    with exclusive_file(descriptor):
        yield


class StateFile(Generic[T]):
    """One value as JSON, read again when the file changes. Where the file is damaged or missing, the last
    value stays in effect."""

    def __init__(
        self, path: Path, *, empty: T, from_json: Callable[[object], T], to_json: Callable[[T], object]
    ) -> None:
        """``empty`` is the value without a file. ``from_json`` raises ValueError for what ``to_json`` cannot
        have made. Raises ConfigError where the file cannot be read."""
        self._path = path
        self._empty = empty
        self._from_json = from_json
        self._to_json = to_json
        self._stamp = FileStamp.at(path)
        self._current = self._read()

    @property
    def current(self) -> T:
        """The value at the last ``refresh``."""
        return self._current

    def refresh(self) -> bool:
        """Read the file where somebody has changed it. Returns whether that was so. Raises ConfigError."""
        stamp = FileStamp.at(self._path)
        if stamp == self._stamp:
            return False
        if self._stamp is not None and stamp is None:
            # conchrec never removes it: somebody did, or the whole directory is missing.
            raise ConfigError("state_dir", f"{self._path} was removed")
        self._current = self._read()
        self._stamp = stamp
        return True

    def _update(self, change: Callable[[T], T]) -> T:
        """Change the value, under the lock. Returns the new value. Raises ConfigError and OSError."""
        with locked(self._path.parent):
            before = self._read()
            after = change(before)
            if after != before:
                write_atomic(self._path, json.dumps(self._to_json(after), indent=1).encode() + b"\n", 0o600)
        self.refresh()
        return after

    def _read(self) -> T:
        try:
            return self._from_json(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return self._empty
        except OSError as error:
            raise ConfigError("state_dir", f"cannot read {self._path}: {error.strerror}") from error
        except ValueError as error:
            reason = "it is not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
            raise ConfigError(
                "state_dir",
                f"{self._path} is damaged: {reason}. Restore it from a backup. A running conchrec continues"
                " with what it read before",
            ) from error
