"""conchrec: an SSH session-recording proxy on Twisted Conch.

The drawing that the code keeps to; ``tests/test_layers.py`` walks the imports and holds it.
Imports go down only, and siblings on one layer do not import each other::

    4 assemble   twisted/plugins/conchrec_plugin.py → tap → service              cli.main
                 (the only files that see the global reactor)                       │
                         ┌───────────────┬───────────────────────────┐      ┌───────┤
    3 join             proxy             │                           │    cli.ca  cli.recordings …
                         │               │                           │      │       │
    2 do                ssh           access                     recording  (these three never import each
                         │               │                           │       other, but access may use the
                         │               │                           │       values of ssh, and its keys)
    1 values    ssh.wire  ssh.messages  ssh.certificate  ssh.packetcipher  ssh.algorithms  proxy.lane
                recording.asciicast  access.policy  audit  config  settings  model  errors  timing
                (no reactor, no sockets, no clock)

The main wall: ``ssh`` does not know that recording exists, ``recording`` does not know that SSH
exists, and ``proxy`` is the only place that sees both.

One user's connection through ``proxy``: ``jump`` takes it in, a ``tunnel`` carries it to ``target``, the
inner server; ``upstream`` goes on to the real target through ``dialer``, with keys that ``agents`` and
``credentials`` find; each channel is a ``relay`` of two ``lane``s, watched by ``session`` or ``forwarding``.
"""

__version__ = "0.1.0"
