"""Runs coroutines so that an error leaves no garbage."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from conchrec.errors import ConchrecError, without_traceback

T = TypeVar("T")


def run_coroutine(coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Run a coroutine. An expected error in the result has no traceback; one of a bug has it, for the log.

    In Twisted the frames of a coroutine refer to the error (see ``without_traceback``).
    """
    return Deferred.fromCoroutine(coroutine).addErrback(_clean)


def _clean(failure: Failure) -> Failure:
    error = failure.value
    if isinstance(error, (ConchrecError, CancelledError, ConnectionLost)):
        without_traceback(error)
        failure.cleanFailure()
    return failure
