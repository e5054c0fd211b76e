"""``conchrec init DIR``: a state directory, and a commented configuration to begin with."""

from __future__ import annotations

import argparse
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from conchrec.config.loader import Config
from conchrec.config.model import host_and_port
from conchrec.files import write_atomic
from conchrec.keys import open_in
from conchrec.ownership import act_as, foreign_owner

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

DONE, NO = 0, 1

TEMPLATE = """\
# conchrec. Try it with: conchrec config check -c {path}
# Relative paths are relative to this file. All settings, and what they mean: etc/config.yaml in the
# sources. What is commented out shows the default.

cluster_name: {cluster}          # the name of this proxy in the certificates that it signs
state_dir: .{pad}          # both certificate authorities and the host key: keep it private, and back it up
listen: ["tcp:3023"]
public_address: {public}

# proxy: terminate and record · proxy-sync: on disk before it is forwarded · node, off: pass through
# session_recording: proxy
# notice: "Sessions are recorded."

# Who may log in: whoever proves one of these keys. Name the first user, then start it.
users:
#  joe:
#    authorized_keys_file: joe.keys      # public keys, one a line; a list of files will do, too
#    roles: [ops]

# Who may go where. There is no default: what is empty allows nobody.
roles:
#  ops:
#    logins: ["{{user}}", root]            # at the target; {{user}} is the user's own name
#    hosts: ["*.example.com", "10.0.0.0/8", "db1:2222"]
#    deny: {{hosts: ["vault.example.com"]}}
#    options: {{max_session_ttl: 12h, client_idle_timeout: 15m, port_forwarding: no, forward_agent: no}}

# Whom we believe about targets, besides host certificates that we signed (conchrec ca sign-host).
trusted_hosts:
  known_hosts: [known_hosts]            # lines as in ~/.ssh/known_hosts; see ssh-keyscan
  authorities: []                       # other host CAs

# How to log in at targets: the user's agent, then a certificate of our user CA for this one connection.
# upstream_auth: [agent, certificate]

recordings: {{directory: recordings, min_free: 500MiB}}
audit: {{file: audit.jsonl}}
"""

NEXT = """\
{directory} is ready: both certificate authorities and the host key are there, and {path}.

Next:
  1. name the first user and role in {path}
  2. conchrec config check -c {path}
  3. let targets trust certificates of the proxy (or rely on the users' agents):
       conchrec ca export --type user -c {path}      the line for TrustedUserCAKeys
  4. let the proxy trust targets: their lines in {known_hosts}, or a host certificate:
       conchrec ca sign-host --host web1,web1.example.com --out web1 -c {path}
  5. twistd -n conchrec -c {path}
  6. conchrec ssh-config -c {path}                   what users put into ~/.ssh
"""


def register(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("init", help="make a state directory and a configuration")
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument(
        "--cluster", metavar="NAME", type=_cluster, help="cluster_name (default: this host's name)"
    )
    parser.add_argument(
        "--public-address",
        metavar="HOST[:PORT]",
        type=_public,
        help="how users reach it (default: this host:3023)",
    )
    parser.set_defaults(command=command, needs_config=False)


def command(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    directory = Path(os.path.abspath(args.directory))
    if (owner := foreign_owner(directory)) is not None:
        act_as(owner, for_good=True)
    path = directory / "config.yaml"
    if path.exists() and (not path.is_file() or path.stat().st_size > 0):
        print(f"conchrec: {path} is there already, and is left as it is", file=err)
        return NO
    host = socket.gethostname()
    cluster = args.cluster or (host if _CLUSTER.fullmatch(host) else "conchrec")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    open_in(directory, cluster)
    known_hosts = directory / "known_hosts"
    known_hosts.touch(mode=0o600)
    text = TEMPLATE.format(
        path=path, cluster=cluster, public=args.public_address or f"{host}:3023", pad=" " * (len(cluster) + 2)
    )
    write_atomic(path, text.encode())
    out.write(NEXT.format(directory=directory, path=path, known_hosts=known_hosts))
    return DONE


_CLUSTER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


def _cluster(text: str) -> str:
    if not _CLUSTER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name like example.com")
    return text


def _public(text: str) -> str:
    if host_and_port(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a host, or host:port")
    return text
