"""The families of errors. Each has a ``public`` text for the user and private detail for the log.

Only ``proxy/refusal.py`` turns one of these into SSH codes.
"""

from __future__ import annotations

from typing import ClassVar

from conchrec.reasons import Reason, ReasonCode


class ConchrecError(Exception):
    """Anything that conchrec itself refuses or fails at.

    ``public`` is one line that says what happened and what to do; the user may read it.
    ``detail`` is for the log alone. ``code`` says the same in one stable word: the one that is given, that of
    a ``public`` that has one, or that of the class.
    """

    default_code: ClassVar[ReasonCode] = ReasonCode.INTERNAL_ERROR

    def __init__(self, public: str, detail: str = "", *, code: ReasonCode | None = None) -> None:
        super().__init__(public)
        given = public.code if isinstance(public, Reason) else self.default_code
        self.public = Reason(code or given, public)
        self.detail = detail

    @property
    def code(self) -> ReasonCode:
        return self.public.code


class ConfigError(ConchrecError):
    """The start is refused. ``path`` is the setting (``roles.ops.hosts[2]``), ``line`` counts from 1."""

    default_code = ReasonCode.INVALID_CONFIGURATION

    def __init__(self, path: str, problem: str, line: int | None = None) -> None:
        where = f"line {line}: " if line else ""
        super().__init__(f"{where}{path}: {problem}" if path else f"{where}{problem}")
        self.path = path
        self.problem = problem
        self.line = line


class AccessDenied(ConchrecError):
    """The policy, or a credential, says no. ``rule`` names what said it."""

    default_code = ReasonCode.PERMISSION_DENIED

    def __init__(
        self, public: str, detail: str = "", rule: str = "", *, code: ReasonCode | None = None
    ) -> None:
        super().__init__(public, detail, code=code)
        self.rule = rule


class CertificateRejected(AccessDenied):
    """A certificate is not good for what it was shown for."""

    default_code = ReasonCode.CERTIFICATE_REJECTED


class UpstreamError(ConchrecError):
    """The target could not be reached, or rejected the connection or login."""

    default_code = ReasonCode.TARGET_FAILED


class Unreachable(UpstreamError):
    """No TCP connection, no SSH banner, or no key exchange within the connect timeout."""

    default_code = ReasonCode.UNREACHABLE


class Busy(UpstreamError):
    """The target drops handshakes, or says that it does not want them now."""

    default_code = ReasonCode.TARGET_BUSY


class HostKeyRejected(UpstreamError):
    """The target's host key or certificate is not one that we trust."""

    default_code = ReasonCode.HOST_KEY_REJECTED


class LoginRejected(UpstreamError):
    """The target refused every credential that there was."""

    default_code = ReasonCode.LOGIN_REJECTED


class RecordingError(ConchrecError):
    """What happens cannot be recorded."""

    default_code = ReasonCode.RECORDING_FAILED


class SpoolFull(RecordingError):
    """No room on the disk, or less than the configuration keeps free."""

    default_code = ReasonCode.DISK_FULL


class WriteFailed(RecordingError):
    """The recording (or the audit log) cannot be opened or written."""

    default_code = ReasonCode.WRITE_FAILED


class ProtocolViolation(ConchrecError):
    """A message that the protocol does not allow here."""

    default_code = ReasonCode.PROTOCOL_ERROR


class RemoteViolation(ProtocolViolation):
    """Theirs: answered with a DISCONNECT for PROTOCOL_ERROR."""


class LocalViolation(ProtocolViolation):
    """Ours: a bug in conchrec."""


def error_text(error: Exception) -> str:
    """Return the text of an error for a person: of an OSError without its number and its file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
