"""The programs that OpenSSH's tests start instead of ssh and sshd. They connect both through the proxy.

``wrapper.py SETTINGS ssh …`` adds what the user of a proxy needs to the arguments: how to reach the target,
the host CA, and a key that the proxy knows. ``wrapper.py SETTINGS sshd -i …`` is a ProxyCommand in these
tests. It lets a real sshd wait for a connection, and connects its standard input and output to that port
through the proxy. ``sshd`` without ``-i`` is the real one.

It runs without site-packages, because the tests start it a thousand times.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import sys
from pathlib import Path
from typing import TypedDict

#: What differs between the runs of a test: options of ssh with a value, and the keywords of ``-o``.
VARIED = ("-c", "-m")
VARIED_KEYWORDS = ("ciphers", "macs", "kexalgorithms", "rekeylimit", "compression")
#: The ssh of the test passes the options for the outer connection to its ProxyCommand in this variable.
OUTER_OPTIONS = "CONCHREC_OUTER_OPTIONS"
#: A ProxyCommand with this, or a script that leads to it, starts the wrapper of sshd.
WRAPPED_SSHD = re.compile(r"sshd\S* -i -f ")
#: How long an sshd waits for the proxy.
SECONDS = 60


class Settings(TypedDict):
    """What the driver writes for the wrappers."""

    ssh: str
    sshd: str
    #: The ssh_config for the proxy, with the host ``proxy``.
    config: str
    #: A known_hosts file with the host CA.
    known_hosts: str
    #: A private key of the user. The tests make others, which the proxy does not know.
    identity: str
    #: The names that ``ssh -Q`` can print: OpenSSH has algorithms that the proxy does not offer.
    algorithms: list[str]
    #: Whether the options of the test are for the outer connection instead of the inner one.
    outer: bool


def to_proxy(settings: Settings, port: str) -> list[str]:
    """Return the command that connects its standard input and output to a port at the target."""
    options = json.loads(os.environ.get(OUTER_OPTIONS, "[]"))
    return [settings["ssh"], "-F", settings["config"], *options, "-W", f"localhost:{port}", "proxy"]


def is_varied(option: str) -> bool:
    """Return whether the tests vary this option of ssh_config."""
    return re.split(r"[\s=]", option)[0].lower() in VARIED_KEYWORDS


def split_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the options that the test varies, with a log, and all other arguments without the log."""
    varied: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word in VARIED:
            varied += [word, next(rest)]
        elif word.startswith("-E") or is_varied(word.removeprefix("-o")):
            varied.append(word)
        elif word == "-o":
            value = next(rest)
            (varied if is_varied(value) else others).extend((word, value))
        else:
            others.append(word)
    return varied, others


def proxy_command(arguments: list[str]) -> str:
    """Return where a ProxyCommand is named, in lower case: the arguments, or else the file of ``-F``."""
    words = " ".join(arguments).lower()
    # Also `-nNfF FILE` and `-qFFILE`.
    match = re.search(r"(?:^| )-(?!o)[a-zA-Z]*F ?(\S+)", " ".join(arguments))
    if "proxycommand" not in words and match and Path(match[1]).exists():
        words = Path(match[1]).read_text().lower()
    return words if "proxycommand" in words else ""


def run_ssh(settings: Settings, arguments: list[str]) -> None:
    """Become ssh, or print what ``ssh -Q`` prints."""
    ssh = settings["ssh"]
    if "-Q" in arguments:
        kind = arguments[arguments.index("-Q") + 1]
        names = os.popen(shlex.join([ssh, "-Q", kind])).read().split()
        if kind in ("kex", "cipher", "cipher-auth", "mac"):
            names = [name for name in names if name in settings["algorithms"]]
        print(*names, sep="\n")
        return
    command = proxy_command(arguments)
    if "-V" in arguments or "-G" in arguments or (command and not WRAPPED_SSHD.search(command)):
        # This test reaches its sshd in another way.
        os.execv(ssh, [ssh, *arguments])
    added = ["-o", "HostKeyAlias=localhost", "-o", f"GlobalKnownHostsFile={settings['known_hosts']}"]
    added += ["-o", f"IdentityFile={settings['identity']}"]
    if settings["outer"]:
        varied, arguments = split_options(arguments)
        os.environ[OUTER_OPTIONS] = json.dumps(["-v", *varied])
        added.append(f"-E{os.devnull}")
    if not command:
        added += ["-o", f"ProxyCommand={' '.join(to_proxy(settings, '%p'))}"]
    os.execv(ssh, [ssh, *added, *arguments])


def run_sshd(settings: Settings, arguments: list[str]) -> None:
    """Become sshd, or a connection to an sshd behind the proxy."""
    sshd = settings["sshd"]
    if "-i" not in arguments:
        os.execv(sshd, [sshd, *arguments])
    listener = socket.create_server(("127.0.0.1", 0))
    if os.fork() == 0:
        # Nothing of the ProxyCommand stays open here: its end is the end of the connection.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        listener.settimeout(SECONDS)
        connection = listener.accept()[0]
        listener.close()
        connection.setblocking(True)
        for descriptor in (0, 1):
            os.dup2(connection.fileno(), descriptor)
        os.execv(sshd, [sshd, *arguments])
    command = to_proxy(settings, str(listener.getsockname()[1]))
    os.execv(command[0], command)


def main(file: str, program: str, *arguments: str) -> None:
    """Be the program of this name."""
    settings: Settings = json.loads(Path(file).read_text())
    {"ssh": run_ssh, "sshd": run_sshd}[program](settings, list(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
