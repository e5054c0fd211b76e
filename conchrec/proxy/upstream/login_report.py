"""Records how the proxy has logged in at a target: in the access, in the audit and in the log."""

from __future__ import annotations

from twisted.logger import Logger

from conchrec.audit import events
from conchrec.model import host_and_port
from conchrec.provenance import Provenance
from conchrec.proxy.dial.dialer import Link
from conchrec.proxy.target_access import TargetAccess
from conchrec.ssh.algorithms import WEAK
from conchrec.ssh.userauth_client import Login
from conchrec.text import one_line

_log = Logger()


def report_login(access: TargetAccess, link: Link, login: Login) -> None:
    """Store and audit a login that has succeeded; warn about weak algorithms and unchecked host keys."""
    verdict = link.check.verdict
    host_key = verdict.fingerprint if verdict is not None else ""
    trust = verdict.trust if verdict is not None else ""
    method = ",".join(step.decode() for step in login.steps)
    key = login.signer.label if login.signer is not None else ""
    algorithms = link.transport.agreed_names
    weak = tuple(name.decode() for name in algorithms if name in WEAK)
    if weak:
        _log.warn(
            "the connection to {target} uses weak algorithms: {weak}",
            target=str(access.target),
            weak=", ".join(weak),
        )
    access.record_target_login(
        Provenance(
            dialled=host_and_port(link.address, access.target.port),
            host_key=host_key,
            trust=trust,
            target_method=method,
            target_key=key,
        )
    )
    access.context.emit(
        events.UpstreamConnect(
            **access.who(),
            address=link.address,
            method=method,
            key=key,
            host_key=host_key,
            trust=trust,
            server=one_line(link.identification, 255),
            algorithms=tuple(name.decode() for name in algorithms),
            weak=weak,
        )
    )
    if verdict is not None and not verdict.checked:
        _log.warn("the host key of {target} is not checked", target=str(access.target))
        access.context.emit(events.HostKeyUnchecked(**access.who(), host_key=host_key, reason=trust))
