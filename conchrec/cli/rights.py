"""With whose rights a command runs where root started it: as a rule those of the proxy's own account.

Root must not open files in directories of that account with root's rights: see ``ownership``.
"""

from __future__ import annotations

import argparse
import pwd
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conchrec.config.loader import Config

#: No command uses these, and importing them is slow.
NOT_LOADED = ("conchrec.proxy", "conchrec.web", "conchrec.service", "conchrec.tap", "conchrec.cli.demo")


class Rights(Enum):
    """The rights of a command that root started (``rights`` of its parser). Other accounts keep their own."""

    OWNER = "those of the owner of the state directory, permanently"
    BOTH = "those of the owner; files named on the command line are opened with root's rights (as_invoker)"
    INVOKER = "root's: the command opens only files that the command line or the configuration names"


def account() -> str:
    """The name of the account that started the command."""
    from conchrec.ownership import INVOKER_UID

    try:
        return pwd.getpwuid(INVOKER_UID).pw_name
    except KeyError:
        return f"user {INVOKER_UID}"


def rights_for_files(*names: str) -> Callable[[argparse.Namespace], Rights]:
    """A function that returns BOTH where one of these arguments names a file, else OWNER."""

    def rights(args: argparse.Namespace) -> Rights:
        return Rights.BOTH if any(getattr(args, name, None) for name in names) else Rights.OWNER

    return rights


def apply_rights(config: Config, rights: Rights) -> None:
    """Give up root's rights as ``rights`` says. Called before the command opens anything.

    Raises CannotActAsOwner.
    """
    from conchrec.ownership import act_as, foreign_owner
    from conchrec.service.preload import all_may_import, load_all

    if rights is Rights.INVOKER:
        return
    # Recordings may have been copied to another machine, without the state directory.
    directory = config.state_dir if config.state_dir.exists() else config.recordings.directory
    owner = foreign_owner(directory)
    if owner is not None:
        if not all_may_import():
            load_all(*NOT_LOADED)
        act_as(owner, for_good=rights is Rights.OWNER)
