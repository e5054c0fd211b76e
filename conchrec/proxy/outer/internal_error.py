"""Exceptions in channels of the outer connection that are not errors of ours."""

from __future__ import annotations

from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.errors import ConchrecError
from conchrec.reasons import ReasonCode

_log = Logger()


def as_error(failure: Failure) -> ConchrecError:
    """The error of a failure; any exception that is not ours is logged and becomes an internal error."""
    error = failure.value
    if isinstance(error, ConchrecError):
        return error
    _log.failure("internal error in a channel of the outer connection", failure=failure)
    return ConchrecError(
        "internal error in the proxy. Ask your administrator to check the log of the proxy",
        code=ReasonCode.INTERNAL_ERROR,
    )
