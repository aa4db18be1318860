"""What another process has set on its sockets, read with pidfd_getfd(2): Linux 5.6 and later."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.processes import find_descendants

_PIDFD_GETFD = 438


@contextmanager
def borrowed_connection(pid: int, port: int) -> Iterator[socket.socket]:
    """Give a copy of the descriptor by which a process, or one it started, is connected to a port.

    Skips the test where the system does not lend descriptors.
    """
    for each in (pid, *(process.pid for process in find_descendants(pid))):
        for number in _socket_numbers(each):
            connection = _borrow(each, number)
            with connection:
                if _leads_to(connection, port):
                    yield connection
                    return
    raise AssertionError(f"process {pid} has no connection to port {port}")


def _socket_numbers(pid: int) -> list[int]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                found.append(int(name))
        except OSError:
            continue
    return found


def _borrow(pid: int, number: int) -> socket.socket:
    if not hasattr(os, "pidfd_open"):
        pytest.skip("this system has no pidfd_open(2)")
    handle = os.pidfd_open(pid)
    try:
        copy = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, handle, number, 0)
    finally:
        os.close(handle)
    if copy < 0:
        pytest.skip(f"pidfd_getfd(2): {os.strerror(ctypes.get_errno())}")
    return socket.socket(fileno=copy)


def _leads_to(connection: socket.socket, port: int) -> bool:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        return bool(connection.getpeername()[1] == port)
    except OSError:
        return False
