"""When the proxy renews keys (``limits.rekey_bytes`` and ``limits.rekey_time``), on its three connections."""

from __future__ import annotations

import pytest

from fuzz.channels import wire as w
from tests.golden.codes import Codes
from tests.golden.scene import Scene

MIB = 1 << 20
PIECE = b"x" * 16384


def _rekeys(scene: Scene) -> list[int]:
    """Of the user's outer and inner connection, and of the target's."""
    assert scene.outer is not None
    assert scene.transports is not None
    return [transport.rekeys for transport in (scene.outer.transport, *scene.transports)]


def _scene(settings: dict[str, object]) -> Scene:
    scene = Scene(Codes(), settings={"limits": settings} if settings else {})
    scene.begin()
    scene.session()
    scene.ask(b"exec", w.text(b"cat"))
    return scene


@pytest.mark.parametrize(
    ("settings", "expected"), [({"rekey_bytes": "1MiB"}, [2, 2, 2]), ({}, [0, 0, 0])], ids=["1MiB", "default"]
)
@pytest.mark.parametrize("direction", ["say", "out"])
def test_renews_keys_after_configured_volume(
    settings: dict[str, object], expected: list[int], direction: str
) -> None:
    scene = _scene(settings)
    try:
        for _ in range(5 * MIB // 2 // len(PIECE)):
            getattr(scene, direction)(PIECE)
        assert _rekeys(scene) == expected
    finally:
        scene.close()


@pytest.mark.parametrize(
    ("settings", "expected"), [({"rekey_time": "10s"}, [3, 3, 3]), ({}, [0, 0, 0])], ids=["10s", "default"]
)
def test_renews_keys_after_configured_time(settings: dict[str, object], expected: list[int]) -> None:
    scene = _scene(settings)
    try:
        for _ in range(7):
            scene.reactor.advance(5.0)
            scene.settle()
        assert _rekeys(scene) == expected
    finally:
        scene.close()
