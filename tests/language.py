"""The language linter: phrases, names and sizes that this project rejects, and the subjects of its commits.

    python -m tests.language [PATH ...]
    python -m tests.language --commit-message FILE

The first form reads the tracked and the new text files, or those among them that are given or lie in a given
directory. The second reads the message of a commit that git is about to make (a commit-msg hook). Both print
one line for each finding, with what to write instead, and exit with 1 if there are any. CONTRIBUTING.md says
how we write.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: Not read: recorded bytes, other people's text, and the two files that must quote what they reject.
SKIPPED = (
    "tests/golden/scenarios/",
    "fuzz/corpus/",
    "tests/language.py",
    "tests/test_language.py",
    "LICENSE",
)
TEXT_FILES = {
    ".py",
    ".md",
    ".cfg",
    ".toml",
    ".yaml",
    ".yml",
    ".txt",
    ".service",
    ".socket",
    ".conf",
    ".sample",
    ".js",
    "",
}

#: A regular expression (case counts where a letter is upper case), and what to write instead.
PHRASES: tuple[tuple[str, str], ...] = (
    (r"\b(?:that|which|what) (?:is|are|was|were) none\b", "say invalid, and the rule"),
    (r"\bcan not\b", "cannot"),
    (r"\banew\b", "again"),
    (r"\bwho(?:so)?ever\b", "anyone who"),
    (r"\b(?:is|are|was|were) to be had\b", "is available"),
    (r"\ball the same\b", "anyway"),
    (r"\bwould not have (?:us|it|him|them)\b", "rejected"),
    (r"\b(?:speaks?|spoke|talks?) nonsense\b", "malformed, and what is malformed"),
    (r"\bsignature (?:is|was) (?:not|no) good\b", "signature verification failed"),
    (r"\bby chance\b", "at random"),
    (r"\bNOT WHOLE\b", "FAILED"),
    (r"\ball whole\b", "ok"),
    (r"\b(?:is|are) in force\b", "stays in effect, is in effect"),
    (r"\bSee the module\b", "say what the thing is"),
    (r"\bWhose they are\b", "say what the thing is"),
    (r"\b[Ww]hat leaves which trace\b", "What is recorded and audited"),
    (r"\b(?:Finding|Looking at) one\b", "a noun that people search for: Finding recordings"),
    (
        r"\b(?:lest|henceforth|hereby|herein|whereof|whereby|wherein|thereof|naught|hitherto)\b",
        "a common word",
    ),
    (r"\bcomes? to nothing\b", "fails, and why"),
    (r"\bno matter (?:what|which|who)\b", "any"),
    (r"\bof old\b", "earlier, older"),
    (r"\bsees to it\b|\bsee to it\b", "makes sure, checks"),
    (r"\bbe it\b", "whether"),
)

#: Words that are no name by themselves: they say what happened to a value, or nothing, and not what it is.
WORDS_OF_NO_NAME = frozenset(
    [
        "asked",
        "found",
        "told",
        "one",
        "those",
        "these",
        "meant",
        "taken",
        "beside",
        "led",
        "said",
        "place",
        "places",
        "thing",
        "things",
        "stuff",
        "whose",
    ]
)
#: Nouns (and terms of the field) that end in -ing.
NOUNS_IN_ING = frozenset(
    [
        "accounting",
        "backing",
        "binding",
        "building",
        "ceiling",
        "coding",
        "compressing",
        "encoding",
        "ending",
        "engineering",
        "fencing",
        "finding",
        "forwarding",
        "framing",
        "greeting",
        "heading",
        "hashing",
        "indexing",
        "landing",
        "limiting",
        "listing",
        "logging",
        "mapping",
        "meaning",
        "mounting",
        "opening",
        "padding",
        "paging",
        "pairing",
        "ping",
        "pricing",
        "polling",
        "processing",
        "profiling",
        "pruning",
        "rating",
        "reading",
        "recording",
        "rekeying",
        "rendering",
        "ring",
        "routing",
        "sampling",
        "scheduling",
        "setting",
        "settings",
        "signing",
        "sizing",
        "spacing",
        "spelling",
        "string",
        "testing",
        "thing",
        "timing",
        "tracing",
        "training",
        "typing",
        "warning",
        "writing",
    ]
)
#: Terms that start a function's name and end in -ing, though they are no verb form.
ADJECTIVES_IN_ING = frozenset(["pending", "remaining", "missing", "existing", "matching"])
#: Names that a format fixes, and the file that has them: ``found`` is a member of ``evidence.tampered``.
NAMES_OF_FORMATS = {"found": "conchrec/audit/events.py"}
#: Words that no name has, not even as a part.
METAPHORS = frozenset(
    [
        "door",
        "doors",
        "way",
        "ways",
        "valve",
        "valves",
        "shelf",
        "shelves",
        "visit",
        "visits",
        "looking",
        "judging",
        "bag",
        "basket",
    ]
)

#: Class names are unique in these packages. Tests and tools may name their own classes alike.
UNIQUE_CLASSES_IN = ("conchrec/",)
#: Peewee takes the settings of each table from a nested class with this name.
REPEATED_CLASSES = frozenset({"Meta"})
SHORT_MODULES_IN = ("conchrec/", "bench/", "fuzz/")
MODULE_LINES = 500
#: Modules that may be longer, and how long. The catalogue of audit events is one table.
LONGER_MODULES = {"conchrec/audit/events.py": 1100}

COMMIT_SUBJECT_LENGTH = 72
ARTICLES = frozenset({"a", "an", "the", "one", "what", "who", "where", "when", "no", "every", "each", "all"})
#: Forms of a verb that a subject does not start with, except for the verbs whose imperative looks like one.
NO_IMPERATIVE = re.compile(
    r"(?!(?:bring|ping|string|embed|exceed|feed|need|proceed|seed|shed|shred|speed|apply|comply|imply|multiply"
    r"|rely|reply|supply)$).*(?:ing|ed|ly)$",
    re.I,
)
#: What git writes itself at the start of a subject. Such a commit is folded into another one, or merges.
GIT_SUBJECTS = ("fixup! ", "squash! ", "amend! ", "Merge ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to write differently: where it stands, what stands there, and what to write instead."""

    place: str
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text!r}: {self.advice}"


