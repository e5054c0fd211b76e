"""Differential fuzzer of channel messages: the record against what an instrumented server was given.

A random sequence of channel messages goes from a raw client through the whole proxy to an instrumented
server, in one process. The server keeps its own account of what it was asked, what it accepted and what
it was given; the oracle compares that account with the audit log, the manifest and the cast.

- ``memory``: a reactor without sockets, threads and processes
- ``wire``: the fields of messages, parsed without conchrec's own parsers
- ``stack``: the proxy between a client and a server
- ``client``, ``server``: the two ends, with their accounts
- ``script``: what happens in one case, drawn from a seed
- ``runner``: runs a case, and collects both accounts and the record
- ``oracle``: what must hold afterwards
- ``command``: ``python -m fuzz channels``
"""
