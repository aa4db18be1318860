"""A network of one's own, with addresses that are not loopback's; root only.

ssh treats 127.0.0.0/8 and ::1 apart from all others. In a network namespace any address can be put
on the loopback device. A thread has the namespace, and so does every program that it starts; the
rest of the process stays where it is.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable

import pytest

from tests.support.tools import require_tool

ADDRESS = "192.0.2.7"
"""The address that the network has besides loopback's (RFC 5737)."""

_CLONE_NEWNET = 0x40000000


def run_in_network(body: Callable[[], None], *addresses: str) -> None:
    """Call ``body`` in a thread that has a network of its own; skip where that can't be had."""
    ip = require_tool("ip")
    if os.geteuid() or not hasattr(ctypes.CDLL(None), "unshare"):
        pytest.skip("only root may make a network, on Linux")
    problems: list[BaseException] = []

    def run() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                pytest.skip(f"no network of its own: {os.strerror(ctypes.get_errno())}")
            subprocess.run([ip, "link", "set", "lo", "up"], check=True)
            for address in addresses or (ADDRESS,):
                subprocess.run([ip, "addr", "add", f"{address}/32", "dev", "lo"], check=True)
            body()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run, name="network")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
