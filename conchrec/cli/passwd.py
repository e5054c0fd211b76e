"""``conchrec passwd joe``: the lines that give a user a password, and with ``--totp`` a second factor.

The configuration is not written to. Standard output has the lines and nothing else; what is for the person
at the terminal is on standard error.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import segno
import yaml

from conchrec.access.passwords import new_hash, new_secret, otpauth, parse_secret, step_of
from conchrec.config.loader import Config
from conchrec.yaml_cursor import nearest

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

DONE, NO = 0, 1
#: Shorter ones are taken, and commented on.
ADVISED_LENGTH = 8
TRIES = 3
#: Of light modules around a QR code (ISO/IEC 18004 section 6.3.8).
QUIET = 4
#: Where the terminal does not say how wide it is.
COLUMNS = 80
_BLACK_ON_WHITE, _PLAIN = "\x1b[0;30;107m", "\x1b[0m"


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("passwd", help="make the lines for a user with a password")
    parser.add_argument("user")
    parser.add_argument(
        "--totp", action="store_true", help="and a second factor: codes of an authenticator app"
    )
    parser.add_argument(
        "--totp-only", action="store_true", help="no password: codes alone, as second factor after a key"
    )
    parser.set_defaults(command=command)


def command(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    typed = sys.stdin.isatty()
    try:
        lines = {} if args.totp_only else {"password": new_hash(_password(args.user, err, typed))}
    except UnicodeError:  # from reading where the locale is strict, else from the hash
        print("conchrec: that is not UTF-8", file=err)
        return NO
    except (EOFError, ValueError) as error:
        print(f"conchrec: {str(error) or 'nothing was typed'}", file=err)
        return NO
    if args.totp or args.totp_only:
        lines["totp"] = new_secret()
        _show(otpauth(lines["totp"], args.user, config.cluster_name), err)
        if typed and not _confirmed(parse_secret(lines["totp"]), err):
            print("conchrec: no code was right: is the time the same here and there?", file=err)
            return NO
    if args.user not in config.users:
        known = nearest(args.user, tuple(config.users))
        print(f"note: there is no user {args.user!r} yet{known}; give it roles, too", file=err)
    if typed:
        where = f"to {args.user}" if args.user in config.users else "under users:"
        print(f"\nAdd this {where} in {config.file}, and reload the proxy (SIGHUP):\n", file=err)
    text = yaml.safe_dump({args.user: lines}, allow_unicode=True, width=1000)
    out.write("".join(f"  {line}\n" for line in text.splitlines()))
    return DONE


def _password(user: str, err: TextIO, typed: bool) -> str:
    """From the terminal, or the first line of stdin. Raises ValueError and EOFError."""
    password = _typed(user, err) if typed else sys.stdin.readline().rstrip("\r\n")
    if 0 < len(password) < ADVISED_LENGTH:
        print(f"note: that is short; {ADVISED_LENGTH} characters are the least that is advised", file=err)
    return password


def _typed(user: str, err: TextIO) -> str:
    """Asked for twice, without echo. Raises ValueError where it is not the same, and EOFError."""
    first = getpass.getpass(f"New password of {user}: ", err)
    if getpass.getpass("Again: ", err) != first:
        raise ValueError("these are not the same")
    return first


def _confirmed(secret: bytes, err: TextIO, now: Callable[[], float] = time.time) -> bool:
    """The app shows what we expect."""
    for _ in range(TRIES):
        err.write("The code that the app shows now: ")
        err.flush()
        if step_of(secret, sys.stdin.readline(), now()) is not None:
            return True
    return False


def _show(uri: str, err: TextIO) -> None:
    print(f"\n{uri}\n", file=err)
    if not err.isatty():
        return
    columns = os.get_terminal_size(err.fileno()).columns or COLUMNS
    picture = qr_code(uri)
    if "utf" not in err.encoding.lower() or os.environ.get("TERM", "dumb") == "dumb":
        print("This terminal can show no QR code: type the secret into the app.", file=err)
    elif len(picture[0]) > columns:
        print(f"The QR code is {len(picture[0])} columns wide, more than there are.", file=err)
    else:
        for line in picture:
            print(f"{_BLACK_ON_WHITE}{line}{_PLAIN}", file=err)
        print(file=err)


def qr_code(text: str) -> list[str]:
    """Two rows of modules to a line, black on white, with the quiet zone."""
    rows = [bytes(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=QUIET)]
    rows += [bytes(len(rows[0]))] * (len(rows) % 2)
    return [
        "".join(" ▄▀█"[above * 2 + below] for above, below in zip(*pair, strict=True))
        for pair in zip(rows[::2], rows[1::2], strict=True)
    ]
