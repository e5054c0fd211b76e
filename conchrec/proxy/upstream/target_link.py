"""The transport of one connection to a target, its place in the gate, and its pauses."""

from __future__ import annotations

from collections.abc import Sequence

from conchrec.clock import Clock
from conchrec.proxy.dial.dialer import Link
from conchrec.ssh.backpressure import change_reasons
from conchrec.ssh.transport import ClientTransport

#: After how many seconds a link is closed that was made for the identification string and has no login.
UNUSED_SECONDS = 10.0


class TargetLink:
    """The link of one connection to a target, which may exist before the login is named.

    ``brake`` may be called before there is a link.
    """

    __slots__ = (
        "_brakes", "_unused", "link",
    )  # fmt: skip

    def __init__(self, clock: Clock, link: Link | None) -> None:
        self.link = link
        self._brakes: tuple[str, ...] = ()
        self._unused = clock.callLater(UNUSED_SECONDS, self.drop) if link is not None else None

    @property
    def transport(self) -> ClientTransport | None:
        """The SSH transport to the target; None without a link."""
        return self.link.transport if self.link is not None else None

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read from the target now."""
        return bool(self._brakes)

    def use(self) -> None:
        """Keep the link: a login will use it."""
        if self._unused is not None and self._unused.active():
            self._unused.cancel()

    def usable(self, addresses: Sequence[str]) -> Link | None:
        """The link, if it is alive and at one of these addresses; another one is dropped."""
        link = self.link
        if link is not None and (link.transport.lost is not None or link.address not in addresses):
            self.drop()
        return self.link

    def set(self, link: Link) -> None:
        """Use this link from now on."""
        self.link = link

    def drop(self) -> None:
        """Close the link."""
        self._unused = None
        link, self.link = self.link, None
        if link is not None:
            link.drop()

    def brake(self, reason: str, on: bool) -> None:
        """Read nothing from the target while there is a reason not to."""
        self._brakes = change_reasons(self._brakes, reason, on)
        if self.transport is not None:
            self.transport.brake(reason, on)

    def apply_brakes(self) -> None:
        """Pause a new transport for the reasons that exist already."""
        if self.transport is not None:
            for reason in self._brakes:
                self.transport.brake(reason, True)
