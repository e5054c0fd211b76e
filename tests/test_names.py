"""The sizes and class names of this checkout pass the language linter, which the rest of it will, too."""

from __future__ import annotations

from tests.language import ROOT, class_places, length_finding, repeated_class_findings
from tests.test_layers import MODULES

SOURCES = {str(path.relative_to(ROOT)): path.read_bytes() for path in MODULES.values()}


def test_has_no_repeated_class_name() -> None:
    classes = (definition for name, source in SOURCES.items() for definition in class_places(source, name))
    assert not list(repeated_class_findings(classes))


def test_has_no_long_module() -> None:
    assert [
        finding for name, source in SOURCES.items() if (finding := length_finding(source.decode(), name))
    ] == []
