"""One user, one proxy and one target for all tests of a file."""

from __future__ import annotations

import pytest

from tests.support.client import Way
from tests.support.house import House, build
from tests.support.stage import Stage
from tests.support.waiting import block


@pytest.fixture(scope="module")
def house(shared_stage: Stage) -> House:
    return block(build(shared_stage))


@pytest.fixture(params=list(Way), ids=lambda way: way.name.lower())
def way(request: pytest.FixtureRequest) -> Way:
    """Each way in that the README names."""
    param = request.param
    assert isinstance(param, Way)
    return param
