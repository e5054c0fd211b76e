"""Host patterns of the configuration, and which hosts they match. Pure: no resolver, no clock.

A host pattern is a name with ``*`` and ``?``, an address, a network, or ``*`` alone (any host), each
with a port or for every port: ``*.example.com``, ``db1:2222``, ``10.0.0.0/8``, ``[fd00::/8]:22``.
Name patterns are compared with names and networks with addresses, never one with the other: an attacker can
register any name in the DNS, and ``10.0.*`` would match ``10.0.evil.example``.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from conchrec.model import Target

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_NAME = 253

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NAME_PATTERN = re.compile(r"[a-z0-9_*?.-]+")
# inet_aton parses these as addresses: 127.1, 2130706433, 0x7f000001, 0177.0.0.1
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NUMBERS_AND_STARS = re.compile(r"[0-9.*?]*[0-9][0-9.*?]*")
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
#: Their last 32 bits are an address of IPv4: RFC 6052 2.1; RFC 8215 (a gateway may also use other bits); RFC
#: 4291 2.5.5.1; RFC 2765 2.1.
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")))
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
#: RFC 5214 6.1: what stands before the IPv4 address in the interface's half.
_ISATAP = (0x00005EFE, 0x02005EFE)


def address_of(text: str) -> IPAddress | None:
    """The address in ``text``; None where it is not one.

    An IPv4-mapped IPv6 address (``::ffff:127.0.0.1``) is the IPv4 address; a scope (``fe80::1%eth0``) is
    removed.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def seen_through(address: IPAddress) -> tuple[IPAddress, ...]:
    """The address, and each IPv4 address that a gateway or a tunnel may forward its packets to."""
    if not isinstance(address, ipaddress.IPv6Address):
        return (address,)
    bits = int(address)
    numbers = [bits & 0xFFFFFFFF] if any(address in network for network in _EMBEDDING) else []
    if address in _LOCAL_NAT64:
        # RFC 6052 2.2, for a prefix of 48 bits, of 56 and of 64: the bits 64 to 71 are not part of it.
        without = (bits >> 64 << 56) | (bits & (1 << 56) - 1)
        numbers += [without >> shift & 0xFFFFFFFF for shift in (40, 32, 24)]
    if bits >> 32 & 0xFFFFFFFF in _ISATAP:
        numbers.append(bits & 0xFFFFFFFF)
    embedded = [ipaddress.IPv4Address(number) for number in numbers]
    if address.sixtofour is not None:
        embedded.append(address.sixtofour)
    if address.teredo is not None:
        embedded += address.teredo
    return (address, *dict.fromkeys(embedded))


def is_within(address: IPAddress, network: IPNetwork) -> bool:
    """Whether the network contains the address; False for different versions of IP."""
    return address.version == network.version and address in network


def parse_network(text: str) -> IPNetwork:
    """An address or a network. Raises ValueError, whose text is for the administrator."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            proper = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(
                f"invalid network {text!r}: must be an IP address or a network, like 10.0.0.0/8"
            ) from None
        raise ValueError(
            f"invalid network {text!r}: it is an address in a network; the network is {proper}"
        ) from None
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


class NotAHost(ValueError):
    """The text is not a name or address that a user may request; the text of the error says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetAddress:
    """A resolved target: its name (empty where an address was requested), addresses and port.

    ``addresses`` has each address with the spelling of the resolver.
    """

    name: str
    addresses: tuple[tuple[str, IPAddress], ...]
    port: int


def resolved_target(target: Target, addresses: Sequence[str]) -> TargetAddress:
    """The target with ``addresses``, which getaddrinfo returned for its host.

    Addresses that cannot be a host are removed (``0.0.0.0`` is this machine by another name). Raises
    NotAHost: where no address is left; for a name with characters that resolvers fold into others; for a
    number that resolvers parse as an address.
    """
    return _resolve(target, tuple(addresses))


