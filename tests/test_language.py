"""The language linter itself: it rejects each thing that it is for, and lets the field's terms pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.language import (
    LONGER_MODULES,
    MODULE_LINES,
    files_below,
    length_finding,
    main,
    message_finding,
    name_finding,
    phrase_findings,
    repeated_class_findings,
    subject_finding,
)
from tests.language import test_name_findings as name_findings_of_tests


@pytest.mark.parametrize(
    "text",
    [
        "a name that is none",
        "it can not be read",
        "read anew",
        "whoever holds the key",
        "no key is to be had",
        "refused all the same",
        "the agent speaks nonsense",
        "the signature is not good",
        "dropped by chance",
        "NOT WHOLE: web1",
        "what was known before is in force",
        "See the module.",
    ],
)
def test_rejects_phrase(text: str) -> None:
    assert [finding.text for finding in phrase_findings(f"first line\n{text}\n", "page.md")]


def test_names_file_and_line_of_phrase() -> None:
    assert [finding.place for finding in phrase_findings("one\ntwo\nanew\n", "page.md")] == ["page.md:3"]


def test_accepts_plain_sentences() -> None:
    text = "cannot reach web1:22: connection refused. Is sshd running there?"
    assert not list(phrase_findings(text, "page.md"))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("module", "auditing"),
        ("class", "Keying"),
        ("class", "SessionVisit"),
        ("function", "looking"),
        ("function", "asking_again"),
        ("variable", "found"),
        ("variable", "_told"),
    ],
)
def test_rejects_name(kind: str, name: str) -> None:
    assert name_finding(kind, name, "module.py:1")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("module", "framing"),
        ("module", "agent_forwarding"),
        ("class", "SessionRecording"),
        ("function", "parse_string"),
        ("function", "pending_requests"),
        ("variable", "match"),
        ("variable", "_"),
    ],
)
def test_accepts_name(kind: str, name: str) -> None:
    assert name_finding(kind, name, "module.py:1") is None


@pytest.mark.parametrize("name", ["test_a_class_name_is_unique", "test_nothing_is_lost", "test_what_is_said"])
def test_rejects_test_name_that_starts_with_no_verb(name: str) -> None:
    assert list(name_findings_of_tests(f"def {name}(): ...\n".encode(), "tests/test_x.py"))


@pytest.mark.parametrize(
    "subject",
    [
        "A name with a NUL behind it is none: sshd ran what it took for exec",
        "Added a linter",
        "Adding a linter",
        "add a linter",
        "Linter",
        "Add a linter.",
        "Add a linter whose subject is so long that no list of commits shows the end of it",
    ],
)
def test_rejects_commit_subject(subject: str) -> None:
    assert subject_finding(subject)


def test_accepts_imperative_commit_subject() -> None:
    assert subject_finding("Reject request names with NUL bytes") is None


def test_rejects_class_name_given_twice() -> None:
    classes = [
        ("Lane", "a.py:1"),
        ("Relay", "a.py:9"),
        ("Lane", "b.py:3"),
        ("Meta", "a.py:2"),
        ("Meta", "b.py:4"),
    ]
    assert [(finding.place, finding.text) for finding in repeated_class_findings(classes)] == [
        ("b.py:3", "Lane")
    ]


def test_rejects_long_module() -> None:
    assert length_finding("\n" * MODULE_LINES, "conchrec/relay.py") is None
    assert length_finding("\n" * (MODULE_LINES + 1), "conchrec/relay.py")


@pytest.mark.parametrize("name", LONGER_MODULES)
def test_rejects_needless_exception_for_module_length(name: str) -> None:
    assert length_finding("\n" * (MODULE_LINES + 1), name) is None
    assert length_finding("\n" * MODULE_LINES, name)
    assert length_finding("\n" * (LONGER_MODULES[name] + 1), name)


def test_reads_subject_of_commit_message_below_comments() -> None:
    assert message_finding("# comment\n\nReject names with NUL bytes\n\nThey were run.\n") is None
    assert message_finding("Rejected names\n# comment\n")
    assert message_finding("# nothing else\n")


@pytest.mark.parametrize("subject", ["fixup! added names", "Merge branch 'names'"])
def test_accepts_subject_that_git_writes(subject: str) -> None:
    assert message_finding(f"{subject}\n") is None


@pytest.mark.parametrize(
    ("message", "status"), [("Reject names with NUL bytes\n", 0), ("Rejected names\n", 1)]
)
def test_lints_commit_message_file(tmp_path: Path, message: str, status: int) -> None:
    path = tmp_path / "COMMIT_EDITMSG"
    path.write_text(message)
    assert main(["--commit-message", str(path)]) == status


def test_rejects_missing_path() -> None:
    with pytest.raises(SystemExit):
        main(["no/such/path"])


def test_reads_sources_without_git() -> None:
    names = files_below(["tests", "README.md"])
    assert {"tests/test_language.py", "README.md"} <= set(names)
    assert not [name for name in names if "__pycache__" in name]
