"""The pages of the documentation, and the generators of their generated blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs import audit_events, commands, configuration, coverage, reasons, roles

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))

GENERATORS: Mapping[str, Callable[[], str]] = {
    "configuration-contents": configuration.contents,
    "configuration": configuration.page,
    "audit-events": audit_events.page,
    "commands": commands.page,
    "ssh-commands": commands.ssh_page,
    "reasons": reasons.page,
    "role-options": roles.table,
    "coverage-requests": coverage.requests,
    "coverage-fields": coverage.fields,
    "coverage-not-kept": coverage.not_kept,
}
"""By the name in the comment that begins a block."""

_BLOCK = re.compile(
    r"^<!-- generated: (?P<name>[\w-]+)[^\n]*-->\n.*?^<!-- end of generated -->$", re.MULTILINE | re.DOTALL
)


def render(text: str) -> str:
    """The text of a page with its generated blocks up to date. Raises KeyError for an unknown block."""
    return _BLOCK.sub(_block, text)


def block_names(text: str) -> list[str]:
    """The names of the generated blocks of a page, in their order."""
    return [match["name"] for match in _BLOCK.finditer(text)]


def _block(match: re.Match[str]) -> str:
    name = match["name"]
    begin = f"<!-- generated: {name}. Change the code, and run: python -m tests.docs -->"
    return f"{begin}\n\n{GENERATORS[name]().strip()}\n\n<!-- end of generated -->"
