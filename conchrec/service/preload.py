"""Loads what a process may import later, before it takes on the rights of another user.

Python, or the virtual environment, may be installed where only root can read.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import stat
import sys
from pathlib import Path

import conchrec

#: What the standard library and others load by name, or when it is first used.
_LATE = (
    "_strptime", "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.punycode",
    "encodings.unicode_escape", "encodings.utf_16", "pyrage", "stringprep", "zoneinfo._tzpath", "zstandard",
)  # fmt: skip
_TO_ENTER = stat.S_IROTH | stat.S_IXOTH


def all_may_import() -> bool:
    """May every user read the directories that modules are imported from?"""
    there = [path for name in sys.path if (path := Path(name).resolve()).exists()]
    ways = {above for path in there for above in (path, *path.parents)}
    return all(path.stat().st_mode & _TO_ENTER == _TO_ENTER for path in ways)


def load_all(*but: str) -> None:
    """Every module of ours except in these packages, and what others load late."""
    names = (module.name for module in pkgutil.walk_packages(conchrec.__path__, "conchrec."))
    for name in (*(name for name in names if not name.startswith(but)), *_LATE):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
