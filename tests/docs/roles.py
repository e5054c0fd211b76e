"""The table of the options of roles."""

from __future__ import annotations

from conchrec.access.options import TABLE
from tests.docs import markdown


def table() -> str:
    """Each option, its default, and how the options of several roles combine."""
    return markdown.table(
        ("option", "default", "of several roles", "what it is"),
        ((f"`{row.name}`", row.default, row.adds.value, row.about) for row in TABLE),
    )
