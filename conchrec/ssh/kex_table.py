"""The state table of key exchanges: phase and event give an action (RFC 4253 section 7).

Either side may start an exchange at any time, and both may start at once. Our side has these phases:

============  ============================================================  ==============================
phase         what was sent and received                                    our other messages
============  ============================================================  ==============================
INITIAL       nothing                                                       wait
IDLE          no exchange is in progress                                    are sent under the current keys
PAUSED        the peer's KEXINIT, which waits: the peer starts too many     are sent under the current keys
PROPOSED      our KEXINIT was sent                                          wait
AGREED        both KEXINITs; the method's messages follow (30 to 49)        wait
FIRST_KEYS    our first NEWKEYS was sent, the peer's is expected            wait: the peer confirms the keys
NEW_KEYS      our NEWKEYS was sent, the peer's is expected                  are sent under the new keys
============  ============================================================  ==============================

In the phase PAUSED, and while the method computes, the transport handles no message of the peer.

==========  =======  =======  =======  ========  ======  ============  ========
event       INITIAL  IDLE     PAUSED   PROPOSED  AGREED  FIRST_KEYS    NEW_KEYS
==========  =======  =======  =======  ========  ======  ============  ========
BEGIN       propose  propose  propose  ignore    ignore  ignore        ignore
KEXINIT     accept   charge   refuse   agree     refuse  refuse        refuse
PAUSE_OVER  never    never    accept   agree     never   never         never
METHOD      refuse   refuse   refuse   refuse    answer  refuse        refuse
SIGNED      never    never    never    never     switch  never         never
NEWKEYS     refuse   refuse   refuse   refuse    refuse  finish first  finish
MESSAGE     wait     send     send     wait      wait    wait          send
==========  =======  =======  =======  ========  ======  ============  ========

Pure: no transport, no clock.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class ExchangePhase(enum.Enum):
    """The phase of our part of a key exchange."""

    INITIAL = "nothing was sent yet"
    IDLE = "no exchange is in progress"
    PAUSED = "the peer's KEXINIT waits"
    PROPOSED = "our KEXINIT was sent"
    AGREED = "both KEXINITs were exchanged"
    FIRST_KEYS = "our first NEWKEYS was sent"
    NEW_KEYS = "our NEWKEYS was sent"


class KexEvent(enum.Enum):
    """An event of a key exchange."""

    BEGIN = "we want new keys"
    KEXINIT = "the peer's KEXINIT"
    PAUSE_OVER = "the peer has paused long enough"
    METHOD = "a message of the method, 30 to 49"
    SIGNED = "the host key has signed the exchange: the keys are known"
    NEWKEYS = "the peer's NEWKEYS"
    MESSAGE = "one of our messages that is not part of the exchange"


class KexAction(enum.Enum):
    """What an event causes, and the phase that follows."""

    PROPOSE = "send our KEXINIT: PROPOSED"
    ACCEPT = "send our KEXINIT and agree on algorithms: AGREED"
    CHARGE = "charge the peer for the exchange, then accept it, at once or after a pause: AGREED or PAUSED"
    AGREE = "agree on algorithms: AGREED"
    ANSWER = "hand the message to the method"
    SWITCH = "send NEWKEYS, and all that follows under the new keys: FIRST_KEYS or NEW_KEYS"
    FINISH_FIRST = "read the rest under the new keys, and send what waits: IDLE"
    FINISH = "read the rest under the new keys: IDLE"
    SEND = "send it now"
    WAIT = "send it under the new keys"
    IGNORE = "do nothing"
    REFUSE = "end the connection: a protocol violation"
    NEVER = "this cannot happen"


Table = Mapping[tuple[ExchangePhase, KexEvent], KexAction]


def _table(rows: Mapping[KexEvent, tuple[KexAction, ...]]) -> Table:
    """Return the table for rows with one action for each phase."""
    return {
        (phase, event): action
        for event, actions in rows.items()
        for phase, action in zip(ExchangePhase, actions, strict=True)
    }


_P, _I, _R, _N, _W, _S = (
    KexAction.PROPOSE,
    KexAction.IGNORE,
    KexAction.REFUSE,
    KexAction.NEVER,
    KexAction.WAIT,
    KexAction.SEND,
)

TABLE = _table(
    {
        KexEvent.BEGIN: (_P, _P, _P, _I, _I, _I, _I),
        KexEvent.KEXINIT: (KexAction.ACCEPT, KexAction.CHARGE, _R, KexAction.AGREE, _R, _R, _R),
        KexEvent.PAUSE_OVER: (_N, _N, KexAction.ACCEPT, KexAction.AGREE, _N, _N, _N),
        KexEvent.METHOD: (_R, _R, _R, _R, KexAction.ANSWER, _R, _R),
        KexEvent.SIGNED: (_N, _N, _N, _N, KexAction.SWITCH, _N, _N),
        KexEvent.NEWKEYS: (_R, _R, _R, _R, _R, KexAction.FINISH_FIRST, KexAction.FINISH),
        KexEvent.MESSAGE: (_W, _S, _S, _W, _W, _W, _S),
    }
)
