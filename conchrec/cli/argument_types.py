"""Types of command-line arguments that are parsed as the configuration parses them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from conchrec.yaml_cursor import parse_duration, parse_size

T = TypeVar("T")


def argument_type(parse: Callable[[str], T]) -> Callable[[str], T]:
    """The ``type`` of an argument from a parser whose ValueError has a text for the user.

    argparse prints the text of an ArgumentTypeError, and for a ValueError only the name of the function.
    """

    def argument(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument


duration: Callable[[str], timedelta] = argument_type(parse_duration)
size: Callable[[str], int] = argument_type(parse_size)
