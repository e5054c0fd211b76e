"""The table of the commands that users give to the proxy with ``ssh``, and how a command line is parsed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

from twisted.internet.defer import Deferred

from conchrec.proxy.commands import account, approvals, recordings
from conchrec.proxy.commands.command_request import CommandRequest, UsageError
from conchrec.text import quote
from conchrec.yaml_cursor import parse_duration

#: The longest command line, in characters.
MAX_LINE = 4096

#: Returns the output, which ends in a newline; empty if it is on the console already. Raises ConchrecError.
#: The first line of its docstring is what ``help`` prints.
Command = Callable[[CommandRequest], Coroutine[Deferred[Any], Any, str]]


async def run_command(request: CommandRequest, line: str) -> str:
    """Run the command in ``line``, and return its output. Raises UsageError, and ConchrecError."""
    if len(line) > MAX_LINE:
        raise UsageError(f"command too long: {len(line)} characters, at most {MAX_LINE}")
    try:
        words = shlex.split(line)
    except ValueError:
        raise UsageError(
            "invalid command: a quote is not closed, or the command ends with a backslash"
        ) from None
    if not words:
        return await account.overview(request)
    name, *arguments = words
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(f"unknown command {quote(name, 40)}. Commands: {', '.join(COMMANDS)}")
    if arguments and command in WITH_TTL:
        request = replace(request, ttl=_parse_ttl(name, arguments))
    elif command in WITH_WORDS:
        request = replace(request, words=tuple(arguments))
    elif arguments:
        raise UsageError(f"{name}: takes no arguments")
    return await command(request)


def _parse_ttl(name: str, arguments: list[str]) -> timedelta:
    """Parse ``--ttl 8h`` or ``--ttl=8h``. Raises UsageError."""
    option, _, text = arguments[0].partition("=")
    others = arguments[1:]
    if "=" not in arguments[0] and others:
        text, *others = others
    if option != "--ttl" or others:
        raise UsageError(f"{name}: the only argument is --ttl DURATION, for example --ttl 8h")
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--ttl: {error}") from None


async def help_(request: CommandRequest) -> str:
    """Show the commands, and how to connect to a target."""
    table = [f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    lines = ["Commands (ssh -p PORT you@proxy COMMAND):", *table, "", *account.connection_help(request)]
    return "\n".join(lines) + "\n"


COMMANDS: dict[str, Command] = {
    "login": account.login,
    "sign": account.sign,
    "status": account.status,
    "hosts": account.hosts,
    "recordings": recordings.recordings,
    "play": recordings.play,
    "text": recordings.text,
    "follow": recordings.follow,
    "request": approvals.request_access,
    "requests": approvals.list_requests,
    "approve": approvals.approve,
    "deny": approvals.deny,
    "help": help_,
}
WITH_TTL: tuple[Command, ...] = (account.login, account.sign)
WITH_WORDS: tuple[Command, ...] = (
    recordings.recordings,
    recordings.play,
    recordings.text,
    recordings.follow,
    approvals.request_access,
    approvals.list_requests,
    approvals.approve,
    approvals.deny,
)
