"""A ProxyContext with as many settings and services as one test needs; its registry is the real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from conchrec.proxy.context import ProxyContext, Services, Settings


def partial_context(*, settings: dict[str, object] | None = None, **services: object) -> ProxyContext:
    """One with these alone: what is not given is an AttributeError when it is read."""
    return ProxyContext(
        cast(Settings, SimpleNamespace(**(settings or {}))), cast(Services, SimpleNamespace(**services))
    )
