"""Errors that are kept lose their tracebacks, however they refer to each other."""

from __future__ import annotations

from contextlib import suppress

from conchrec.errors import without_traceback


def _raise(error: Exception, cause: Exception | None = None) -> None:
    """Give ``error`` a traceback."""
    with suppress(type(error)):
        raise error from cause


def test_removes_tracebacks_of_cause_and_context() -> None:
    kept, cause, context = ValueError("kept"), OSError("cause"), KeyError("context")
    _raise(context)
    cause.__context__ = context
    _raise(cause)
    _raise(kept, cause)
    errors = (kept, cause, context)
    assert None not in [error.__traceback__ for error in errors]
    assert without_traceback(kept) is kept
    assert [error.__traceback__ for error in errors] == [None] * 3


def test_ends_at_cause_of_itself() -> None:
    """A kept error that is raised again, because of an error that it caused."""
    kept, caused = ValueError("kept"), KeyError("caused")
    _raise(caused, kept)
    _raise(kept, caused)
    without_traceback(kept)
    assert [kept.__traceback__, caused.__traceback__] == [None, None]
