"""The families of errors. Each has a ``public`` text for the user and private detail for the log.

Only ``proxy/refusal.py`` turns one of these into SSH codes.
"""

from __future__ import annotations


class ConchrecError(Exception):
    """Anything that conchrec itself refuses or fails at.

    ``public`` is one line that says what happened and what to do; the user may read it.
    ``detail`` is for the log alone.
    """

    def __init__(self, public: str, detail: str = "") -> None:
        super().__init__(public)
        self.public = public
        self.detail = detail


class ConfigError(ConchrecError):
    """The start is refused. ``path`` is the setting (``roles.ops.hosts[2]``), ``line`` counts from 1."""

    def __init__(self, path: str, problem: str, line: int | None = None) -> None:
        where = f"line {line}: " if line else ""
        super().__init__(f"{where}{path}: {problem}" if path else f"{where}{problem}")
        self.path = path
        self.problem = problem
        self.line = line


class AccessDenied(ConchrecError):
    """The policy, or a credential, says no. ``rule`` names what said it."""

    def __init__(self, public: str, detail: str = "", rule: str = "") -> None:
        super().__init__(public, detail)
        self.rule = rule


class CertificateRejected(AccessDenied):
    """A certificate is not good for what it was shown for."""


class UpstreamError(ConchrecError):
    """The target could not be reached, or would not have us."""


class Unreachable(UpstreamError):
    """No TCP connection, no SSH banner, or no key exchange within the connect timeout."""


class Busy(UpstreamError):
    """The target drops handshakes, or says that it does not want them now."""


class HostKeyRejected(UpstreamError):
    """The target's host key or certificate is not one that we trust."""


class LoginRejected(UpstreamError):
    """The target refused every credential that there was."""


class RecordingError(ConchrecError):
    """What happens cannot be recorded."""


class SpoolFull(RecordingError):
    """No room on the disk, or less than the configuration keeps free."""


class WriteFailed(RecordingError):
    """The recording (or the audit log) can not be opened or written."""


class ProtocolViolation(ConchrecError):
    """A message that the protocol does not allow here."""


class RemoteViolation(ProtocolViolation):
    """Theirs: answered with DISCONNECT_PROTOCOL_ERROR."""


class LocalViolation(ProtocolViolation):
    """Ours: a bug in conchrec."""
