"""The keys of a section and their readers, as a dataclass says them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum

import pytest

from conchrec.config.fields import SIZE, WAITS_FOR_START, at_start, keys, read_fields
from conchrec.yaml_cursor import Problems, Section, read


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSection:
    """One field of each kind."""

    name: str = field(metadata=WAITS_FOR_START)
    flag: bool = False
    count: int = field(default=3, metadata={"least": 2, "most": 9})
    room: int = field(default=5, metadata={**SIZE, **WAITS_FOR_START})
    wait: timedelta = timedelta(seconds=1)
    colour: Colour = Colour.RED


def section(text: str, problems: Problems) -> Section:
    top = read(text.encode(), problems, keys(SampleSection))
    assert top is not None
    return top


def test_lists_keys_in_order_of_fields() -> None:
    assert keys(SampleSection, "name", "wait") == ("flag", "count", "room", "colour")
    assert at_start(SampleSection) == {"name", "room"}


def test_reads_missing_keys_as_defaults() -> None:
    problems = Problems()
    assert read_fields(section("{}", problems), SampleSection, name="x") == SampleSection(name="x")
    assert problems.errors == []


def test_reads_key_by_type_of_default() -> None:
    problems = Problems()
    text = "{flag: yes, count: 9, room: 2KiB, wait: 3m, colour: blue}"
    assert read_fields(section(text, problems), SampleSection, name="x") == SampleSection(
        name="x", flag=True, count=9, room=2048, wait=timedelta(minutes=3), colour=Colour.BLUE
    )
    assert problems.errors == []


def test_reports_wrong_values() -> None:
    problems = Problems()
    text = "{flag: 7, count: 1, room: much, wait: long, colour: green, other: 1}"
    assert read_fields(section(text, problems), SampleSection, name="x") == SampleSection(name="x")
    assert sorted(error.path for error in problems.errors) == [
        *("colour", "count", "flag", "other", "room", "wait")
    ]


def test_requires_value_for_field_without_reader() -> None:
    with pytest.raises(TypeError, match="name is not read by the type of its default"):
        read_fields(section("{}", Problems()), SampleSection)
