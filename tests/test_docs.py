"""The documentation: links resolve, commands exist, configurations load, and quoted messages are ours."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from conchrec.cli import main
from conchrec.config import loader
from conchrec.proxy.commands.command_table import COMMANDS
from conchrec.reasons import ReasonCode
from tests.support.keys import make_key
from tests.support.pages import Block, Page, all_pages, slug
from tests.support.proxy import ROOT

PAGES = all_pages()
BY_PATH = {page.path: page for page in PAGES}
#: Generated from the code, with tests of their own in tests/docs.
GENERATED = ROOT / "docs" / "reference"
#: An example of a head of the audit log.
HEAD = "5f0c9a7b21de:17:" + 64 * "0"
#: An example of a head of the ledger.
LEDGER_HEAD = "17:" + 64 * "0"
#: More than two screens: a page that is longer has a table of contents.
TWO_SCREENS = 90
LINE = 100
MESSAGES = ROOT / "tests" / "golden" / "messages"
REASONS = (MESSAGES / "reasons.txt").read_text()

every_page = pytest.mark.parametrize("page", PAGES, ids=repr)
hand_written = pytest.mark.parametrize(
    "page",
    [page for page in PAGES if not page.path.is_relative_to(GENERATED)],
    ids=repr,
)


@every_page
def test_links_lead_to_files_and_headings(page: Page) -> None:
    broken = []
    for link in page.links:
        name, _, fragment = link.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        path = Path(os.path.normpath(page.path.parent / name)) if name else page.path
        if not path.exists() or (fragment and fragment not in BY_PATH[path].anchors):
            broken.append(link)
    assert broken == []


@hand_written
def test_lines_have_at_most_100_characters(page: Page) -> None:
    lines = [line for line in page.prose.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > LINE] == []


@hand_written
def test_contents_list_all_sections_of_a_long_page(page: Page) -> None:
    sections = [text for level, text in page.headings if level == 2]
    if len(page.text.splitlines()) <= TWO_SCREENS or len(sections) < 3 or page.path.name == "index.md":
        return
    if page.path == ROOT / "README.md":
        return  # its contents are the section that says where to read on
    contents = page.prose[: page.prose.index("\n## ")]
    missing = [text for text in sections if f"#{slug(text)})" not in contents]
    assert missing == []


def test_index_lists_all_pages() -> None:
    index = BY_PATH[ROOT / "docs" / "index.md"]
    decisions = BY_PATH[ROOT / "docs" / "decisions" / "index.md"]
    listed = {
        Path(os.path.normpath(page.path.parent / link.partition("#")[0]))
        for page in (index, decisions)
        for link in page.links
    }
    pages = {page.path for page in PAGES if page.path.parent != ROOT}
    assert pages - listed - {index.path} == set()
    for page in (index, decisions):
        trees = "".join(block.text for block in page.blocks if block.language == "{toctree}")
        entries = {line for line in trees.splitlines() if line and not line.startswith(":")}
        inside = {link.partition("#")[0].removesuffix(".md") for link in page.links if ".." not in link}
        assert entries == inside, page


@pytest.mark.parametrize("heading", ["Run it", "Test it"])
def test_readme_starts_a_section_with_a_script_of_the_clone(heading: str) -> None:
    """.ci/run runs what stands in the section "Test it"; so there is one block in it."""
    blocks = BY_PATH[ROOT / "README.md"].blocks_of(heading, "")
    assert len(blocks) == 1
    for command in blocks[0].split("&&"):
        script = ROOT / command.split()[0]
        assert script.exists()
        assert os.access(script, os.X_OK)


def commands_of(line: str, program: str) -> list[list[str]]:
    """The arguments of each call of a program in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    calls: list[list[str]] = []
    current: list[str] = []
    for word in [*lexer, ";"]:
        if re.fullmatch(r"[();<>|&]+", word):
            calls.append(current)
            current = []
        else:
            current.append(word)
    starts = (
        (call, index) for call in calls for index, word in enumerate(call) if Path(word).name == program
    )
    return [call[index + 1 :] for call, index in starts if index == 0 or call[index - 1] in ("then", "do")]


@every_page
def test_commands_of_examples_exist(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for line in page.shell_lines():
        plain = re.sub(r'"\$\(.*?\)"', "ID", line).replace("CHAIN:SEQ:DIGEST", HEAD)
        plain = plain.replace("NUMBER:DIGEST", LEDGER_HEAD)
        for arguments in commands_of(plain, "conchrec"):
            try:
                main.make_parser(arguments).parse_args(arguments)
            except SystemExit as leaving:
                if leaving.code != 0:
                    wrong.append(f"{line}: {capsys.readouterr().err}")
    assert wrong == []


#: Options of ssh that stand before the host in examples, and take a value.
_WITH_VALUE = frozenset({"-p", "-J", "-o", "-i", "-F", "-l"})


def proxy_command(arguments: list[str]) -> str | None:
    """The command for the proxy in ``ssh … joe@proxy COMMAND``; None if the host is another."""
    words = iter(arguments)
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            host = word.rpartition("@")[2]
            return next(words, "") if host == "proxy" else None
    return None


@every_page
def test_commands_of_the_proxy_in_examples_exist(page: Page) -> None:
    prose = "" if page.path.name == "CONTRIBUTING.md" else page.prose.replace("\n", " ")  # invented ones
    texts = [*page.shell_lines(), *re.findall(r"`(ssh [^`]*)`", prose)]
    calls = [call for text in texts if "'" not in text for call in commands_of(text, "ssh")]
    unknown = [call for call in calls if (proxy_command(call) or "help") not in COMMANDS and "-s" not in call]
    assert unknown == []


_MINIMAL: dict[str, object] = {
    "users": {"someone": {"authorized_keys": [], "roles": []}},
    "roles": {},
    "trusted_hosts": {},
}


def configurations() -> list[object]:
    """Each example of a configuration, whole or a part of it, in the pages that are written by hand."""
    pages = (page for page in PAGES if not page.path.is_relative_to(GENERATED))
    blocks: list[tuple[Page, Block]] = [(page, block) for page in pages for block in page.blocks]
    return [
        pytest.param(block.text, id=f"{page!r}-{number}")
        for number, (page, block) in enumerate(blocks)
        if block.language == "yaml"
    ]


@pytest.mark.parametrize("text", configurations())
async def test_configurations_of_examples_load(text: str, tmp_path: Path) -> None:
    settings = yaml.safe_load(text)
    key = await make_key(tmp_path / "example", "ed25519")
    for name in re.findall(r"[\w.]+\.(?:keys|pub)\b", text):
        (tmp_path / name).write_text(key.line + "\n")
    for name in re.findall(r"[\w.]*known_hosts\b", text):
        (tmp_path / name).touch()
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**_MINIMAL, **settings}, sort_keys=False))
    loader.load(config, me="joe")


