"""Who may import whom: the drawing in ``conchrec/__init__.py``, held by a walk through the imports."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "conchrec"

VALUES = frozenset(
    {
        "conchrec",
        "conchrec.model",
        "conchrec.errors",
        "conchrec.reasons",
        "conchrec.audit",
        "conchrec.audit_chain",
        "conchrec.audit_encoder",
        "conchrec.audit_verify",
        "conchrec.config",
        "conchrec.settings",
        "conchrec.ownership",
        "conchrec.fair_queue",
        "conchrec.files",
        "conchrec.yamlread",
        "conchrec.ssh",
        "conchrec.ssh.wire",
        "conchrec.ssh.messages",
        "conchrec.ssh.certificate",
        "conchrec.ssh.krl",
        "conchrec.ssh.packetcipher",
        "conchrec.ssh.compression",
        "conchrec.ssh.modp",
        "conchrec.ssh.allowance",
        "conchrec.ssh.algorithms",
        "conchrec.proxy",
        "conchrec.proxy.lane",
        "conchrec.proxy.banner",
        "conchrec.proxy.waiting",
        "conchrec.recording",
        "conchrec.recording.account",
        "conchrec.recording.coverage",
        "conchrec.proxy.coverage",
        "conchrec.recording.asciicast",
        "conchrec.recording.file_contents",
        "conchrec.recording.scp",
        "conchrec.recording.sftp",
        "conchrec.recording.sftp_requests",
        "conchrec.recording.sftp_wire",
        "conchrec.recording.manifest",
        "conchrec.recording.picture",
        "conchrec.recording.provenance",
        "conchrec.recording.player",
        "conchrec.recording.recipients",
        "conchrec.recording.screen",
        "conchrec.recording.seal",
        "conchrec.recording.line",
        "conchrec.recording.commands",
        "conchrec.recording.echo",
        "conchrec.recording.transcript",
        "conchrec.recording.replay",
        "conchrec.recording.session_id",
        "conchrec.access",
        "conchrec.access.policy",
        "conchrec.access.options",
        "conchrec.access.command_patterns",
        "conchrec.access.grants",
        "conchrec.access.locks",
        "conchrec.access.logins",
        "conchrec.access.target_rules",
        "conchrec.access.windows",
        "conchrec.policyread",
        "conchrec.access.patterns",
        "conchrec.access.permits",
        "conchrec.access.authorized_keys",
        "conchrec.access.passwords",
        "conchrec.access.rotation",
    }
)
"""Layer 1: no reactor, no sockets; anybody may import them, unless WALL says otherwise."""

SSH_VALUES = (
    "conchrec.ssh.wire",
    "conchrec.ssh.certificate",
    "conchrec.ssh.certificate_extensions",
    "conchrec.ssh.krl",
    "conchrec.ssh.messages",
    "conchrec.ssh.algorithms",
)

ROOMS = ("ssh", "access", "recording")

WALL: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # room: (what it never imports, what of that it may)
    "conchrec.ssh": (
        ("conchrec.access", "conchrec.recording", "conchrec.proxy", "conchrec.web", "conchrec.cli"),
        (),
    ),
    "conchrec.access": (
        ("conchrec.ssh", "conchrec.recording", "conchrec.proxy", "conchrec.web", "conchrec.cli"),
        # the values, and keys as objects that sign: no protocols
        (*SSH_VALUES, "conchrec.ssh.signers", "conchrec.ssh.hostkeys"),
    ),
    "conchrec.recording": (
        ("conchrec.ssh", "conchrec.access", "conchrec.proxy", "conchrec.web", "conchrec.cli"),
        (),
    ),
    "conchrec.proxy": (("conchrec.web", "conchrec.cli", "conchrec.tap", "conchrec.service"), ()),
    "conchrec.web": (("conchrec.proxy", "conchrec.ssh", "conchrec.cli"), SSH_VALUES),
    "conchrec.cli": (
        ("conchrec.proxy", "conchrec.ssh", "conchrec.web", "conchrec.service", "conchrec.tap"),
        (*SSH_VALUES, "conchrec.ssh.hostkeys"),
    ),
}

ASSEMBLE = frozenset(
    {"conchrec.tap", "conchrec.service", "conchrec.workers", "conchrec.cli.main", "conchrec.cli.demo"}
    | {"conchrec.cli.demo_target"}
)
"""The only modules that see the global reactor; the demo's target is a program of its own."""

OUTSIDE = (
    "socket",
    "asyncio",
    "threading",
    "multiprocessing",
    "subprocess",
    "selectors",
    "twisted.internet.reactor",
)
"""What a value never needs."""


def modules() -> dict[str, Path]:
    """Every module of ours by its name."""
    found = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *(ROOT / "twisted").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


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


def outward(name: str) -> list[str]:
    """Imports that leave a module's room by a door that the drawing does not have."""
    return [
        imported
        for room, (never, but) in WALL.items()
        if within(name, room)
        for imported in imports(name)
        if within(imported, *never) and not within(imported, *but)
    ]


def test_there_is_something_to_look_at() -> None:
    assert {"conchrec", "conchrec.model", "conchrec.ssh.wire", "conchrec.proxy.lane"} <= set(MODULES)
    assert "conchrec.model" in set(imports("conchrec.audit"))


@pytest.mark.parametrize("name", MODULES)
def test_walls(name: str) -> None:
    assert outward(name) == []


@pytest.mark.parametrize("name", sorted(VALUES & set(MODULES)))
def test_values_know_nothing_of_the_world(name: str) -> None:
    imported = set(imports(name))
    assert not {other for other in imported if within(other, "conchrec") and other not in VALUES}
    assert not {other for other in imported if within(other, *OUTSIDE)}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ASSEMBLE])
def test_the_global_reactor(name: str) -> None:
    assert "twisted.internet.reactor" not in set(imports(name))


@pytest.mark.parametrize("room", ROOMS)
def test_proxy_is_the_only_place_that_sees_all(room: str) -> None:
    others = [f"conchrec.{other}" for other in ROOMS if other != room]
    for name in MODULES:
        if within(name, f"conchrec.{room}"):
            seen = [other for other in imports(name) if within(other, *others)]
            assert not [other for other in seen if room != "access" or not within(other, "conchrec.ssh")], (
                name
            )


def test_every_package_is_shipped() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    listed = set(parser["options"]["packages"].split())
    there = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    assert {line for line in listed if not line.startswith("#")} >= there | {"twisted.plugins"}


def test_twisted_stays_twisteds() -> None:
    assert list((ROOT / "twisted").rglob("__init__.py")) == []


def test_the_walk_sees_a_breach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The test can fail: each kind of import is seen, in each place."""
    culprit = tmp_path / "culprit.py"
    culprit.write_text(
        "from conchrec.recording import store\n"
        "def late():\n    from ..proxy.relay import Relay\n    import conchrec.access.policy\n"
        "    from twisted.internet import reactor\n"
    )
    monkeypatch.setitem(MODULES, "conchrec.ssh.culprit", culprit)
    assert outward("conchrec.ssh.culprit") == [
        "conchrec.recording.store",
        "conchrec.proxy.relay",
        "conchrec.access.policy",
    ]
    assert "twisted.internet.reactor" in set(imports("conchrec.ssh.culprit"))
