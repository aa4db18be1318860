"""Ties stdin and stdout to a TCP port: ``netcat.py HOST PORT``, for a ProxyCommand."""

from __future__ import annotations

import os
import socket
import sys
import threading


def main() -> None:
    """Copy both ways until either end is over."""
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock:

        def send() -> None:
            while data := os.read(0, 65536):
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        while data := sock.recv(65536):
            os.write(1, data)


main()
