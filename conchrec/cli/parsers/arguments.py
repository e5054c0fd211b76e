"""What the parsers share: functions that are imported when they are called, and types of arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


class LateFunction:
    """A function of another module, which is imported at the first call: ``conchrec.cli.can:run_can``."""

    def __init__(self, reference: str) -> None:
        self.reference = reference

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return self.load()(*args)

    def load(self) -> Callable[..., Any]:
        """Import the function, and return it."""
        module, _, name = self.reference.partition(":")
        function: Callable[..., Any] = attrgetter(name)(import_module(module))
        return function


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


#: A length of time and a size, as the configuration parses them.
duration = argument_type(LateFunction("conchrec.yaml_cursor:parse_duration"))
size = argument_type(LateFunction("conchrec.yaml_cursor:parse_size"))
#: A time, like ``2026-11-23T14:00`` or ``2h`` ago.
moment = argument_type(LateFunction("conchrec.recording.catalogue.listing:parse_time"))
