"""The tables of what is recorded and audited."""

from __future__ import annotations

from conchrec.proxy.coverage_table import FIELDS, TABLE, TREATMENTS, CoverageRow
from conchrec.recording.format.coverage import MEANINGS
from tests.docs import markdown


def requests() -> str:
    """What is recorded and audited of each request on each kind of channel."""
    return markdown.table(("channel", "request", "from", "recorded", "audited"), map(_request, TABLE))


def _request(row: CoverageRow) -> tuple[str, ...]:
    channel = "any other" if row.channel == "other" else f"`{row.channel}`"
    request = {"": "the channel itself", "other": "other"}.get(row.request, f"`{row.request}`")
    if row.why:
        return channel, request, row.sender, "–", f"– ({row.why})"
    audited = ", ".join(f"`{name}`" for name in row.audited)
    return channel, request, row.sender, row.recorded or "–", audited or "–"


def fields() -> str:
    """What becomes of each field of each message, and what the words for that mean."""
    meanings = "".join(
        markdown.item(f"*{treatment.value}*: {meaning}.") for treatment, meaning in TREATMENTS.items()
    )
    table = markdown.table(
        ("message", "name", "field", "treatment", "where"),
        ((row.group, f"`{row.message}`", row.field, row.treatment.value, row.where) for row in FIELDS),
    )
    return f"{meanings}\n{table}"


def not_kept() -> str:
    """The words by which a manifest says what its recording does not hold."""
    rows = ((f"`{word.value}`", meaning) for word, meaning in MEANINGS.items())
    return markdown.table(("word", "meaning"), rows)
