"""Fuzzers of conchrec's own parsers and protocols, in one process: ``python -m fuzz``.

``targets`` say what is fuzzed and what must hold, ``mutation`` makes the inputs, ``harness`` runs them within
``limits``. The same seed makes the same inputs; what is found is printed as hexadecimal and can be replayed.
"""
