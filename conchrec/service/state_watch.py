"""Notices each second what has changed outside: time, disks, and what other processes write to the state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted.logger import Logger

from conchrec.access.lock_file import Locks
from conchrec.audit import events
from conchrec.audit.log import AuditLog
from conchrec.audit.throttle import AuditThrottle
from conchrec.ca.authority import Authority
from conchrec.disk_space import Level
from conchrec.errors import ConfigError, WriteFailed
from conchrec.proxy.context import ProxyContext
from conchrec.proxy.registry import LiveConnection

_log = Logger()

SECONDS = 1.0
"""The interval of the checks."""

_LEVELS = {
    Level.OK: "DISK HAS ROOM AGAIN",
    Level.LOW: "DISK ALMOST FULL, NO SESSION BEGINS",
    Level.CRITICAL: "DISK FULL, SESSIONS END",
}


class StateWatch:
    """Checks once a second for changes, and then checks all live connections again."""

    def __init__(
        self,
        context: ProxyContext,
        authority: Authority,
        locks: Locks,
        audit: AuditThrottle,
        audit_log: AuditLog,
    ) -> None:
        self._context = context
        self._authority = authority
        self._locks = locks
        self._audit = audit
        self._audit_log = audit_log
        self._enforced = authority.revocations.current
        #: The current problem of each subject: each problem is logged once.
        self._complaints: dict[str, str] = {}

    def check(self) -> None:
        """Apply what other processes have changed (revocations, locks, a rotation of an authority), and end
        what is no longer allowed."""
        moment = self._context.services.now()
        self._with_each(lambda live: live.recheck_expired(moment))
        self._check_disks()
        self._tick_audit()
        for name, refresh in (
            ("authority", self._refresh_authority),
            ("revocations", self._refresh_revocations),
            ("locks", self._refresh_locks),
        ):
            # A problem with one of them must not hide changes of the others.
            try:
                refresh()
                self._complaints.pop(name, None)
            except Exception as error:
                self._complain(name, error)

    def recheck(self) -> None:
        """End everything that is no longer allowed, on all connections."""
        self._with_each(lambda live: live.recheck())

    def _with_each(self, check: Callable[[LiveConnection], None]) -> None:
        """Check every connection. One whose check fails is ended; the others are checked anyway."""
        for live in self._context.registry.connections:
            try:
                check(live)
            except Exception:
                _log.failure("cannot check a connection of {user}: it ends", user=live.identity.user)
                live.drop()

    def _check_disks(self) -> None:
        disks = self._context.services.disks
        changes = disks.update()
        for change in changes:
            volume = change.volume
            say = _log.info if change.level is Level.OK else _log.error
            say(
                "{words}: {path} ({what}): {free} bytes are free, {least} must be",
                words=_LEVELS[change.level],
                path=str(volume.path),
                what=volume.what,
                free=change.free,
                least=volume.least,
            )
            self._context.emit(
                events.DiskLow(
                    what=volume.what,
                    path=str(volume.path),
                    state=change.level.value,
                    free=change.free,
                    least=volume.least,
                )
            )
        self._audit.is_disk_low = disks.is_low
        if disks.critical and changes:
            self.recheck()

    def _tick_audit(self) -> None:
        try:
            self._audit.tick()
            self._audit_log.tick()
            self._complaints.pop("audit", None)
        except WriteFailed as error:
            if self._is_new("audit", error):
                _log.error("{why}: {detail}", why=error.public, detail=error.detail)

    def _complain(self, name: str, error: Exception) -> None:
        """Log an error, once until it is over or another one follows it."""
        if not self._is_new(name, error):
            return
        if not isinstance(error, (ConfigError, OSError)):
            _log.failure("cannot refresh the {name}", name=name)
        _log.error("{error}; the previous state stays in effect", error=str(error))

    def _is_new(self, name: str, error: Exception) -> bool:
        """Whether this is another error than the last one of ``name``. It replaces that one."""
        text = f"{error!r} {error.detail}" if isinstance(error, WriteFailed) else repr(error)
        before, self._complaints[name] = self._complaints.get(name), text
        return text != before

    def _refresh_authority(self) -> None:
        if self._authority.refresh():
            self._warm()

    def _refresh_revocations(self) -> None:
        revocations = self._authority.revocations
        revocations.refresh()
        if revocations.current is not self._enforced:
            self._enforced = revocations.current
            self.recheck()

    def _refresh_locks(self) -> None:
        if self._locks.refresh():
            settings = self._context.settings
            policy = replace(settings.policy, locks=self._locks.current)
            self._context.settings = replace(settings, policy=policy)
            self.recheck()

    def _warm(self) -> None:
        """Sign the host certificate of the proxy in advance, because an agent may take long."""
        services = self._context.services
        services.signing(lambda: self._authority.outer_host_keys(services.outer_names)).addErrback(
            lambda failure: _log.error("{why}", why=failure.getErrorMessage())
        )
