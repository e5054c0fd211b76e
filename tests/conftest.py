"""A test that is a coroutine runs on the reactor; a stage holds what the tests start, and ends it; a house
is a proxy with a user and a target."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from hypothesis import settings

from tests.support.client import Way
from tests.support.house import House, build
from tests.support.stage import Stage
from tests.support.waiting import block

# Machines are shared: how long an example takes says nothing.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            pytest_twisted.ensureDeferred(item.function)


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


@pytest.fixture(params=list(Way), ids=lambda way: way.name.lower())
def way(request: pytest.FixtureRequest) -> Way:
    """Each way in that the README names."""
    param = request.param
    assert isinstance(param, Way)
    return param