@lru_cache(maxsize=1024)
def _resolve(target: Target, addresses: tuple[str, ...]) -> TargetAddress:
    # Cached: one login calls this nineteen times.
    host = target.host.lower().removesuffix(".")
    literal = address_of(host)
    resolved = (target.host, *addresses) if literal is not None else addresses
    usable: dict[IPAddress, str] = {}
    for text in resolved:
        address = address_of(text)
        if address is not None and not _is_this_machine(address):
            usable.setdefault(address, text)
    if (resolved and not usable) or (literal is not None and _is_this_machine(literal)):
        raise NotAHost("invalid address: not the address of a host")
    if literal is not None:
        host = ""
    elif len(host) > LONGEST_NAME or not target.host.isascii() or not _NAME.fullmatch(host):
        raise NotAHost(
            "invalid host name: use letters, digits, hyphens and dots; the xn--… form for other letters"
        )
    elif _NUMBER.fullmatch(host.rpartition(".")[2]):
        raise NotAHost("invalid address: write it in full, like 127.0.0.1")
    return TargetAddress(
        name=host, addresses=tuple((text, ip) for ip, text in usable.items()), port=target.port
    )


def _is_this_machine(address: IPAddress) -> bool:
    return address.is_unspecified or is_within(address, _THIS_NETWORK)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPattern:
    """One entry of ``hosts``. Without ``network`` and ``name`` it matches any host.

    ``text`` is the entry as written, ``line`` its line in the file (0: in no file); ``by`` is the group of
    targets or label that stands for it in the file.
    """

    text: str
    port: int | None = None
    network: IPNetwork | None = None
    name: re.Pattern[str] | None = None
    line: int = field(default=0, compare=False)
    by: str = field(default="", compare=False)

    def __str__(self) -> str:
        """``web1``, ``web1 (group:web)``"""
        return f"{self.text} ({self.by})" if self.by else self.text

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """The pattern that ``text`` is. Raises ValueError, whose text is for the administrator."""
        host, port = _split(text.strip())
        host = host.lower().removesuffix(".") if host != "*." else ""
        if host == "*":
            return cls(text=text, port=port)
        if "/" in host or address_of(host) is not None:
            return cls(text=text, port=port, network=parse_network(host))
        if not host or not _NAME_PATTERN.fullmatch(host):
            raise ValueError(
                f"invalid host pattern {text!r}: write it like *.example.com, 10.0.0.0/8, db1:2222 or"
                " [fd00::1]:22"
            )
        if "." in host and _NUMBERS_AND_STARS.fullmatch(host):
            raise ValueError(
                f"invalid host pattern {text!r}: it would also match names; write a network, like 10.0.0.0/8"
            )
        if _NUMBER.fullmatch(host.rpartition(".")[2]):
            raise ValueError(f"invalid host pattern {text!r}: write an address in full, like 127.0.0.1")
        return cls(text=text, port=port, name=re.compile(fnmatch.translate(host)))

    def names(self, target: TargetAddress) -> bool:
        """Whether it matches the name and the port of the target."""
        if not self._has_port(target) or self.network is not None:
            return False
        return self.name is None or bool(target.name and self.name.match(target.name))

    def covers(self, address: IPAddress, target: TargetAddress) -> bool:
        """Whether it matches this address and the port of the target."""
        return self._has_port(target) and self.network is not None and is_within(address, self.network)

    def _has_port(self, target: TargetAddress) -> bool:
        return self.port is None or self.port == target.port


def _split(text: str) -> tuple[str, int | None]:
    """``host``, ``host:port``, ``[v6]``, ``[v6]:port``, and IPv6 without brackets, which has no port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise ValueError(f"invalid host pattern {text!r}: write IPv6 addresses like [fd00::1]:22")
        return host, _port(text, rest[1:]) if rest else None
    if text.count(":") != 1:
        return text, None
    host, _, port = text.partition(":")
    return host, _port(text, port)


def _port(text: str, port: str) -> int | None:
    if port == "*":
        return None
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"invalid host pattern {text!r}: the port must be from 1 to 65535")
    return int(port)
