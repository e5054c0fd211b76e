"""``conchrec passwd joe``: prints the lines of the configuration for a user's password and one-time codes.

The configuration is not changed. Only the lines go to standard output; everything else goes to standard
error.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

import segno
import yaml

from conchrec.access.passwords import new_hash, new_secret, otpauth, parse_secret, step_of
from conchrec.config.loader import Config
from conchrec.yaml_cursor import nearest

DONE, NO = 0, 1
#: A shorter password is accepted, with a warning.
ADVISED_LENGTH = 8
TRIES = 3
#: The width of the light border around a QR code, in modules (ISO/IEC 18004 section 6.3.8).
QUIET = 4
#: The width of a terminal that does not report one.
COLUMNS = 80
_BLACK_ON_WHITE, _PLAIN = "\x1b[0;30;107m", "\x1b[0m"


def command(config: Config, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Print the lines for the user, and return DONE; NO where there is no valid password or code."""
    interactive = sys.stdin.isatty()
    try:
        lines = {} if args.totp_only else {"password": new_hash(_read_password(args.user, err, interactive))}
    except UnicodeError:  # raised by the read where the locale is strict, else by the hash
        print("conchrec: invalid password: must be UTF-8", file=err)
        return NO
    except (EOFError, ValueError) as error:
        print(f"conchrec: {str(error) or 'no password was typed'}", file=err)
        return NO
    if args.totp or args.totp_only:
        lines["totp"] = new_secret()
        _show_secret(otpauth(lines["totp"], args.user, config.cluster_name), err)
        if interactive and not _confirm_code(parse_secret(lines["totp"]), err):
            print(
                "conchrec: no valid code was typed: are the clocks of this machine and of the phone right?"
                " Nothing was changed; run the command again",
                file=err,
            )
            return NO
    if args.user not in config.users:
        hint = nearest(args.user, tuple(config.users))
        print(f"note: give the user roles too: {config.file} has no user {args.user!r}{hint}", file=err)
    if interactive:
        where = f"to {args.user}" if args.user in config.users else "under users:"
        print(f"\nAdd this {where} in {config.file}, and reload the proxy (SIGHUP):\n", file=err)
    text = yaml.safe_dump({args.user: lines}, allow_unicode=True, width=1000)
    out.write("".join(f"  {line}\n" for line in text.splitlines()))
    return DONE


def _read_password(user: str, err: TextIO, interactive: bool) -> str:
    """The password from the terminal, or the first line of stdin. Raises ValueError and EOFError."""
    password = _ask_password(user, err) if interactive else sys.stdin.readline().rstrip("\r\n")
    if 0 < len(password) < ADVISED_LENGTH:
        print(
            f"note: the password is short: use at least {ADVISED_LENGTH} characters",
            file=err,
        )
    return password


def _ask_password(user: str, err: TextIO) -> str:
    """The password, typed twice without echo. Raises ValueError where the two differ, and EOFError."""
    first = getpass.getpass(f"New password of {user}: ", err)
    if getpass.getpass("Again: ", err) != first:
        raise ValueError("the two passwords differ; run the command again")
    return first


def _confirm_code(secret: bytes, err: TextIO, now: Callable[[], float] = time.time) -> bool:
    """Ask for a code of the app until one is valid, at most ``TRIES`` times. Returns whether one was."""
    for _ in range(TRIES):
        err.write("The code that the app shows now: ")
        err.flush()
        if step_of(secret, sys.stdin.readline(), now()) is not None:
            return True
    return False


def _show_secret(uri: str, err: TextIO) -> None:
    """Print the URI of the secret, and on a terminal its QR code."""
    print(f"\n{uri}\n", file=err)
    if not err.isatty():
        return
    columns = os.get_terminal_size(err.fileno()).columns or COLUMNS
    code = qr_code(uri)
    if "utf" not in err.encoding.lower() or os.environ.get("TERM", "dumb") == "dumb":
        print("This terminal cannot show a QR code: type the secret into the app.", file=err)
    elif len(code[0]) > columns:
        print(
            f"The terminal is too narrow for the QR code ({len(code[0])} columns): make it wider and run"
            " the command again, or type the secret into the app.",
            file=err,
        )
    else:
        for line in code:
            print(f"{_BLACK_ON_WHITE}{line}{_PLAIN}", file=err)
        print(file=err)


def qr_code(text: str) -> list[str]:
    """The lines of a QR code, black on white, with its light border; a line has two rows of modules."""
    rows = [bytes(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=QUIET)]
    rows += [bytes(len(rows[0]))] * (len(rows) % 2)
    return [
        "".join(" ▄▀█"[above * 2 + below] for above, below in zip(*pair, strict=True))
        for pair in zip(rows[::2], rows[1::2], strict=True)
    ]
