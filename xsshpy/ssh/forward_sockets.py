"""The local sockets of forwards: those that listen, and those that reach a target.

What goes wrong is said in ssh's words, as programs look for them. Private sockets stay private:
a unix socket is created with StreamLocalBindMask, and what is in its place is only removed with
StreamLocalBindUnlink. As with ssh it stays behind at the end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import asyncssh

from xsshpy.console import Console
from xsshpy.resolver import Address, resolve
from xsshpy.ssh.forward_spec import (
    STREAMLOCAL_PORT,
    Endpoint,
    ForwardOptions,
    TcpEndpoint,
    UnixEndpoint,
    decide_bind,
)

BACKLOG = 128
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class TargetError(Exception):
    """A target could not be reached; ``code`` and ``text`` are for the server (RFC 4254 §5.1)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


_REFUSED = TargetError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")


async def open_listeners(
    endpoint: Endpoint, options: ForwardOptions, family: socket.AddressFamily, console: Console
) -> list[socket.socket]:
    """Return non-blocking sockets that listen; none where it failed, and that has been said."""
    if isinstance(endpoint, UnixEndpoint):
        return _listen_on_path(endpoint.path, options, console)
    where = "channel_setup_fwd_listener_tcpip"
    host, wildcard = decide_bind(endpoint.host, gateway_ports=options.gateway_ports)
    try:
        addresses = await _find_addresses(host, endpoint.port, family, wildcard=wildcard)
    except socket.gaierror as error:
        console.error(f"{where}: getaddrinfo({(host or '')[:64]}): {error.strerror}")
        return []
    addresses = [address for address in addresses if address.family in _INTERNET]
    sockets = []
    for address in addresses:
        listener = _listen_on_address(address, console, is_last=address is addresses[-1])
        if listener is not None:
            sockets.append(listener)
    if not sockets:
        console.error(f"{where}: cannot listen to port: {endpoint.port}")
    return sockets


async def _find_addresses(
    host: str | None, port: int, family: socket.AddressFamily, *, wildcard: bool
) -> list[Address]:
    if host is not None:
        return await resolve(host, port, family, passive=wildcard)
    flags = socket.AI_PASSIVE if wildcard else 0
    # Without a name there is nothing to look up, so nothing to wait for.
    records = socket.getaddrinfo(None, port, family, socket.SOCK_STREAM, 0, flags)
    return [Address(kind, number, place) for kind, _, number, _, place in records]


def _listen_on_address(
    address: Address, console: Console, *, is_last: bool
) -> socket.socket | None:
    port = address.address[1]
    place = f"[{address.numeric}]:{port!s}"
    try:
        listener = socket.socket(address.family, socket.SOCK_STREAM, address.protocol)
    except OSError as error:  # the kernel may not have IPv6
        console.verbose(f"socket {place}: {error.strerror}")
        return None
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    console.debug(1, f"Local forwarding listening on {address.numeric} port {port!s}.")
    try:
        listener.bind(address.address)
    except OSError as error:
        listener.close()
        say = console.error if is_last else console.verbose
        say(f"bind {place}: {error.strerror}")
        return None
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        console.error(f"listen {place}: {error.strerror}")
        return None
    return listener


def _listen_on_path(path: str, options: ForwardOptions, console: Console) -> list[socket.socket]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    step = "bind to"
    try:
        if options.bind_unlink:
            _remove(path, console)
        # The mode of a socket comes from the mask alone, and nothing else runs meanwhile.
        mask = os.umask(options.bind_mask)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        step = "listen on"
        listener.listen(BACKLOG)
    except (OSError, ValueError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if reason == "AF_UNIX path too long":
            console.error(f'unix_listener: path "{path}" too long for Unix domain socket')
        else:
            console.error(f"unix_listener: cannot {step} path {path}: {reason}")
        return []
    console.debug(1, f"Local forwarding listening on path {path}.")
    return [listener]


def _remove(path: str, console: Console) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        console.error(f"unlink({path}): {error.strerror}")


async def connect_target(
    endpoint: Endpoint, family: socket.AddressFamily, console: Console
) -> socket.socket:
    """Return a non-blocking socket connected to a target. Raises TargetError, having said why."""
    if isinstance(endpoint, UnixEndpoint):
        return _connect_path(endpoint.path, console)
    host, port = endpoint.describe()
    try:
        addresses = await resolve(host, port, family)
    except socket.gaierror as error:
        console.error(f"connect_to {host}: unknown host ({error.strerror})")
        raise _REFUSED from None
    return await _connect_one_of(addresses, endpoint, console)


async def _connect_one_of(
    addresses: list[Address], endpoint: TcpEndpoint, console: Console
) -> socket.socket:
    host, port = endpoint.describe()
    reason = os.strerror(errno.EADDRNOTAVAIL)
    waited = False
    for address in addresses:
        opened = socket.socket(address.family, socket.SOCK_STREAM, address.protocol)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                opened.connect(address.address)
            except BlockingIOError:
                waited = True
                await _wait_until_connected(opened)
        except OSError as error:
            opened.close()
            reason = error.strerror or str(error)
            console.debug(1, f"connect {host} ([{address.numeric}]:{port}): {reason}")
            continue
        except BaseException:
            opened.close()
            raise
        return opened
    if not waited:
        console.error(f"connect to {host} port {port} failed: {reason}")
        raise _REFUSED
    console.error(f"connect_to {host} port {port}: failed.")
    raise TargetError(asyncssh.OPEN_CONNECT_FAILED, reason)


async def _wait_until_connected(opened: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    descriptor = opened.fileno()

    def settle() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(descriptor, settle)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)
    number = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


def _connect_path(path: str, console: Console) -> socket.socket:
    """Connect to a unix socket, which answers at once: a full backlog is a failure, as in ssh."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.setblocking(False)
    try:
        opened.connect(path)
    except OSError as error:
        opened.close()
        reason = error.strerror or str(error)
        console.error(f"connect to {path} port {STREAMLOCAL_PORT} failed: {reason}")
        raise _REFUSED from None
    return opened
