"""What ssh says about a forward, at -v and in ``~#``. Pure, but for the name of a socket."""

from __future__ import annotations

import socket

from xsshpy.ssh.forward_spec import Endpoint, Forward, TcpEndpoint, describe_target
from xsshpy.ssh.splice import channel_kind


def describe_connection(
    listening_port: int, target: Endpoint, origin: tuple[str, int], opened: socket.socket
) -> str:
    """Return the name of a connection that came in here, as ``~#`` shows it."""
    host, port = target.describe()
    here = opened.getsockname()
    local_host, local_port = here[:2] if isinstance(here, tuple) else (here, 0)
    return (
        f"{channel_kind(target)}: listening port {listening_port} for {host} "
        f"port {port}, connect from {origin[0]} port {origin[1]} to {local_host} port {local_port}"
    )


def describe_local(forward: Forward, *, gateway_ports: bool) -> str:
    """Say that we are about to listen."""
    listen, (host, port) = forward.listen, describe_target(forward.target)
    place, number = listen.describe()
    if isinstance(listen, TcpEndpoint) and listen.host is None:
        place = "*" if gateway_ports else "LOCALHOST"
    return f"Local connections to {place}:{number} forwarded to remote address {host}:{port}"


def describe_remote(forward: Forward) -> str:
    """Say that the server is about to be asked to listen."""
    listen, (host, port) = forward.listen, describe_target(forward.target)
    place, number = listen.describe()
    if isinstance(listen, TcpEndpoint) and listen.host is None:
        place = "LOCALHOST"
    return f"Remote connections from {place}:{number} forwarded to local address {host}:{port}"


def describe_answer(forward: Forward, *, succeeded: bool) -> str:
    """Say what the server answered."""
    listen, (host, port) = forward.listen, describe_target(forward.target)
    place, number = listen.describe()
    colon = "" if isinstance(listen, TcpEndpoint) and listen.host is None else ":"
    verdict = "success" if succeeded else "failure"
    return f"remote forward {verdict} for: listen {place}{colon}{number}, connect {host}:{port}"
