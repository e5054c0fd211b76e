"""The SSH transport to a target, with the check of its host key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from conchrec.access.host_rules import rule_for
from conchrec.model import Target
from conchrec.proxy.dial.dialer import HostCheck
from conchrec.proxy.target_access import TargetAccess
from conchrec.ssh.algorithms import LEGACY, MODERN, UPSTREAM, Algorithms
from conchrec.ssh.host_key_check import AcceptedHostKey, HostTrust
from conchrec.ssh.transport import ClientTransport


class HostKeyCheck:
    """A ``HostCheck`` for one target, by the configured trust."""

    __slots__ = (
        "_now", "_target", "_trust", "verdict",
    )  # fmt: skip

    def __init__(self, trust: HostTrust, target: Target, now: Callable[[], datetime]) -> None:
        self._trust = trust
        self._target = target
        self._now = now
        self.verdict: AcceptedHostKey | None = None

    def __call__(self, blob: bytes) -> None:
        """Check the host key. Raises HostKeyRejected."""
        self.verdict = self._trust.verify(self._target, blob, self._now())


def new_transport(access: TargetAccess) -> tuple[ClientTransport, HostCheck]:
    """A transport to a target, and the check of its host key. ``start`` sends the identification string."""
    services = access.services
    limits = access.settings.config.limits
    trust = services.trust(access.target, access.destination.addresses)
    check = HostKeyCheck(trust, access.target, services.now)
    algorithms = algorithms_of(access)
    helper = services.kex_helper
    transport = ClientTransport(
        algorithms=algorithms,
        powers=helper.powers_of_peer(lambda: f"target {access.target}"),
        key_pairs=helper.key_pairs_of_peer(lambda: f"target {access.target}"),
        verify_host_key=check,
        host_key_algorithms=trust.algorithms_for(access.target, sha1=algorithms.sha1),
        identification=None,
        clock=services.clock,
        rekey_bytes=limits.rekey_bytes,
        rekey_time=limits.rekey_time,
        share=services.turns.of_user(access.identity.user),
    )
    return transport, check


def algorithms_of(access: TargetAccess) -> Algorithms:
    """The algorithms for the target: by its rule (``targets``), else all but the legacy ones."""
    rule = rule_for(access.settings.config.targets, access.target, access.destination.addresses)
    name = rule.algorithms.value if rule is not None and rule.algorithms is not None else ""
    return {"legacy": LEGACY, "modern": MODERN}.get(name, UPSTREAM)
