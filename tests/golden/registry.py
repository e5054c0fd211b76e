"""The scenarios by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.golden.codes import Codes
from tests.golden.scene import Scene

Scenario = Callable[[Codes], Scene]
SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Scenario) -> Scenario:
    """Register a function that plays a scenario; its name is that of the golden file."""
    assert play.__name__ not in SCENARIOS
    SCENARIOS[play.__name__] = play
    return play
