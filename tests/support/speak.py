"""A program: connects, and prints the first four bytes that the other side says of itself.

speak.py tcp HOST PORT  |  unix PATH  |  socks PROXY_PORT ADDRESS PORT
"""

from __future__ import annotations

import socket
import struct
import sys


def main(kind: str, *address: str) -> None:
    """Connect to the address, and print what the server sends first."""
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address[0])
    elif kind == "tcp":
        connection = socket.create_connection((address[0], int(address[1])))
    else:
        connection = socket.create_connection(("127.0.0.1", int(address[0])))
        connection.sendall(b"\5\1\0")
        connection.recv(2)
        where = socket.inet_aton(address[1]) + struct.pack(">H", int(address[2]))
        connection.sendall(b"\5\1\0\1" + where)
        connection.recv(10)
    with connection:
        print(connection.recv(4).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
