"""``conchrec can``."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest

from conchrec import config
from conchrec.cli.can import NO, YES, command, destination, resolved
from conchrec.model import Target

TEXT = """\
users:
  joe: {roles: [ops, far]}
  jane: {}
roles:
  ops:
    logins: [root, "{user}"]
    hosts: ["web*", "10.0.0.0/8"]
    deny: {hosts: [web9]}
    options: {max_session_ttl: 12h, client_idle_timeout: 90s, forward_agent: yes}
  far: {logins: ["*"], hosts: [far1], options: {source: [192.0.2.0/24]}}
targets:
  web: {hosts: ["web*"]}
"""


class Asked:
    def __init__(self, *argv: str, addresses: tuple[str, ...] = ()) -> None:
        user, at, *more = argv
        out, err = io.StringIO(), io.StringIO()
        args = argparse.Namespace(user=user, destination=destination(at), source=more[0] if more else "")
        it = config.parse(TEXT.encode(), Path("/etc/conchrec/config.yaml"))
        self.code = command(it, args, out, err, resolve=lambda target: addresses)
        self.out, self.err = out.getvalue(), err.getvalue()


def test_yes_and_why() -> None:
    asked = Asked("joe", "root@web1:2222", addresses=("10.0.0.1", "fd00::1"))
    assert asked.code == YES
    assert asked.out.splitlines() == [
        "yes: joe may log in as root on web1:2222 (role ops allows root)",
        "  at 10.0.0.1, fd00::1",
        "  by the rule for targets web",
        "  forward_agent: yes",
        "  port_forwarding: no",
        "  x11_forwarding: no",
        "  file_copy: yes",
        "  nested_ssh: yes",
        "  max_session_ttl: 12h",
        "  client_idle_timeout: 90s",
        "  max_sessions: 10",
        "  record: strict",
        "  recordings: own",
    ]
    assert asked.err == ""


def test_no_and_why() -> None:
    asked = Asked("joe", "ubuntu@web1", addresses=("10.0.0.1",))
    assert asked.code == NO
    assert asked.out == "no: joe may not log in as ubuntu on web1 (role ops allows: root, joe)\n"
    asked = Asked("joe", "root@web9", addresses=("10.0.0.1",))
    assert asked.out == "no: joe may not reach web9 (role ops denies it)\n"


def test_a_name_that_does_not_resolve_is_judged_by_the_name() -> None:
    asked = Asked("joe", "root@web1")
    assert asked.code == YES
    assert "does not resolve here" in asked.err


def test_a_user_that_there_is_not() -> None:
    asked = Asked("jo", "root@web1")
    assert (asked.code, asked.err) == (NO, "conchrec: there is no user 'jo'; did you mean joe?\n")
    assert Asked("jane", "root@web1").out == "no: jane may not reach web1 (jane has no role)\n"


def test_where_the_user_is() -> None:
    assert Asked("joe", "x@far1", "192.0.2.7").code == YES
    asked = Asked("joe", "x@far1", "198.51.100.7")
    assert (asked.code, asked.out) == (NO, "no: joe may not reach far1 (role far not from 198.51.100.7)\n")
    asked = Asked("joe", "x@far1")
    assert asked.code == NO
    assert "--from ADDRESS" in asked.err
    assert Asked("joe", "x@far1", "home").err == "conchrec: 'home' is not an address\n"


@pytest.mark.parametrize(
    ("text", "login", "target"),
    [
        ("root@web1", "root", Target(host="web1")),
        ("root@Web1:2222", "root", Target(host="web1", port=2222)),
        ("root@[fd00::1]:2222", "root", Target(host="fd00::1", port=2222)),
        ("root@[fd00::1]", "root", Target(host="fd00::1")),
        ("a@b@web1", "a@b", Target(host="web1")),
    ],
)
def test_destinations(text: str, login: str, target: Target) -> None:
    assert destination(text) == (login, target)


@pytest.mark.parametrize(
    "text", ["", "web1", "@web1", "root@", "root@web1:", "root@web1:0", "root@web1:99999"]
)
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not like root@web1:22"):
        destination(text)


def test_the_resolver_of_this_machine() -> None:
    assert resolved(Target(host="127.0.0.1")) == ("127.0.0.1",)
    assert resolved(Target(host="name.invalid")) == ()
    assert resolved(Target(host="x" * 300)) == ()