#: In an escaped message: what is another text each time.
_VARIABLE = re.compile(r"'nonsense'|\\\{\\\}|<[a-z]+>|127\\\.0\\\.0\\\.1(?::2222)?|\b1m\b|(?<=Role\\ )all")


def message_patterns() -> list[re.Pattern[str]]:
    """What a quoted message may be: a template of a reason, or a line of the golden messages."""
    templates = [line.partition(" | ")[2] for line in REASONS.splitlines() if " | " in line]
    lines = [
        match[1]
        for path in sorted(MESSAGES.glob("*.txt"))
        for match in re.finditer(r"^[\w :]+\| (?:conchrec: )?(.*)$", path.read_text(), re.MULTILINE)
    ]
    long_enough = [text for text in {*templates, *lines} if len(re.sub(r"\{\}|\W", "", text)) >= 8]
    patterns = [re.sub(_VARIABLE, ".*?", re.escape(text)) for text in long_enough]
    # The name of a setting may stand before it.
    return [re.compile(rf"(?:[a-z_.]+: )?{pattern}") for pattern in patterns]


@pytest.mark.parametrize("name", ["docs/troubleshooting.md", "docs/guides/user.md", "docs/approval.md"])
def test_quoted_messages_exist(name: str) -> None:
    page = BY_PATH[ROOT / name]
    quoted = [
        line.removeprefix("conchrec: ").removeprefix("state_dir: ")  # the setting of a ConfigError
        for block in page.blocks
        for line in block.text.splitlines()
        if line.startswith("conchrec: ") and "…" not in line
    ]
    assert quoted
    patterns = message_patterns()
    assert [text for text in quoted if not any(pattern.fullmatch(text) for pattern in patterns)] == []


def test_reason_codes_of_pages_exist() -> None:
    page = BY_PATH[ROOT / "docs" / "troubleshooting.md"]
    groups = re.findall(r"\[((?:`\w+`(?:,\s)?)+)\](?!\()", page.prose)
    codes = {code for group in groups for code in re.findall(r"\w+", group)}
    assert len(codes) > 10
    assert codes - {code.value for code in ReasonCode} == set()


def test_modules_that_architecture_names_exist() -> None:
    page = BY_PATH[ROOT / "docs" / "architecture.md"]
    section = page.section("Where to find what")
    rows = "".join(line for line in section.splitlines() if line.startswith("|"))
    paths = re.findall(r"`([\w/]+(?:\.py|/))`", rows)
    assert len(paths) > 12
    assert [path for path in paths if not (ROOT / "conchrec" / path).exists()] == []
    diagrams = "".join(block.text for block in page.blocks if block.language == "text")
    modules = re.findall(r"\b((?:proxy|ssh|access|recording|ca)(?:\.[a-z_]+)+)", diagrams)
    assert len(modules) > 12
    files = [ROOT / "conchrec" / module.replace(".", "/") for module in modules]
    assert [str(path) for path in files if not path.is_dir() and not path.with_suffix(".py").exists()] == []


@hand_written
def test_links_stay_inside_of_the_site(page: Page) -> None:
    """The site is made of docs/ alone: a link from it to another file of the sources would be dead there."""
    docs = ROOT / "docs"
    if not page.path.is_relative_to(docs):
        return
    files = [link.partition("#")[0] for link in page.links if not re.match(r"[a-z]+:|#", link)]
    outside = [
        name for name in files if not Path(os.path.normpath(page.path.parent / name)).is_relative_to(docs)
    ]
    assert outside == []


def test_modules_in_table_of_packages_exist() -> None:
    page = BY_PATH[ROOT / "docs" / "architecture.md"]
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", page.section("Packages"), re.MULTILINE)
    assert len(rows) > 20
    missing = []
    for package, subject in rows:
        directory = ROOT / "conchrec" / package.replace(".", "/")
        modules = set(re.findall(r"`([a-z_]+)`", subject)) - {"play", "text", "conchrec"}  # commands
        missing += [
            f"{package}.{name}"
            for name in modules
            if not (directory / f"{name}.py").exists() and not (directory / name).is_dir()
        ]
        if not directory.is_dir() and not directory.with_suffix(".py").exists():
            missing.append(package)
    assert missing == []
