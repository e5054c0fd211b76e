"""The sdist and the wheel: what is in them, and that conchrec runs from the wheel in a fresh environment.

The environment gets its dependencies from this one, so that no network is needed. ``.ci/package`` installs
the wheel with pip and all that it declares.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.process import Process, environment, run
from tests.support.proxy import ROOT
from tests.support.stage import Stage
from tests.support.wait import block

SOURCES = sorted((ROOT / "conchrec").rglob("*.py"))
#: The script of this name is where Twisted is, in the other environment.
TWISTD = "from twisted.scripts.twistd import run; run()"
#: Not part of the sources: what tools and tests leave in a clone.
LEFT_OVER = (
    ".git",
    ".venv",
    ".clients",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "*.egg-info",
    "build",
    "dist",
    "var",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """The two files that are published, and an environment in which the wheel is installed."""

    sdist: Path
    wheel: Path
    environment: Path

    def program(self, name: str) -> Path:
        """A program of the environment."""
        return self.environment / "bin" / name

    @property
    def site_packages(self) -> Path:
        """Where the environment has its modules."""
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.environment)}))


async def build_package(directory: Path) -> Package:
    """Build both files from a copy of the sources, and install the wheel."""
    copy = directory / "sources"
    top = shutil.ignore_patterns(*LEFT_OVER)
    inner = shutil.ignore_patterns("__pycache__", "dropin.cache")
    shutil.copytree(
        ROOT,
        copy,
        symlinks=True,
        ignore=lambda path, names: (top if Path(path) == ROOT else inner)(path, names),
    )
    dist = directory / "dist"
    (await run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, copy)).check()
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    package = Package(sdist=sdist, wheel=wheel, environment=directory / "environment")
    (await run(sys.executable, "-m", "venv", package.environment)).check()
    pip = (package.program("python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    (await run(*map(str, pip), "--no-index", "--no-deps", wheel)).check()
    (package.site_packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return package


@pytest.fixture(scope="module")
def package(shared_stage: Stage) -> Package:
    """The package of these sources, for all tests of this file."""
    return block(build_package(shared_stage.path("package/x").parent))


def test_puts_all_modules_and_samples_into_wheel(package: Package) -> None:
    names = set(zipfile.ZipFile(package.wheel).namelist())
    assert {str(path.relative_to(ROOT)) for path in SOURCES} <= names
    assert {"conchrec/py.typed", "twisted/plugins/conchrec_plugin.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "bench/", "fuzz/"))]
    assert not [name for name in names if name.startswith("twisted/") and "conchrec" not in name]
    for sample in ("config.yaml", "conchrec.service", "sshd_config.sample"):
        installed = package.environment / "share" / "conchrec" / sample
        assert installed.read_bytes() == (ROOT / "etc" / sample).read_bytes()


def test_puts_tests_and_documentation_into_sdist(package: Package) -> None:
    with tarfile.open(package.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for directory in ("tests", "docs", "etc", "bench", "fuzz", ".ci"):
        files = {str(path.relative_to(ROOT)) for path in (ROOT / directory).rglob("*") if path.is_file()}
        missing = {name for name in files - names if "__pycache__" not in name and not name.endswith(".pyc")}
        assert not missing
    assert {"CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "quickstart"} <= names


def test_declares_every_dependency() -> None:
    declared = {
        re.split(r"[^\w.-]", requirement)[0].lower()
        for requirement in importlib.metadata.requires("conchrec") or ()
        if "extra ==" not in requirement
    }
    distributions = importlib.metadata.packages_distributions()
    imported = {
        name.partition(".")[0]
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_bytes()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }
    foreign = imported - sys.stdlib_module_names - {"conchrec", "_typeshed"}
    undeclared = {name for name in foreign if not declared & {item.lower() for item in distributions[name]}}
    assert undeclared <= {"zope"}, "Twisted brings zope.interface"


async def test_runs_demo_from_wheel(package: Package, stage: Stage) -> None:
    env = environment(TMPDIR=str(stage.short))
    command = package.program("conchrec")
    result = await run(command, "demo", "echo hi; exit 4", env=env, directory=stage.short)
    assert result.code == 4, str(result)
    assert result.text.startswith("hi\n")
    assert result.text.endswith("hi\n")
    version = (await run(command, "--version", directory=stage.short)).check().text
    assert version == f"conchrec {importlib.metadata.version('conchrec')}\n"
    assert "recordings" in (await run(command, "--help", directory=stage.short)).check().text


async def test_starts_service_from_read_only_wheel(package: Package, stage: Stage) -> None:
    """Twisted cannot write its plugin cache, as in an environment that belongs to root, and says nothing."""
    home = stage.path("home/x").parent
    (await run(package.program("conchrec"), "init", home, directory=stage.short)).check()
    config = home / "config.yaml"
    port = free_port()
    config.write_text(config.read_text().replace("tcp:3023", f"tcp:{port}:interface=127.0.0.1"))
    cache = package.site_packages / "twisted" / "plugins" / "dropin.cache"
    cache.unlink(missing_ok=True)
    cache.mkdir()  # root can write to any directory, but not to this name
    process = Process(
        [package.program("python"), "-c", TWISTD, "-n", "--pidfile=", "conchrec", "-c", config],
        directory=stage.short,
    )
    stage.at_end(process.stop)
    await process.says("listens on")
    scan = (await run("ssh-keyscan", "-p", str(port), "127.0.0.1")).check()
    assert "ssh-ed25519" in scan.text
    log = bytes(process.stdout + process.stderr).decode()
    assert "plugin cache" not in log
    assert "Traceback" not in log
