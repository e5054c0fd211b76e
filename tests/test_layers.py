"""Which package may import which: one rule for each package prefix, held by a walk through the imports.

``docs/architecture.md`` says why the layers are as they are.
"""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "conchrec"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("twisted.plugins",),
    ("conchrec.tap", "conchrec.cli"),
    ("conchrec.service",),
    ("conchrec.web", "conchrec.proxy.outer"),
    ("conchrec.proxy.commands",),
    ("conchrec.proxy.inner",),
    ("conchrec.proxy.login",),
    ("conchrec.proxy.relay",),
    ("conchrec.proxy.upstream",),
    ("conchrec.proxy",),
    ("conchrec.proxy.dial",),
    ("conchrec.audit",),
    ("conchrec.keys",),
    ("conchrec.config",),
    ("conchrec.access",),
    ("conchrec.ca",),
    ("conchrec.ssh", "conchrec.recording"),
    ("conchrec.recording.playback",),
    ("conchrec.recording.catalogue",),
    ("conchrec.recording.evidence", "conchrec.recording.capture"),
    ("conchrec.recording.storage", "conchrec.recording.terminal"),
    ("conchrec.recording.format",),
    ("conchrec.state",),
    ("conchrec",),
)
"""From top to bottom. A package imports itself and what stands below it; packages of one line do not import
each other. The last line are the values that everybody shares."""

SHARED = frozenset(
    f"conchrec.{name}"
    for name in (
        *("clock", "coroutines", "disk_space", "errors", "fair_queue", "file_lock", "files", "model"),
        *("ownership", "provenance", "reasons", "slim_queue", "text", "threads", "token_bucket"),
        "yaml_cursor",
    )
)
"""The modules of the last layer; a new one is a decision."""

SSH_VALUES = tuple(
    f"conchrec.ssh.{name}"
    for name in (
        *("agent_messages", "algorithms", "certificate", "certificate_checks", "certificate_extensions"),
        *("krl", "messages", "signatures", "wire"),
    )
)
"""Formats of SSH, without protocols."""

WALLS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # package: (what it never imports, what of that it may)
    "conchrec.recording": (("conchrec.ssh", "conchrec.state"), ()),
    "conchrec.config": (("conchrec.ssh", "conchrec.ca"), SSH_VALUES),
    "conchrec.access": (
        ("conchrec.ssh", "conchrec.recording"),
        (*SSH_VALUES, "conchrec.ssh.signers"),
    ),
    "conchrec.ca": (
        ("conchrec.ssh", "conchrec.recording"),
        (*SSH_VALUES, "conchrec.ssh.signers", "conchrec.ssh.server_host_keys"),
    ),
    "conchrec.ssh": (("conchrec.state",), ()),
    "conchrec.audit": (("conchrec.ssh", "conchrec.recording"), ("conchrec.recording.format.signatures",)),
    "conchrec.proxy.dial": (("conchrec.recording", "conchrec.audit"), ()),
    "conchrec.web": (("conchrec.proxy", "conchrec.ssh"), SSH_VALUES),
    "conchrec.cli": (
        ("conchrec.proxy", "conchrec.ssh", "conchrec.web", "conchrec.service"),
        (
            *(*SSH_VALUES, "conchrec.ssh.known_hosts", "conchrec.ssh.certificate_text"),
            *("conchrec.service.preload", "conchrec.service.process"),
        ),
    ),
}
"""Walls beside the layers: above all, ``ssh`` does not know that recording exists, and ``recording`` does not
know that SSH exists."""

BELONGS = ("conchrec.cli.ca", "conchrec.cli.parsers", "conchrec.cli.recordings")
"""Packages on the layer of the package that they are in."""

PURE = (
    *sorted(SHARED - {"conchrec.coroutines", "conchrec.threads"}),
    *("conchrec.config", "conchrec.state", "conchrec.recording.format", "conchrec.recording.terminal"),
    *("conchrec.recording.playback", *SSH_VALUES),
)
"""Packages and modules without sockets, threads, processes and Twisted."""
OUTSIDE = ("socket", "asyncio", "threading", "multiprocessing", "subprocess", "selectors", "twisted")

ASSEMBLE = frozenset({"conchrec.tap", "conchrec.cli.demo_target"})
"""The only modules that see the global reactor; the demo's target is a program of its own."""


