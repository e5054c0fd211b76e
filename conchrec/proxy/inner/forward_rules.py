"""Which forwards the roles allow, by the kinds that the audit names."""

from __future__ import annotations

import hashlib

from conchrec.access.options import SessionOptions
from conchrec.access.policy import Shut, shut_by
from conchrec.audit import events
from conchrec.proxy.target_access import TargetAccess
from conchrec.reasons import Reason, ReasonCode
from conchrec.ssh import messages as m
from conchrec.text import one_line

DIRECT = {b"direct-tcpip": "direct", b"direct-streamlocal@openssh.com": "streamlocal-direct"}
FORWARDED = {
    b"forwarded-tcpip": "forwarded",
    b"forwarded-streamlocal@openssh.com": "streamlocal-forwarded",
}
LISTEN = {b"tcpip-forward": "remote", b"streamlocal-forward@openssh.com": "streamlocal-remote"}
CANCEL = {
    b"cancel-tcpip-forward": "remote",
    b"cancel-streamlocal-forward@openssh.com": "streamlocal-remote",
}
#: Which option allows each kind.
SWITCH = {
    "direct": "local_forwarding",
    "streamlocal-direct": "streamlocal_forwarding",
    "remote": "remote_forwarding",
    "forwarded": "remote_forwarding",
    "streamlocal-remote": "streamlocal_forwarding",
    "streamlocal-forwarded": "streamlocal_forwarding",
}
NOT_ALLOWED = Reason(ReasonCode.FORWARD_NOT_ALLOWED, "the role does not allow this forward")


class ForwardRules:
    """The rules for the forwards of one inner connection, as they are now."""

    __slots__ = ("_access",)

    def __init__(self, access: TargetAccess) -> None:
        self._access = access

    @property
    def options(self) -> SessionOptions:
        """The options of the roles, together."""
        return self._access.session_options

    def may(self, kind: str) -> bool:
        """Forwards of this kind are allowed."""
        return bool(getattr(self.options, SWITCH[kind]))

    def shut_by(self, kind: str) -> Shut:
        """The rule that forbids this kind."""
        return shut_by(self._access.roles, SWITCH[kind])


def shown(data: bytes) -> str:
    """A name or a path from outside, for the audit."""
    return one_line(data, 255)


def dropped_event(
    access: TargetAccess, message: int, data: bytes, reason: str, sender: str
) -> events.MessageDropped:
    """``data`` of a message of the ``sender`` (user or target) was not relayed."""
    return events.MessageDropped(
        **access.who(),
        message=m.NAMES[message],
        reason=one_line(reason),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        sender=sender,
    )
