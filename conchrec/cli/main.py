"""``conchrec …``: finds the configuration, and the command.

Exit codes: 0 done, 1 the answer is no, 64 usage, 78 configuration. Each command is a module with
``register(subparsers)``; its parser sets ``command``, a function of the configuration (None where the
parser also sets ``needs_config=False``), the arguments, and the two streams, that returns the code. Where
root runs it, ``rights`` (``cli.rights``) says with whose rights.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import conchrec
from conchrec.cli.rights import Rights, take_on
from conchrec.config import loader
from conchrec.errors import ConchrecError, ConfigError
from conchrec.service.process import keep_secrets
from conchrec.text import escape, one_line

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction["Parser"]
    """What a module of commands registers itself with."""

DONE, NO, USAGE, CONFIGURATION = 0, 1, 64, 78

_MODULES = {
    "demo": "demo",
    "init": "init",
    "config": "config",
    "ssh-config": "ssh_config",
    "ca": "ca",
    "can": "can",
    "lock": "lock",
    "unlock": "lock",
    "locks": "lock",
    "passwd": "passwd",
    "recordings": "recordings.command",
    "audit": "audit",
}
"""Commands, and their modules: only the one that is asked for is loaded, for some take long."""

Command = Callable[[loader.Config | None, argparse.Namespace, TextIO, TextIO], int]


class Parser(argparse.ArgumentParser):
    """Takes ``-c FILE`` at every level (each subparser is one of these), and exits 64 for a wrong use."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)
        self.add_argument(
            "-c", "--config", dest="config", metavar="FILE", type=Path, default=argparse.SUPPRESS,
            help="the configuration (else ./config.yaml, else /etc/conchrec/config.yaml)",
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def run() -> None:
    """The console script."""
    # Most commands are over before garbage would matter: looking for it was a sixth of a long list's time.
    gc.set_threshold(100_000)
    # Some have the authorities' keys in memory.
    keep_secrets()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = main(sys.argv[1:], sys.stdout, sys.stderr)
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read it has seen enough; the interpreter's own flush at exit must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    gc.freeze()
    sys.exit(status)


def main(argv: Sequence[str], out: TextIO, err: TextIO) -> int:
    """Run one command; its exit code."""
    parser = _parser(argv)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            args = parser.parse_args(argv)
    except SystemExit as leaving:
        return int(leaving.code or DONE)
    if args.version:
        print(f"conchrec {conchrec.__version__}", file=out)
        return DONE
    command: Command | None = getattr(args, "command", None)
    if command is None:
        args.parser.print_help(err)
        return USAGE
    try:
        needed: bool | Callable[[argparse.Namespace], bool] = args.needs_config
        found = _configuration(args) if needed is True or (callable(needed) and needed(args)) else None
        if found is not None:
            rights: Rights | Callable[[argparse.Namespace], Rights] = args.rights
            take_on(found, rights(args) if callable(rights) else rights)
        return command(found, args, out, err)
    except loader.ConfigErrors as errors:
        print(errors, file=err)
        return CONFIGURATION
    except ConfigError as error:
        print(f"conchrec: {error}", file=err)
        return CONFIGURATION
    except BrokenPipeError:
        raise
    except ConchrecError as error:
        print(f"conchrec: {one_line(error.public, None)}", file=err)
        return NO
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"conchrec: {escape(f'{where}{error.strerror or error}')}", file=err)
        return NO


def _parser(argv: Sequence[str]) -> Parser:
    parser = Parser(prog="conchrec", description="An SSH proxy that records sessions.")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.set_defaults(needs_config=True, rights=Rights.OWNER, parser=parser)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    wanted = argv[:1] if argv and argv[0] in _MODULES else _MODULES
    for module in dict.fromkeys(_MODULES[name] for name in wanted):
        importlib.import_module(f"conchrec.cli.{module}").register(subparsers)
    return parser


def _configuration(args: argparse.Namespace) -> loader.Config:
    path: Path | None = getattr(args, "config", None)
    if path is None:
        path = next((default for default in loader.DEFAULT_FILES if default.is_file()), None)
    if path is None:
        missing = " and no ".join(str(default) for default in loader.DEFAULT_FILES)
        problem = f"there is no {missing}; name one with -c, or make one with: conchrec init DIR"
        raise loader.ConfigErrors("conchrec", [ConfigError("", problem)])
    return loader.load(path)
