"""The reference of commands: ``conchrec …`` from its parsers, and those of the proxy from their table."""

from __future__ import annotations

import argparse
import itertools
import textwrap
from collections.abc import Iterable, Iterator

from conchrec.cli.main import make_parser
from conchrec.proxy.commands.command_table import COMMANDS
from tests.docs import markdown

_COMMON = ("help", "config")
"""Options of every command, which the page describes once."""


def page() -> str:
    """All commands of ``conchrec``: those with subcommands as sections, the others below them."""
    root = make_parser([])
    parts = [markdown.contents(f"`{parser.prog}`" for parser, _ in _subcommands(root))]
    for parser, help_text in _subcommands(root):
        parts.append(_command(parser, help_text, "###"))
        parts += [_command(below, help_below, "####") for below, help_below in _subcommands(parser)]
    return "\n".join(parts)


def ssh_page() -> str:
    """All commands of the proxy, from the first line of their docstrings: what it does, and its usage."""
    rows = []
    for name, command in COMMANDS.items():
        about, _, usage = (command.__doc__ or "").splitlines()[0].partition(": ")
        usage = usage or name
        rows.append((markdown.code(usage), f"{about.rstrip('.')}."))
    return markdown.table(("command", "what it does"), rows)


def parsers() -> Iterator[argparse.ArgumentParser]:
    """The parser of each command and subcommand."""
    for parser, _ in _subcommands(make_parser([])):
        yield parser
        yield from (below for below, _ in _subcommands(parser))


def _subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Each subcommand, with its help in the list of its parent."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield action.choices[choice.dest], choice.help or ""


def _command(parser: argparse.ArgumentParser, help_text: str, level: str) -> str:
    parts = [f"{level} `{parser.prog}`\n", f"{_sentence(help_text)}\n"]
    if list(_subcommands(parser)):
        parts.append(_text(parser.description))
    else:
        parts += [f"```text\n{_usage(parser)}\n```\n", _text(parser.description)]
        parts.append("".join(_argument(action) for action in _own(parser) if action.help))
    parts.append(_text(parser.epilog))
    return "\n".join(part for part in parts if part)


def _text(text: str | None) -> str:
    """A description as it stands in the help: indented lines are a block, the others paragraphs."""
    parts = []
    for indented, group in itertools.groupby((text or "").splitlines(), key=_is_indented):
        lines = "\n".join(group)
        if indented:
            parts.append(f"```text\n{textwrap.dedent(lines).strip()}\n```\n")
        elif lines.strip():
            parts.append(markdown.from_docstring(markdown.escape(lines)))
    return "\n".join(parts)


def _is_indented(line: str) -> bool:
    return line.startswith("  ")


def _own(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.dest not in _COMMON]


def _sentence(text: str, *, values: Iterable[str] = ()) -> str:
    """With a capital at its beginning, unless it begins with one of the values, and a full stop."""
    text = markdown.escape(text.replace("%%", "%"))
    if text.partition(" ")[0].rstrip(":,") not in values:
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?")) else f"{text}."


def _argument(action: argparse.Action) -> str:
    names = ", ".join(markdown.code(_with_value(name, action)) for name in action.option_strings)
    text = _sentence(action.help or "", values=map(str, action.choices or ()))
    return markdown.item(f"{names or markdown.code(_value(action))}: {text}")


def _usage(parser: argparse.ArgumentParser) -> str:
    """The synopsis, in the same form on every version of Python: options first, then arguments."""
    words: list[str] = []
    exclusive = {
        id(action): group for group in parser._mutually_exclusive_groups for action in group._group_actions
    }
    shown = set()
    actions = sorted(_own(parser), key=lambda action: not action.option_strings)
    for action in actions:
        group = exclusive.get(id(action))
        if group is None:
            words.append(_word(action))
        elif id(group) not in shown:
            shown.add(id(group))
            inner = " | ".join(
                _with_value(member.option_strings[0], member) for member in group._group_actions
            )
            words.append(f"({inner})" if group.required else f"[{inner}]")
    line, lines = parser.prog, []
    for word in words:
        if len(line) + 1 + len(word) > markdown.WIDTH:
            lines.append(line)
            line = " " * len(parser.prog)
        line += f" {word}"
    return "\n".join([*lines, line])


def _word(action: argparse.Action) -> str:
    if action.option_strings:
        text = _with_value(action.option_strings[0], action)
        return text if action.required else f"[{text}]"
    value = _value(action)
    return {"?": f"[{value}]", "*": f"[{value} …]", "+": f"{value} …", "...": f"[{value} …]"}.get(
        str(action.nargs), value
    )


def _with_value(name: str, action: argparse.Action) -> str:
    return name if action.nargs == 0 else f"{name} {_value(action)}"


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())
