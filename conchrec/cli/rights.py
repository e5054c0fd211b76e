"""Who has started a command, and with whose rights it runs where root has: as a rule those of the proxy's own
user."""

from __future__ import annotations

import argparse
import pwd
from collections.abc import Callable
from enum import Enum

from conchrec.config.loader import Config
from conchrec.ownership import INVOKER, act_as, foreign_owner
from conchrec.service.preload import all_may_import, load_all

#: Never used by a command; loading them takes long.
NOT_LOADED = ("conchrec.proxy", "conchrec.web", "conchrec.service", "conchrec.tap", "conchrec.cli.demo")


class Rights(Enum):
    """Of a command that root runs (``rights`` of its parser); for others there is no difference."""

    OWNER = "those of the owner of the state directory, for good"
    BOTH = "those of the owner; files named on the command line are opened with root's (as_invoker)"
    INVOKER = "root's: it opens nothing but what the command line, or the configuration file, names"


def account() -> str:
    """The account of this machine that has started the command."""
    try:
        return pwd.getpwuid(INVOKER).pw_name
    except KeyError:
        return f"user {INVOKER}"


def for_files(*names: str) -> Callable[[argparse.Namespace], Rights]:
    """BOTH where one of these arguments names a file, else OWNER."""

    def rights(args: argparse.Namespace) -> Rights:
        return Rights.BOTH if any(getattr(args, name, None) for name in names) else Rights.OWNER

    return rights


def take_on(config: Config, rights: Rights) -> None:
    """Before the command opens anything. Raises CannotActAsOwner."""
    if rights is Rights.INVOKER:
        return
    # Recordings may have been taken elsewhere, without the state.
    there = config.state_dir if config.state_dir.exists() else config.recordings.directory
    owner = foreign_owner(there)
    if owner is not None:
        if not all_may_import():
            load_all(*NOT_LOADED)
        act_as(owner, for_good=rights is Rights.OWNER)
