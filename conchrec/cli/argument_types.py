"""Words of a command line that are read as the configuration reads them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from conchrec.yaml_cursor import parse_duration, parse_size

T = TypeVar("T")


def said(parse: Callable[[str], T]) -> Callable[[str], T]:
    """``parse``, whose ValueError says what is wrong, as the type of an argument: the user reads that."""

    def argument(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument


duration: Callable[[str], timedelta] = said(parse_duration)
size: Callable[[str], int] = said(parse_size)
