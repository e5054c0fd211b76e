"""Fixtures: a stage starts programs and ends them; a house is a proxy with a user and a target.

Tests that are coroutines run on the reactor.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from hypothesis import settings

from tests.support.client import AccessMethod
from tests.support.defaults import without_installed_configuration
from tests.support.house import House, build
from tests.support.stage import Stage
from tests.support.wait import block

# Machines are shared: how long an example takes says nothing.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


LONGEST_ID = 40


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long value by its argument: it may be a generated key, which differs between the workers."""
    return argname if isinstance(val, (str, bytes)) and len(val) > LONGEST_ID else None


LONGEST_FIRST = (
    "tests/interop/test_ansible.py",
    "tests/system/test_evidence.py",
    "tests/test_fuzz.py",
    "tests/test_bench.py",
    "tests/test_fuzz_channels.py",
)
"""The files that tests/run gives to its workers first: none is to work alone at the end."""
WITH_PROGRAMS = ("tests/interop", "tests/system")
"""Where most tests wait for programs. All others compute."""
WITH_PROGRAMS_SHARE = 0.8
"""At this part of the other files, all files in WITH_PROGRAMS have begun: none of them is the last one."""


def _order(files: Sequence[str]) -> dict[str, float]:
    """The rank of each file: those that wait and those that compute alternate, so that workers which wait
    leave the processors to those which compute."""
    longest = [file for file in LONGEST_FIRST if file in files]
    rest = [file for file in files if file not in longest]
    waiting = [file for file in rest if file.startswith(WITH_PROGRAMS)]
    computing = [file for file in rest if file not in waiting]
    ranks = {file: float(number - len(longest)) for number, file in enumerate(longest)}
    ranks |= {file: WITH_PROGRAMS_SHARE * number / len(waiting) for number, file in enumerate(waiting)}
    return ranks | {file: number / len(computing) for number, file in enumerate(computing)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = _order(list(dict.fromkeys(_file(item) for item in items)))
    items.sort(key=lambda item: ranks[_file(item)])
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            pytest_twisted.ensureDeferred(item.function)


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def pytest_collection_finish() -> None:
    """Exclude what the collection has made from garbage collection: tests that look at all objects would
    look at thousands of collected tests, too."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_installed_configuration() -> Iterator[None]:
    """Commands that run in this process do not read /etc/conchrec/config.yaml."""
    with without_installed_configuration():
        yield


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Where one test starts its programs; all of them have ended afterwards."""
    stage = Stage(directory=tmp_path)
    try:
        yield stage
    finally:
        block(stage.close())


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The same for all tests of a file, where starting again for each would cost too much."""
    stage = Stage(directory=tmp_path_factory.mktemp("stage"))
    try:
        yield stage
    finally:
        block(stage.close())


@pytest.fixture(scope="module")
def house(shared_stage: Stage) -> House:
    """One user, one proxy and one target for all tests of a file."""
    return block(build(shared_stage))


@pytest.fixture(params=list(AccessMethod), ids=lambda method: method.name.lower())
def method(request: pytest.FixtureRequest) -> AccessMethod:
    """Each way in that the README names."""
    param = request.param
    assert isinstance(param, AccessMethod)
    return param
