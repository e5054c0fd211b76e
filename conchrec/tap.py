"""``twistd -n conchrec -c config.yaml``: the command line of the service."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from twisted.logger import globalLogBeginner
from twisted.python import usage

from conchrec.config.loader import DEFAULT_FILES, load
from conchrec.config.model import Config
from conchrec.errors import ConchrecError
from conchrec.ownership import as_owner, foreign_owner
from conchrec.service.preload import all_may_import, load_all
from conchrec.service.proxy import Proxy

#: sysexits.h: the configuration has an error.
EX_CONFIG = 78
_CACHE_MESSAGE = "Unable to write to plugin cache"


class Options(usage.Options):
    """The options of ``twistd conchrec``."""

    synopsis = "[-c config.yaml]"
    longdesc = "conchrec is an SSH proxy that records sessions, and relays them to unmodified sshd."
    optParameters = [  # noqa: RUF012  # Twisted reads it from the class
        ["config", "c", None, "The configuration file (else ./config.yaml, else /etc/conchrec/config.yaml)."],
    ]


def find_config(path: str | None) -> Path:
    """The configuration file; if no default exists, the first one, whose error text names it."""
    if path is not None:
        return Path(path)
    return next((file for file in DEFAULT_FILES if file.exists()), DEFAULT_FILES[0])


def forget_plugin_cache_message() -> None:
    """Remove Twisted's message that it cannot write its plugin cache, before it reaches the log.

    An account for services cannot write where Python packages are installed. Twisted finds the plugin
    without the cache, but the message looks like an error. It waits in a private buffer until logging
    begins; if a later Twisted has another one, the message is shown.
    """
    waiting = getattr(getattr(globalLogBeginner, "_initialBuffer", None), "_buffer", None)
    if waiting is None:
        return
    events = list(waiting)
    waiting.clear()
    waiting.extend(event for event in events if not str(event.get("format")).startswith(_CACHE_MESSAGE))


def makeService(options: Options) -> Proxy:
    """Read the configuration and open the state directory. On errors, prints them and exits with 78."""
    from twisted.internet import reactor

    forget_plugin_cache_message()
    try:
        # If the wall clock were set back, every timer would be late, for example the end of sessions.
        reactor.seconds = time.monotonic  # type: ignore[method-assign,misc]
        config: Config = load(find_config(options["config"]))
        if foreign_owner(config.state_dir) is not None and not all_may_import():
            load_all("conchrec.cli")
        # With --uid, twistd takes on the rights of that account later, when all sockets are open.
        with as_owner(config.state_dir):
            proxy = Proxy(config, reactor)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(proxy.reload))
        return proxy
    except ConchrecError as error:
        sys.stderr.write(f"conchrec: {error}\n")
        sys.exit(EX_CONFIG)
    except OSError as error:
        sys.stderr.write(f"conchrec: {error.filename or ''}: {error.strerror or error}\n")
        sys.exit(EX_CONFIG)
