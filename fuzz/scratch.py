"""Files for what reads nothing but files: the same ones, written again for each input."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path


def scratch(name: str) -> Path:
    """Return a path in a directory that is removed at exit."""
    return Path(_directory().name) / name


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    """One for the process, removed at its end."""
    return tempfile.TemporaryDirectory(prefix="conchrec-fuzz-")
