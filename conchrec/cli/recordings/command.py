"""``conchrec recordings …``: find, look at, and keep what was recorded.

Exit codes: 0 done, 1 there is no such recording, or it cannot be read, or it fails verification, 64 usage,
78 the configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conchrec.cli.recordings import find, keep, verify, view

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("recordings", help="find, play, verify and keep recordings")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    find.register(commands)
    view.register(commands)
    verify.register(commands)
    keep.register(commands)
