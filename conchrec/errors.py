"""The error classes. Each error has a ``public`` text for the user and private detail for the log.

``proxy/refusals.py`` translates most of them into SSH codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, TypeVar

from conchrec.reasons import Reason, ReasonCode

E = TypeVar("E", bound=BaseException)


def without_traceback(error: E) -> E:
    """Remove the tracebacks of ``error`` and of its causes, and return it. For an error that is kept.

    A traceback refers to its frames, these to all that was at work, and that often to the error again.
    Nothing of it would be freed before a full garbage collection.
    """
    # An error that is raised twice may be a cause of its own cause.
    seen: set[int] = set()
    causes: list[BaseException | None] = [error]
    while causes:
        cause = causes.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            cause.__traceback__ = None
            causes += (cause.__cause__, cause.__context__)
    return error


class ConchrecError(Exception):
    """The base class of all errors of conchrec.

    ``public`` is one line that says what failed and what to do, for the user. ``detail`` is for the log only.
    ``code`` is a stable word for the reason: the argument, else the code of ``public``, else that of the
    class.
    """

    default_code: ClassVar[ReasonCode] = ReasonCode.INTERNAL_ERROR

    def __init__(self, public: str, detail: str = "", *, code: ReasonCode | None = None) -> None:
        super().__init__(public)
        given = public.code if isinstance(public, Reason) else self.default_code
        self.public = Reason(code or given, public)
        self.detail = detail

    @property
    def code(self) -> ReasonCode:
        """The stable word for the reason."""
        return self.public.code


class ConfigError(ConchrecError):
    """The configuration or the state directory has an error.

    ``path`` is the setting (``roles.ops.hosts[2]``) or an option; ``line`` counts from 1.
    """

    default_code = ReasonCode.INVALID_CONFIGURATION

    def __init__(self, path: str, problem: str, line: int | None = None) -> None:
        where = f"line {line}: " if line else ""
        super().__init__(f"{where}{path}: {problem}" if path else f"{where}{problem}")
        self.path = path
        self.problem = problem
        self.line = line


class ConfigErrors(ConchrecError):
    """A configuration file is invalid. ``errors`` are all its problems, sorted by line."""

    default_code = ReasonCode.INVALID_CONFIGURATION

    def __init__(self, file: str, errors: Iterable[ConfigError]) -> None:
        """``file`` is its path, for people."""
        self.file = file
        self.errors = tuple(sorted(errors, key=lambda error: (error.line or 0, error.path)))
        count = f"{len(self.errors)} problem{'' if len(self.errors) == 1 else 's'}"
        super().__init__(f"{count} in {file}", "\n".join(self.lines()))

    def lines(self) -> Iterator[str]:
        """One line for each problem, as compilers write them: ``config.yaml:12: roles.ops.hosts[2]: …``."""
        for error in self.errors:
            where = self.file if error.line is None else f"{self.file}:{error.line}"
            yield f"{where}: {error.path}: {error.problem}" if error.path else f"{where}: {error.problem}"

    def __str__(self) -> str:
        return "\n".join(self.lines())


class AccessDenied(ConchrecError):
    """The policy denies access, or a credential is rejected. ``rule`` names the rule."""

    default_code = ReasonCode.PERMISSION_DENIED

    def __init__(
        self, public: str, detail: str = "", rule: str = "", *, code: ReasonCode | None = None
    ) -> None:
        super().__init__(public, detail, code=code)
        self.rule = rule


class CertificateRejected(AccessDenied):
    """A certificate is not valid for its use."""

    default_code = ReasonCode.CERTIFICATE_REJECTED


class UpstreamError(ConchrecError):
    """The target could not be reached, or rejected the connection or login."""

    default_code = ReasonCode.TARGET_FAILED


class Unreachable(UpstreamError):
    """No TCP connection, no identification string, or no key exchange within the connect timeout."""

    default_code = ReasonCode.UNREACHABLE


class Busy(UpstreamError):
    """The target drops new connections because there are too many."""

    default_code = ReasonCode.TARGET_BUSY


class HostKeyRejected(UpstreamError):
    """The target's host key or host certificate is not trusted."""

    default_code = ReasonCode.HOST_KEY_REJECTED


class LoginRejected(UpstreamError):
    """The target rejected every credential."""

    default_code = ReasonCode.LOGIN_REJECTED


class RecordingError(ConchrecError):
    """A session cannot be recorded, or a recording cannot be read."""

    default_code = ReasonCode.RECORDING_FAILED


class SpoolFull(RecordingError):
    """The disk is full, or has less free space than the configuration requires."""

    default_code = ReasonCode.DISK_FULL


class WriteFailed(RecordingError):
    """The recording, or the audit log, cannot be opened or written."""

    default_code = ReasonCode.WRITE_FAILED


class RemoteViolation(ConchrecError):
    """A message of the peer that the protocol does not allow here: answered with PROTOCOL_ERROR."""

    default_code = ReasonCode.PROTOCOL_ERROR


class LocalViolation(Exception):
    """A step of conchrec that its own state does not allow: a bug.

    It has no text for users, so it is not a ConchrecError: as every unexpected exception, it is logged where
    it is caught, and the peer gets ``reasons.INTERNAL_ERROR``.
    """


def error_text(error: Exception) -> str:
    """Return the text of an error for a person: of an OSError without its number and its file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
