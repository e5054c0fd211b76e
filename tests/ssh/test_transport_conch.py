"""What we take from Conch's transports, and what of theirs must never run: a new Twisted shows here first."""

from __future__ import annotations

import inspect

import pytest
from twisted.conch.ssh import transport as conch
from twisted.internet.protocol import Protocol

from conchrec.ssh.transport import ClientTransport, ServerTransport

OURS = (ServerTransport, ClientTransport)
THEIRS = (conch.SSHTransportBase, conch.SSHServerTransport, conch.SSHClientTransport)

USED = {
    # How they are made and told apart: by Twisted, by services, by factories.
    "isClient",
    "service",
    "makeConnection",
    "transport",
}
"""Inherited, and used by us."""

REPLACED = {
    "connectionMade",
    "connectionLost",
    "dataReceived",
    "dispatchMessage",
    "getHost",
    "getPeer",
    "loseConnection",
    "sendDisconnect",
    "sendPacket",
    "sendUnimplemented",
    "setService",
}
"""Ours has to come first: whoever calls these gets our way of doing it."""

HARMLESS = {
    # Both end in sendPacket, which is ours.
    "sendDebug",
    "sendIgnore",
}

UNREACHABLE = {
    # Called by methods that are replaced, and by nobody else.
    "_allowedKeyExchangeMessageType",
    "_continueGEX_REPLY",
    "_continueKEXDH_REPLY",
    "_encodeECPublicKey",
    "_finishEphemeralDH",
    "_generateECPrivateKey",
    "_generateECSharedSecret",
    "_getHostKeys",
    "_getKey",
    "_keySetup",
    "_newKeys",
    "_ssh_KEXDH_INIT",
    "_ssh_KEXDH_REPLY",
    "_ssh_KEX_ECDH_INIT",
    "_ssh_KEX_ECDH_REPLY",
    "_ssh_KEX_HYBRID_INIT",
    "_startEphemeralDH",
    "_unsupportedVersionReceived",
    "connectionSecure",
    "getPacket",
    "isEncrypted",
    "isVerified",
    "kexAlg",
    "receiveDebug",
    "receiveError",
    "receiveUnimplemented",
    "requestService",
    "sendExtInfo",
    "sendKexInit",
    "verifyHostKey",
}


def methods(*classes: type) -> set[str]:
    """Of these classes themselves, without what they inherit; messages by their own table aside."""
    found = {
        name
        for one in classes
        for name, value in vars(one).items()
        if callable(value) or isinstance(value, (property, staticmethod, classmethod))
    }
    return {name for name in found if not name.startswith(("__", "ssh_"))}


def test_nothing_new_at_conchs() -> None:
    """A method that is in none of the lists may be a new way in: put it into one, or replace it."""
    known = REPLACED | HARMLESS | UNREACHABLE
    assert methods(*THEIRS) - known == set()


@pytest.mark.parametrize("name", sorted(REPLACED))
@pytest.mark.parametrize("ours", OURS)
def test_what_is_replaced(ours: type, name: str) -> None:
    """It is there at Conch's, under this name and with these arguments; and ours is the one that is found."""
    theirs = getattr(conch.SSHTransportBase, name)
    found = getattr(ours, name)
    assert found.__module__.startswith("conchrec.")
    assert list(inspect.signature(found).parameters) == list(inspect.signature(theirs).parameters)


@pytest.mark.parametrize("ours", OURS)
def test_conchs_own_messages_are_never_dispatched(ours: type) -> None:
    """Its handlers are still there, as ``ssh_…``; dispatchMessage is ours and does not look for them."""
    assert [name for name in dir(ours) if name.startswith("ssh_")]
    names = {
        name
        for one in ours.__mro__
        if one.__module__.startswith("conchrec.")
        for value in vars(one).values()
        if inspect.isfunction(value)
        for name in (*value.__code__.co_names, *value.__code__.co_consts)
        if isinstance(name, str)
    }
    assert not [name for name in names if name.startswith("ssh_")]
    assert not names & (UNREACHABLE - {"_getKey"})


def test_what_is_used() -> None:
    assert issubclass(ServerTransport, conch.SSHServerTransport)
    assert issubclass(ClientTransport, conch.SSHClientTransport)
    assert issubclass(conch.SSHTransportBase, Protocol)
    assert (ServerTransport.isClient, ClientTransport.isClient) == (False, True)
    assert conch.SSHTransportBase.service is None
    for name in USED:
        assert hasattr(conch.SSHTransportBase, name), name


@pytest.mark.parametrize("ours", OURS)
def test_nothing_of_ours_hides_something_of_conchs_by_accident(ours: type) -> None:
    """Names that both have are those of the list."""
    mine = {
        name
        for one in ours.__mro__
        if one.__module__.startswith("conchrec.")
        for name in vars(one)
        if not name.startswith("__")
    }
    theirs = {name for one in THEIRS for name in vars(one) if not name.startswith("__")}
    assert mine & theirs - {"isClient", "service", "transport"} <= REPLACED
