"""A ProxyContext and a TargetAccess with as much in them as one test needs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from conchrec.access.options import SessionOptions
from conchrec.access.policy import Allow
from conchrec.model import Identity, Target
from conchrec.proxy.agents import AgentSource, UserAgents
from conchrec.proxy.context import ProxyContext, Services, Settings
from conchrec.proxy.target_access import Destination, OneTimeProof, Origin, TargetAccess

WEB1 = Target(host="web1")


def partial_context(*, settings: dict[str, object] | None = None, **services: object) -> ProxyContext:
    """One with these alone: what is not given is an AttributeError when it is read. The registry is real."""
    return ProxyContext(
        cast(Settings, SimpleNamespace(**(settings or {}))), cast(Services, SimpleNamespace(**services))
    )


def access_to_web1(
    context: ProxyContext, identity: Identity, addresses: tuple[str, ...] = ()
) -> TargetAccess:
    """The access of a user who has reached web1 and not named a login."""
    return TargetAccess(
        context,
        Origin(
            cid="c",
            source="192.0.2.7",
            address="192.0.2.7:1",
            agents=UserAgents(outer=AgentSource("outer")),
            proofs=OneTimeProof(),
        ),
        Destination(target=WEB1, requested=WEB1, resolved=addresses, addresses=addresses),
        identity=identity,
    )


def root_at_web1(context: ProxyContext, identity: Identity, options: SessionOptions) -> TargetAccess:
    """The access of a user who may be root there, with these options."""
    access = access_to_web1(context, identity)
    access.set_login("root")
    set_options(access, options)
    return access


def set_options(access: TargetAccess, options: SessionOptions) -> None:
    """The policy is asked again, and this is what it allows now."""
    access.set_allowed(Allow(rule="ops", options=options, addresses=access.destination.addresses))
