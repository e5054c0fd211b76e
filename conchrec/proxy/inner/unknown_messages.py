"""Audits the requests and channel types that no specification known to conchrec defines."""

from __future__ import annotations

import hashlib

from conchrec.audit import events
from conchrec.text import one_line

#: The longest name or path from outside that an audit event shows, in characters.
SHOWN_LENGTH = 255


def shown_text(data: bytes) -> str:
    """Return a name or a path from outside as the audit shows it."""
    return one_line(data, SHOWN_LENGTH)


def unknown_request(
    who: events.Who, name: bytes, data: bytes, *, sender: str, scope: str = "channel", what: str = ""
) -> events.UnknownRequest:
    """Return the event about an unknown request of the ``sender`` (user or target).

    ``scope`` is channel or global. ``what`` precedes the name if the event is not about the request itself.
    """
    return events.UnknownRequest(
        **who,
        request=what + shown_text(name),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        scope=scope,
        sender=sender,
    )


def unknown_channel(who: events.Who, kind: bytes, size: int, *, sender: str) -> events.UnknownRequest:
    """Return the event about a request to open a channel of an unknown type; it is always refused."""
    return events.UnknownRequest(
        **who, request=f"open {shown_text(kind)}", size=size, scope="channel", sender=sender
    )
