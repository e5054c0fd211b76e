"""The reference of reason codes: tables by the groups of ``ReasonCode``."""

from __future__ import annotations

import inspect
import re

from conchrec.reasons import ReasonCode
from tests.docs import markdown
from tests.docs.attribute_docs import attribute_docs

_GROUP = re.compile(r"^    # (?P<group>.+)$|^    (?P<name>[A-Z0-9_]+) = ", re.MULTILINE)


def groups() -> dict[str, list[ReasonCode]]:
    """The codes below each comment in the class."""
    by_group: dict[str, list[ReasonCode]] = {}
    group = ""
    for match in _GROUP.finditer(inspect.getsource(ReasonCode)):
        if match["group"]:
            group = match["group"]
        else:
            by_group.setdefault(group, []).append(ReasonCode[match["name"]])
    return by_group


def page() -> str:
    """All codes and their meanings."""
    docs = attribute_docs(ReasonCode)
    parts = [markdown.contents(groups())]
    for group, codes in groups().items():
        rows = ((f"`{code.value}`", docs[code.name].text) for code in codes)
        parts += [f"## {group}\n", markdown.table(("`reason_code`", "meaning"), rows)]
    return "\n".join(parts)