def modules() -> dict[str, Path]:
    """Every module of ours by its name."""
    paths = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *(ROOT / "twisted").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """The full names of all modules that this one imports, wherever in it the import stands."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                # `from conchrec.ssh import wire` names a module, `from conchrec.model import Target` does not
                yield inner if inner in MODULES or inner == "twisted.internet.reactor" else base


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def layer_of(name: str) -> tuple[int, str]:
    """The layer of a module and the prefix that puts it there. KeyError for a package that has no layer."""
    known = [
        (len(prefix), number, prefix)
        for number, layer in enumerate(LAYERS)
        for prefix in layer
        if within(name, prefix)
    ]
    _, number, prefix = max(known)
    package = name if MODULES.get(name, PACKAGE).name == "__init__.py" else name.rpartition(".")[0]
    if (name != prefix and package not in (prefix, *BELONGS)) or (
        prefix == "conchrec" and name not in {"conchrec", *SHARED}
    ):
        raise KeyError(name)
    return number, prefix


def upward(name: str) -> list[str]:
    """What a module imports that does not stand below it."""
    number, prefix = layer_of(name)
    imports_ = []
    for imported in imports(name):
        if imported in MODULES and imported != "conchrec":
            other, package = layer_of(imported)
            if other < number or (other == number and package != prefix):
                imports_.append(imported)
    return imports_


def outward(name: str) -> list[str]:
    """What a module imports through a wall."""
    return [
        imported
        for package, (never, but) in WALLS.items()
        if within(name, package)
        for imported in imports(name)
        if within(imported, *never) and not within(imported, *but, package)
    ]


def test_finds_modules() -> None:
    assert {"conchrec", "conchrec.model", "conchrec.ssh.wire", "conchrec.proxy.relay.lane"} <= set(MODULES)
    assert "conchrec.reasons" in set(imports("conchrec.audit.encoder"))


@pytest.mark.parametrize("name", MODULES)
def test_imports_downwards_only(name: str) -> None:
    assert upward(name) == []


@pytest.mark.parametrize("name", MODULES)
def test_keeps_walls_between_packages(name: str) -> None:
    assert outward(name) == []


def test_has_no_unused_rule() -> None:
    prefixes = {prefix for layer in LAYERS for prefix in layer}
    walls = {name for package, rule in WALLS.items() for name in (package, *rule[0], *rule[1])}
    for prefix in prefixes | walls | SHARED | set(PURE) | ASSEMBLE:
        assert any(within(name, prefix) for name in MODULES), prefix


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, *PURE)])
def test_imports_no_io_in_pure_packages(name: str) -> None:
    assert not [other for other in imports(name) if within(other, *OUTSIDE)]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ASSEMBLE])
def test_imports_global_reactor_in_few_modules(name: str) -> None:
    assert "twisted.internet.reactor" not in set(imports(name))


def test_joins_ssh_and_recording_in_proxy_only() -> None:
    for name in MODULES:
        seen = set(imports(name))
        both = any(within(other, "conchrec.ssh") and other not in SSH_VALUES for other in seen) and any(
            within(other, "conchrec.recording") for other in seen
        )
        if both:
            assert within(name, "conchrec.proxy", "conchrec.service", "conchrec.cli"), name


def test_ships_every_package() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    listed = {line for line in parser["options"]["packages"].split() if not line.startswith("#")}
    assert listed >= {name for name, path in MODULES.items() if path.name == "__init__.py"} | {
        "twisted.plugins"
    }


def test_adds_one_plugin_to_twisted() -> None:
    assert list((ROOT / "twisted").rglob("__init__.py")) == []


def test_detects_every_kind_of_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tests above can fail."""
    culprit = tmp_path / "culprit.py"
    culprit.write_text(
        "from conchrec.recording import store\n"
        "def late():\n    from ..proxy.relay.relay import Relay\n    import conchrec.access.policy\n"
        "    from twisted.internet import reactor\n    import conchrec.state.state_file\n"
    )
    monkeypatch.setitem(MODULES, "conchrec.ssh.culprit", culprit)
    assert upward("conchrec.ssh.culprit") == [
        "conchrec.recording.store",
        "conchrec.proxy.relay.relay",
        "conchrec.access.policy",
    ]
    assert outward("conchrec.ssh.culprit") == ["conchrec.state.state_file"]
    assert "twisted.internet.reactor" in set(imports("conchrec.ssh.culprit"))


@pytest.mark.parametrize("name", ["conchrec.newpackage", "conchrec.newpackage.module", "conchrec.ssh.deep.x"])
def test_rejects_package_without_layer(name: str) -> None:
    with pytest.raises(KeyError):
        layer_of(name)
