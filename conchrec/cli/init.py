"""``conchrec init DIR``: creates a state directory with keys, and a commented configuration file."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path
from typing import TextIO

from conchrec.cli.parsers.init import CLUSTER_NAME
from conchrec.config.loader import Config
from conchrec.files import write_atomic
from conchrec.keys import open_in
from conchrec.model import parse_host_and_port
from conchrec.ownership import act_as, foreign_owner

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
    cluster = args.cluster or (host if CLUSTER_NAME.fullmatch(host) else "conchrec")
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


def parse_public_address(text: str) -> str:
    """The address of ``--public-address``. Raises ArgumentTypeError."""
    if parse_host_and_port(text) is None:
        raise argparse.ArgumentTypeError(
            f"invalid address {text!r}: must be HOST or HOST:PORT, like proxy.example.com:3023"
        )
    return text
