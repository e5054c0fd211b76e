"""``conchrec``: parses the command line, loads the configuration and runs the command.

Exit codes: 0 done, 1 the answer is no or the command failed, 64 usage, 78 configuration. Each command is a
module of ``cli.parsers`` with ``register(subparsers)``, which adds a parser, and a function that runs it, in
a module that is imported only then (``LateFunction``): most of the time of a command that does little is
that of its imports. The parser's defaults are:

- ``command``: a function of the configuration, the parsed arguments, standard output and standard error. It
  returns the exit code.
- ``needs_config``: False, or a function of the arguments that returns False, where the command gets None in
  place of a configuration.
- ``rights`` (``cli.rights``): with whose rights the command runs where root started it.
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
from conchrec.cli.rights import Rights, apply_rights

if TYPE_CHECKING:
    from conchrec.config.loader import Config

    Subparsers = argparse._SubParsersAction["Parser"]  # noqa: SLF001  # the type has no public name
    """The argument of ``register``: a module adds its parser with ``add_parser``."""

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
    "recordings": "recordings",
    "audit": "audit",
}
"""The module of each command in ``cli.parsers``. Only the requested one is imported."""

_DESCRIPTION = """\
conchrec is an SSH proxy that records sessions. These commands manage it;
the proxy itself is started with:
  twistd -n conchrec -c config.yaml
"""
_EPILOG = """\
Help for one command: conchrec COMMAND --help
Exit codes: 0 done; 1 the answer is no, or the command failed;
64 wrong arguments; 78 the configuration has an error.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser that accepts ``-c FILE`` and exits with 64 for wrong arguments.

    Each subparser is one of these too, so ``-c FILE`` may stand behind any command. Descriptions and
    epilogs keep their line breaks.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["allow_abbrev"] = False
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)
        self.add_argument(
            "-c", "--config", dest="config", metavar="FILE", type=Path, default=argparse.SUPPRESS,
            help="the configuration file (default: ./config.yaml if it exists, else "
            "/etc/conchrec/config.yaml)",
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message to standard error, and exit with 64."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def run() -> None:
    """Run the console script ``conchrec`` with the arguments of the process, and exit."""
    # Most commands end before garbage matters: collecting it took a sixth of the time of a long listing.
    gc.set_threshold(100_000)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = main(sys.argv[1:], sys.stdout, sys.stderr, prepare=_prepare)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the pipe has ended; the interpreter's own flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    gc.freeze()
    sys.exit(status)


def _prepare() -> None:
    # Some commands have the keys of the authorities in memory.
    from conchrec.service.process import keep_secrets

    keep_secrets()


def main(argv: Sequence[str], out: TextIO, err: TextIO, *, prepare: Callable[[], None] = lambda: None) -> int:
    """Run the command that the arguments name, and return its exit code.

    ``prepare`` is called before the command, but not for help and wrong arguments.
    """
    parser = make_parser(argv)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            args = parser.parse_args(argv)
    except SystemExit as request:
        return int(request.code or DONE)
    if args.version:
        print(f"conchrec {conchrec.__version__}", file=out)
        return DONE
    if not hasattr(args, "command"):
        args.parser.print_help(err)
        return USAGE
    prepare()
    return _run(args, out, err)


def _run(args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    from conchrec.errors import ConchrecError, ConfigError, ConfigErrors
    from conchrec.text import escape, one_line

    command: Callable[[Config | None, argparse.Namespace, TextIO, TextIO], int] = args.command
    try:
        needed: bool | Callable[[argparse.Namespace], bool] = args.needs_config
        config = _load_config(args) if needed is True or (callable(needed) and needed(args)) else None
        if config is not None:
            rights: Rights | Callable[[argparse.Namespace], Rights] = args.rights
            apply_rights(config, rights(args) if callable(rights) else rights)
        return command(config, args, out, err)
    except ConfigErrors as errors:
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


def make_parser(argv: Sequence[str]) -> Parser:
    """Return the parser for these arguments: only with the command that they name, or with all commands."""
    parser = Parser(prog="conchrec", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(needs_config=True, rights=Rights.OWNER, parser=parser)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    names = argv[:1] if argv and argv[0] in _MODULES else _MODULES
    for module in dict.fromkeys(_MODULES[name] for name in names):
        importlib.import_module(f"conchrec.cli.parsers.{module}").register(subparsers)
    return parser


def _load_config(args: argparse.Namespace) -> Config:
    """The configuration of ``-c``, or of the first default file that exists. Raises ConfigErrors."""
    from conchrec.config import loader
    from conchrec.errors import ConfigError, ConfigErrors

    path: Path | None = getattr(args, "config", None)
    if path is None:
        path = next((default for default in loader.DEFAULT_FILES if default.is_file()), None)
    if path is None:
        missing = " and ".join(map(str, loader.DEFAULT_FILES))
        problem = (
            f"no configuration file: {missing} do not exist; name one with -c FILE, or create one with:"
            " conchrec init DIR"
        )
        raise ConfigErrors("conchrec", [ConfigError("", problem)])
    return loader.load(path)
