"""Builds the Settings that connections use from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from conchrec.access.credentials import Credentials
from conchrec.access.lock_file import Locks
from conchrec.access.passwords import Passwords
from conchrec.access.rate_limit import Guesses
from conchrec.ca.authority import Authority, CaKind
from conchrec.clock import Clock
from conchrec.config.model import Config, Offer
from conchrec.proxy.context import Settings
from conchrec.proxy.password_login import PasswordLogin
from conchrec.service.pools import Pools
from conchrec.service.process import knows_aes
from conchrec.ssh.algorithms import AES_GCM, COMPATIBLE, MODERN, Algorithms


def offered(offer: Offer, *, aes: bool) -> Algorithms:
    """The algorithms that our servers offer. ``aes``: the processor has instructions for AES."""
    algorithms = COMPATIBLE if offer is Offer.COMPATIBLE else MODERN
    return replace(algorithms, preferred_ciphers=AES_GCM) if aes else algorithms


class SettingsBuilder:
    """Builds Settings at the start and at each reload.

    ``current`` returns the settings in effect: objects that are built here use these, not those with which
    they were built.
    """

    def __init__(
        self,
        authority: Authority,
        locks: Locks,
        pools: Pools,
        clock: Clock,
        now: Callable[[], datetime],
        current: Callable[[], Settings],
    ) -> None:
        self._authority = authority
        self._locks = locks
        self._pools = pools
        self._clock = clock
        self._now = now
        self._current = current
        self._guesses: Guesses | None = None

    def build(self, config: Config) -> Settings:
        """The settings of this configuration, with the current locks."""
        return Settings(
            config=config,
            policy=replace(config.policy, locks=self._locks.current),
            algorithms=offered(config.algorithms, aes=knows_aes()),
            credentials=self._credentials(config),
            passwords=self._passwords(config),
        )

    async def close(self) -> None:
        """Write what was not written yet."""
        if self._guesses is not None:
            await self._guesses.close()

    def _credentials(self, config: Config) -> Credentials:
        """Who may log in to the proxy."""
        authority = self._authority
        return Credentials(
            users={name: user.keys for name, user in config.users.items()},
            roles={name: user.roles for name, user in config.users.items()},
            authorities=lambda: authority.trusted(CaKind.USER),
            revoked=authority.revoked,
            locked=self._locked,
            passwords=frozenset(name for name, user in config.users.items() if user.password),
        )

    def _locked(self, user: str) -> str:
        """The lock of this user, for the user to read; empty without a lock."""
        lock = self._current().policy.lock_on(self._now(), lambda lock: lock.is_of_user(user))
        return f"{lock}. Ask your administrator" if lock is not None else ""

    def _passwords(self, config: Config) -> PasswordLogin | None:
        """The login by password; None where no user has a password or a TOTP secret."""
        hashes = {name: user.password for name, user in config.users.items() if user.password}
        totp = {name: user.totp for name, user in config.users.items() if user.totp}
        if not hashes and not totp:
            return None
        guesses = self._guesses = self._guesses or Guesses(
            config.state_dir / "guesses.json",
            users=config.users,
            now=self._now,
            clock=self._clock,
            in_thread=self._pools.on_disk,
        )
        guesses.keep(config.users)
        return PasswordLogin(
            Passwords(hashes, totp, guesses.salt),
            guesses,
            identify=lambda user: self._current().credentials.by_password(user),
            clock=self._clock,
            now=self._now,
            in_thread=self._pools.check_password,
        )