def git(*arguments: str) -> str:
    """What git prints in the top directory of the sources; empty if it fails."""
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout  # fmt: skip


def files_below(paths: Sequence[str]) -> list[str]:
    """All files below ``paths``, for a tree without git; not those of directories that git would ignore."""
    names = []
    for path in paths:
        place = ROOT / path
        for directory, below, files in os.walk(place):
            below[:] = [name for name in below if not name.startswith(".") or name == ".ci"]
            below[:] = [name for name in below if name not in ("build", "dist", "var", "__pycache__")]
            names += [str((Path(directory) / name).relative_to(ROOT)) for name in files]
        if place.is_file():
            names.append(path)
    return [name for name in names if ".egg-info/" not in name]


def tracked_files(paths: Sequence[str] = ()) -> list[Path]:
    """The text files that the repository tracks, or will track, without those in SKIPPED."""
    if (ROOT / ".git").exists():
        listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths).split("\0")
    else:
        listed = files_below(paths or ["."])
    return [
        ROOT / name
        for name in listed
        if name
        and not name.startswith(SKIPPED)
        and Path(name).suffix in TEXT_FILES
        and (ROOT / name).is_file()
    ]


def phrase_findings(text: str, name: str) -> Iterator[Finding]:
    """The phrases of ``text`` that PHRASES rejects; ``name`` is the file's."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, advice in PHRASES:
            for match in re.finditer(pattern, line):
                yield Finding(place=f"{name}:{number}", text=match[0], advice=advice)


NO_PARTICIPLE = {
    "module": "no participles: a module is named by a noun",
    "class": "no participles: a class is named by a noun",
    "function": "no participles: a function is named by a verb",
}


def name_words(name: str) -> list[str]:
    """The words of a name in snake_case or CamelCase, in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return [word for word in spaced.lower().split("_") if word]


def name_finding(kind: str, name: str, place: str) -> Finding | None:
    """What is wrong with a name; ``kind`` is module, class, function or variable."""
    words = name_words(name)
    if not words:
        return None
    advice = ""
    if len(words) == 1 and words[0] in WORDS_OF_NO_NAME | METAPHORS:
        advice = f"name what the {kind} {'does' if kind == 'function' else 'is'}"
    elif kind != "variable":
        head = words[0] if kind == "function" else words[-1]
        if head.endswith("ing") and head not in NOUNS_IN_ING | ADJECTIVES_IN_ING:
            advice = NO_PARTICIPLE[kind]
        elif METAPHORS.intersection(words):
            advice = "no metaphors: use the field's term"
    return Finding(place=place, text=name, advice=advice) if advice else None


def variable_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each variable, parameter and attribute that a module gives a value to, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def name_findings(source: bytes, name: str) -> Iterator[Finding]:
    """The names in a Python file that are participles, metaphors or say nothing."""
    finding = name_finding("module", Path(name).stem.removeprefix("test_"), name)
    if finding:
        yield finding
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            if node.name.startswith("test_"):
                continue
            finding = name_finding(kind, node.name, f"{name}:{node.lineno}")
            if finding:
                yield finding
    for variable, line in variable_names(tree):
        if NAMES_OF_FORMATS.get(variable) == name:
            continue
        finding = name_finding("variable", variable, f"{name}:{line}")
        if finding:
            yield finding


NO_TEST_NAME = re.compile(
    r"^test_(?:a|an|the|what|who|whose|where|when|one|no|every|each|all|only|nobody|nothing|it|its)(?:_|$)"
)


