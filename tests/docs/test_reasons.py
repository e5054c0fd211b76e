"""The reference of reason codes has each code once, with its meaning."""

from __future__ import annotations

from conchrec.reasons import ReasonCode
from tests.docs.attribute_docs import attribute_docs
from tests.docs.reasons import groups


def test_has_each_code_in_one_group() -> None:
    assert [code for codes in groups().values() for code in codes] == list(ReasonCode)
    assert "" not in groups()


def test_has_meaning_of_each_code() -> None:
    assert list(attribute_docs(ReasonCode)) == [code.name for code in ReasonCode]
