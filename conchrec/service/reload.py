"""Reloads the configuration (SIGHUP)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from conchrec.audit import events
from conchrec.config.changes import changed, effective, waits
from conchrec.config.loader import load
from conchrec.config.model import Config
from conchrec.errors import ConfigErrors
from conchrec.proxy.context import ProxyContext, Settings
from conchrec.threads import InThread

_log = Logger()


class Reloader:
    """Reloads the configuration, once at a time: requests during a reload cause another one after it.

    ``build`` creates the settings; ``applied`` is called when they are in effect.
    """

    def __init__(
        self,
        context: ProxyContext,
        build: Callable[[Config], Settings],
        in_thread: InThread,
        applied: Callable[[], None],
    ) -> None:
        self._context = context
        self._build = build
        self._in_thread = in_thread
        self._applied = applied
        #: The requests that wait for the next reload, and whether one is running.
        self._requests: list[Deferred[None]] = []
        self._busy = False
        #: Whether the last reload was refused.
        self.is_refused = False

    def request(self) -> Deferred[None]:
        """Reload the file; an invalid one changes nothing. Fires at the end, and never fails."""
        done: Deferred[None] = Deferred()
        self._requests.append(done)
        if not self._busy:
            self._read()
        return done

    def _read(self) -> None:
        self._busy = True
        requests, self._requests = self._requests, []
        file = self._context.settings.config.file
        self._in_thread(lambda: load(file)).addCallbacks(self._loaded, self._not_loaded).addErrback(
            lambda failure: _log.failure("cannot reload the configuration", failure=failure)
        ).addCallback(self._done, requests)

    def _done(self, _: None, requests: list[Deferred[None]]) -> None:
        self._busy = False
        for done in requests:
            done.callback(None)
        if self._requests and not self._busy:
            self._read()

    def _not_loaded(self, failure: Failure) -> Failure | None:
        error = failure.value
        if not isinstance(error, ConfigErrors):
            return failure
        lines = tuple(error.lines())
        self.is_refused = True
        for line in lines:
            _log.error("{line}", line=line)
        _log.error("reload failed; the running configuration stays in effect")
        self._context.emit(events.ConfigReload(result="failed", problems=lines))
        return None

    def _loaded(self, config: Config) -> None:
        self.is_refused = False
        context, before = self._context, self._context.settings.config
        names = changed(before, config)
        waiting = tuple(name for name in names if waits(name))
        config = effective(before, config)
        for warning in config.warnings:
            _log.warn("{warning}", warning=warning)
        if waiting:
            _log.warn("{names}: changed; takes effect at the next start", names=", ".join(waiting))
        context.settings = self._build(config)
        limits = config.limits
        context.services.dialer.set_limits(
            handshakes=limits.target_handshakes, timeout=limits.connect_timeout
        )
        context.emit(events.ConfigReload(result="ok", changed=names, waiting=waiting))
        _log.info("configuration reloaded; changed: {names}", names=", ".join(names) or "nothing")
        self._applied()
