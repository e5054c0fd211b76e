"""conchrec: an SSH session-recording proxy on Twisted Conch.

``docs/architecture.md`` says what each package is for and which may import which; ``tests/test_layers.py``
holds that. The main wall: ``ssh`` does not know that recording exists, ``recording`` does not know that SSH
exists, and ``proxy`` joins them.
"""

__version__ = "0.1.0"
