"""``conchrec init DIR``: creates a state directory with keys, and a commented configuration file."""

from __future__ import annotations

import argparse
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from conchrec.config.loader import Config
from conchrec.files import write_atomic
from conchrec.keys import open_in
from conchrec.model import parse_host_and_port
from conchrec.ownership import act_as, foreign_owner

if TYPE_CHECKING:
    from conchrec.cli.main import Subparsers

DONE, NO = 0, 1

TEMPLATE = """\
# The configuration of conchrec. Check it with: conchrec config check -c {path}
# Relative paths are relative to this file. The sources have an example with all settings in
# etc/config.yaml. Settings that are commented out show the default.

cluster_name: {cluster}          # the name of this proxy in the certificates that it signs
state_dir: .{pad}          # the keys of both certificate authorities: keep it secret, and back it up
listen: ["tcp:3023"]
public_address: {public}

# proxy: record sessions · proxy-sync: write to disk before forwarding · node, off: relay without recording
# session_recording: proxy
# notice: "Sessions are recorded."

# Who may log in at the proxy. Add the first user here before you start it.
users:
#  joe:
#    authorized_keys_file: joe.keys      # public keys, one per line; may also be a list of files
#    roles: [ops]

# Where the users of each role may log in. Nothing is allowed by default.
roles:
#  ops:
#    logins: ["{{user}}", root]            # accounts at the targets; {{user}} is the user's own name
#    hosts: ["*.example.com", "10.0.0.0/8", "db1:2222"]
#    deny: {{hosts: ["vault.example.com"]}}
#    options: {{max_session_ttl: 12h, client_idle_timeout: 15m, port_forwarding: no, forward_agent: no}}

# Host keys of targets that the proxy trusts, besides host certificates from conchrec ca sign-host.
trusted_hosts:
  known_hosts: [known_hosts]            # files like ~/.ssh/known_hosts; ssh-keyscan prints such lines
  authorities: []                       # other host CAs

# How the proxy logs in at targets: with the user's agent, else with a certificate of the user CA.
# upstream_auth: [agent, certificate]

recordings: {{directory: recordings, min_free: 500MiB}}
audit: {{file: audit.jsonl}}
"""

NEXT = """\
Created {directory} with the keys of both certificate authorities, the host key, and {path}.

Next steps:
  1. Add the first user and role to {path}
  2. Check it:
       conchrec config check -c {path}
  3. Let targets trust the user CA (not needed if all users have an agent with keys that the targets know).
     On each target, add the output of this command to the file that TrustedUserCAKeys in sshd_config names:
       conchrec ca export --type user -c {path}
  4. Let the proxy trust the targets: add their host keys to {known_hosts},
     or sign host certificates:
       conchrec ca sign-host --host web1,web1.example.com --out web1 -c {path}
  5. Start the proxy:
       twistd -n conchrec -c {path}
  6. Print the lines for the users' ~/.ssh/config and known_hosts:
       conchrec ssh-config -c {path}
"""


def register(subparsers: Subparsers) -> None:
    """Add the parser of ``init``."""
    parser = subparsers.add_parser(
        "init",
        help="create a state directory with keys, and a configuration file",
        description="Create a directory with the keys of both certificate authorities, the host key of the\n"
        "proxy, and a configuration file. An existing configuration file is not changed.",
        epilog="Example:\n"
        "  conchrec init /etc/conchrec --cluster example.com --public-address proxy.example.com:3023\n",
    )
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory to create")
    parser.add_argument(
        "--cluster", metavar="NAME", type=_cluster,
        help="the name of the proxy in its certificates: cluster_name (default: the name of this host)",
    )  # fmt: skip
    parser.add_argument(
        "--public-address", metavar="HOST[:PORT]", type=_public,
        help="the address by which users reach the proxy (default: the name of this host, port 3023)",
    )  # fmt: skip
    parser.set_defaults(command=command, needs_config=False)


def command(config: Config | None, args: argparse.Namespace, out: TextIO, err: TextIO) -> int:
    """Create what is missing in the directory, and print the next steps."""
    directory = Path(os.path.abspath(args.directory))
    if (owner := foreign_owner(directory)) is not None:
        act_as(owner, for_good=True)
    path = directory / "config.yaml"
    if path.exists() and (not path.is_file() or path.stat().st_size > 0):
        print(f"conchrec: {path} already exists and was not changed; choose another directory", file=err)
        return NO
    host = socket.gethostname()
    cluster = args.cluster or (host if _CLUSTER.fullmatch(host) else "conchrec")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        problem = "a file has this name; choose another directory"
        print(f"conchrec: cannot create {directory}: {problem}", file=err)
        return NO
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
        raise argparse.ArgumentTypeError(
            f"invalid name {text!r}: use letters, digits, dots, _ and -, like example.com"
        )
    return text


def _public(text: str) -> str:
    if parse_host_and_port(text) is None:
        raise argparse.ArgumentTypeError(
            f"invalid address {text!r}: must be HOST or HOST:PORT, like proxy.example.com:3023"
        )
    return text
