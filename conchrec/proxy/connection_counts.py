"""How many channels and connections to targets one user may have at one time."""

from __future__ import annotations

from conchrec.errors import AccessDenied
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import ReasonCode


def check_target_channels(access: TargetAccess) -> None:
    """Raise AccessDenied where the user has ``sessions_per_user`` channels to targets open.

    It is more than one person can use; without the limit one user could fill the process with tunnels.
    """
    context, user = access.context, access.identity.user
    most = context.settings.config.limits.sessions_per_user
    if sum(live.target_channel_count for live in context.registry.connections_of(user)) >= most:
        raise AccessDenied(
            f"too many channels to targets: {user} has {most} open, which is the limit (sessions_per_user). "
            "Close one, then try again",
            rule="sessions_per_user",
            code=ReasonCode.TOO_MANY_TARGETS,
        )


def check_connections(access: TargetAccess) -> None:
    """Raise AccessDenied where the user has ``max_connections`` connections to targets."""
    limit = access.options.max_connections if access.options is not None else None
    user = access.identity.user
    if limit is None:
        return
    if sum(live.connection_count for live in access.context.registry.connections_of(user)) >= limit:
        raise AccessDenied(
            f"too many connections to targets: {user} has {limit} open, which is the limit "
            "(max_connections). Close one, then try again",
            rule="max_connections",
            code=ReasonCode.TOO_MANY_TARGET_CONNECTIONS,
        )
