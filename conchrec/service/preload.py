"""Imports all modules that a process may need later, before it takes on the rights of another account.

Python, or the virtual environment, may be installed where only root can read it.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import stat
import sys
from pathlib import Path

import conchrec

#: Modules that the standard library and other packages import by name, or at their first use.
_LATE = (
    "_strptime", "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.punycode",
    "encodings.unicode_escape", "encodings.utf_16", "pyrage", "stringprep", "zoneinfo._tzpath", "zstandard",
)  # fmt: skip
_TO_ENTER = stat.S_IROTH | stat.S_IXOTH


def all_may_import() -> bool:
    """Whether every account can read the directories from which modules are imported."""
    sources = [path for name in sys.path if (path := Path(name).resolve()).exists()]
    directories = {above for path in sources for above in (path, *path.parents)}
    return all(path.stat().st_mode & _TO_ENTER == _TO_ENTER for path in directories)


def load_all(*excluded: str) -> None:
    """Import every module of ours except those in the excluded packages, and ``_LATE``."""
    names = (module.name for module in pkgutil.walk_packages(conchrec.__path__, "conchrec."))
    for name in (*(name for name in names if not name.startswith(excluded)), *_LATE):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
