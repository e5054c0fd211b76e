"""The default configuration files of the tests: none of them is the one that is installed on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from conchrec import tap
from conchrec.config import loader

LOCAL, INSTALLED = loader.DEFAULT_FILES
NOT_INSTALLED = Path(f"/nowhere{INSTALLED}")
"""Stands for /etc/conchrec/config.yaml."""


@contextmanager
def without_installed_configuration() -> Iterator[None]:
    """Keep commands that run in this process from the configuration of a conchrec that is installed.

    As root they would take on the rights of its owner, for everything that this process does later.
    """
    files = (LOCAL, NOT_INSTALLED)
    with patch.object(loader, "DEFAULT_FILES", files), patch.object(tap, "DEFAULT_FILES", files):
        yield