def test_name_findings(source: bytes, name: str) -> Iterator[Finding]:
    """The tests whose names do not start with what the tested thing does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and NO_TEST_NAME.match(node.name):
            yield Finding(
                place=f"{name}:{node.lineno}",
                text=node.name,
                advice="test_<does what>_<when>: test_rejects_empty_packet",
            )


def subject_finding(subject: str) -> Finding | None:
    """What is wrong with the subject of a commit."""
    first, _, rest = subject.partition(" ")
    advice = ""
    if len(subject) > COMMIT_SUBJECT_LENGTH:
        advice = f"at most {COMMIT_SUBJECT_LENGTH} characters"
    elif not rest or not first[:1].isupper():
        advice = "a sentence that starts with a verb in upper case: Reject names with NUL bytes"
    elif first.lower() in ARTICLES or NO_IMPERATIVE.match(first):
        advice = "imperative: Reject names with NUL bytes"
    elif subject.endswith("."):
        advice = "no full stop at the end"
    return Finding(place="commit", text=subject, advice=advice) if advice else None


def length_finding(text: str, name: str) -> Finding | None:
    """The module is too long, or an exception for it is no longer needed."""
    length = len(text.splitlines())
    if length > LONGER_MODULES.get(name, MODULE_LINES):
        advice = f"at most {LONGER_MODULES.get(name, MODULE_LINES)} lines: split it by subject"
    elif name in LONGER_MODULES and length <= MODULE_LINES:
        advice = "short enough: remove it from LONGER_MODULES"
    else:
        return None
    return Finding(place=name, text=f"{length} lines", advice=advice)


def class_places(source: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Each class of a module: its name, and the file and line of its definition."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            yield node.name, f"{name}:{node.lineno}"


def repeated_class_findings(classes: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """The classes, by name and place, that have the name of an earlier one."""
    first: dict[str, str] = {}
    for name, place in classes:
        if name in first and name not in REPEATED_CLASSES:
            yield Finding(
                place=place, text=name, advice=f"class names are unique: {first[name]} has this one"
            )
        first.setdefault(name, place)


def commit_findings() -> Iterator[Finding]:
    """The subjects of the commits since this file was added; none without that commit, as in a tarball."""
    added = git("log", "--diff-filter=A", "--format=%H", "--", "tests/language.py").split()
    if not added:
        return
    for subject in git("log", "--no-merges", "--format=%s", f"{added[-1]}^..HEAD").splitlines():
        finding = subject_finding(subject)
        if finding:
            yield finding


def message_finding(message: str) -> Finding | None:
    """What is wrong with the subject of a whole commit message, as git hands it to a hook."""
    lines = (line for line in message.splitlines() if line.strip() and not line.startswith("#"))
    subject = next(lines, "")
    return None if subject.startswith(GIT_SUBJECTS) else subject_finding(subject)


def file_findings(path: Path) -> Iterator[Finding]:
    """All findings in one file, which concern nothing but this file."""
    name = str(path.relative_to(ROOT))
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    yield from phrase_findings(text, name)
    if path.suffix != ".py":
        return
    yield from name_findings(data, name)
    if name.startswith("tests/"):
        yield from test_name_findings(data, name)
    if name.startswith(SHORT_MODULES_IN) and (finding := length_finding(text, name)):
        yield finding


def findings(paths: Sequence[str] = ()) -> list[Finding]:
    """All findings in the tracked files, or in those under ``paths``.

    Repeated class names and commits are only looked at without ``paths``: they concern the whole tree.
    """
    files = tracked_files(paths)
    collected = [finding for path in files for finding in file_findings(path)]
    if not paths:
        modules = {str(path.relative_to(ROOT)): path for path in files if path.suffix == ".py"}
        collected += repeated_class_findings(
            definition
            for name, path in modules.items()
            if name.startswith(UNIQUE_CLASSES_IN)
            for definition in class_places(path.read_bytes(), name)
        )
        collected += commit_findings()
    return collected


def main(arguments: Sequence[str]) -> int:
    """Print the findings, and return the exit status: 0 if there are none, 1 if there are some."""
    parser = argparse.ArgumentParser(prog="python -m tests.language", description="Lint the language.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files and directories (default: all)")
    parser.add_argument("--commit-message", metavar="FILE", type=Path, help="lint only this commit message")
    options = parser.parse_args(arguments)
    if options.commit_message is not None:
        finding = message_finding(options.commit_message.read_text())
        collected = [finding] if finding else []
    else:
        for path in options.paths:
            if not (ROOT / path).exists():
                parser.error(f"{path}: no such file or directory")
        collected = findings(options.paths)
    for finding in collected:
        print(finding)
    print(f"{len(collected)} findings" if collected else "language: ok")
    return 1 if collected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
