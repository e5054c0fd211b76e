"""Decides which forwards the roles allow. The kinds of forwards are those that the audit names."""

from __future__ import annotations

from conchrec.access.closed_options import ClosedOption, find_closed_option
from conchrec.access.options import SessionOptions
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode

#: Kinds by the type of a channel that the user opens.
DIRECT = {b"direct-tcpip": "direct", b"direct-streamlocal@openssh.com": "streamlocal-direct"}
#: Kinds by the type of a channel that the target opens.
FORWARDED = {
    b"forwarded-tcpip": "forwarded",
    b"forwarded-streamlocal@openssh.com": "streamlocal-forwarded",
}
#: Kinds by the name of a global request for a remote forward.
LISTEN = {b"tcpip-forward": "remote", b"streamlocal-forward@openssh.com": "streamlocal-remote"}
#: Kinds by the name of a global request that ends a remote forward.
CANCEL = {
    b"cancel-tcpip-forward": "remote",
    b"cancel-streamlocal-forward@openssh.com": "streamlocal-remote",
}
#: The option that allows each kind.
OPTION = {
    "direct": "local_forwarding",
    "streamlocal-direct": "streamlocal_forwarding",
    "remote": "remote_forwarding",
    "forwarded": "remote_forwarding",
    "streamlocal-remote": "streamlocal_forwarding",
    "streamlocal-forwarded": "streamlocal_forwarding",
}
NOT_ALLOWED = Reason(ReasonCode.FORWARD_NOT_ALLOWED, "the role does not allow this forward")


class ForwardRules:
    """The current rules for the forwards of one inner connection."""

    __slots__ = ("_access",)

    def __init__(self, access: TargetAccess) -> None:
        self._access = access

    @property
    def options(self) -> SessionOptions:
        """The combined options of the user's roles."""
        return self._access.session_options

    def allows(self, kind: str) -> bool:
        """Whether forwards of this kind are allowed."""
        return bool(getattr(self.options, OPTION[kind]))

    def find_closed_option(self, kind: str) -> ClosedOption:
        """Return the rule that forbids this kind."""
        return find_closed_option(self._access.roles, OPTION[kind])
