"""How the commands show what came from outside, and who runs them."""

from __future__ import annotations

import pwd

from conchrec.ownership import INVOKER


def shown(text: str) -> str:
    """Text from outside as a terminal may print it: what is not printable as an escape."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def account() -> str:
    """The account of this machine that has started the command."""
    try:
        return pwd.getpwuid(INVOKER).pw_name
    except KeyError:
        return f"user {INVOKER}"
