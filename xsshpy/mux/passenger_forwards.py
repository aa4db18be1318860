"""Forwards that passengers open and close through a master (PROTOCOL.mux §6 and §7).

As ssh's master does it: a forward that is there already is opened by saying so; only what was
opened can be closed, described as it was; the words of every refusal are ssh's.
"""

from __future__ import annotations

import os

from xsshpy.mux.context import MasterContext
from xsshpy.mux.messages import (
    PATH_PORT,
    CloseForward,
    Failure,
    MuxForwardKind,
    MuxProtocolError,
    Ok,
    OpenForward,
    PermissionDenied,
    RemotePort,
    Reply,
)
from xsshpy.ssh.forward_spec import (
    Endpoint,
    Forward,
    ForwardKind,
    TcpEndpoint,
    UnixEndpoint,
    describe_forward,
)

_HIGHEST_PORT = 65535


class InvalidForwardError(Exception):
    """No forward is like this; the text says why, for the log."""


def read_forward(message: OpenForward | CloseForward) -> Forward:
    """Return what a message describes.

    Raises MuxProtocolError for ports that there are not, InvalidForwardError for what makes no
    sense.
    """
    for port in (message.listen_port, message.connect_port):
        if port != PATH_PORT and port > _HIGHEST_PORT:
            raise MuxProtocolError("malformed message")
    listen = _endpoint(message.listen_host, message.listen_port)
    is_path = isinstance(listen, UnixEndpoint)
    if message.kind == MuxForwardKind.DYNAMIC:
        if is_path:
            raise InvalidForwardError("streamlocal and dynamic forwards are mutually exclusive")
        return Forward(ForwardKind.DYNAMIC, listen, None)
    if message.kind not in (MuxForwardKind.LOCAL, MuxForwardKind.REMOTE):
        raise InvalidForwardError(f"invalid forwarding type {message.kind}")
    if message.kind == MuxForwardKind.LOCAL and message.connect_port == 0:
        raise InvalidForwardError("invalid connect port 0")
    if not message.connect_host:
        raise InvalidForwardError("missing connect host")
    if message.kind == MuxForwardKind.LOCAL:
        return Forward(ForwardKind.LOCAL, listen, _target(message))
    if message.connect_port == 0:  # "socks", by whom the target is named
        return Forward(ForwardKind.REMOTE_DYNAMIC, listen, None)
    return Forward(ForwardKind.REMOTE, listen, _target(message))


def _endpoint(host: bytes, port: int) -> Endpoint:
    if port == PATH_PORT:
        return UnixEndpoint(os.fsdecode(host))
    return TcpEndpoint(os.fsdecode(host) or None, port)


def _target(message: OpenForward | CloseForward) -> Endpoint:
    if message.connect_port == PATH_PORT:
        return UnixEndpoint(os.fsdecode(message.connect_host))
    return TcpEndpoint(os.fsdecode(message.connect_host), message.connect_port)


async def open_forward(context: MasterContext, message: OpenForward) -> Reply:
    """Open a forward for a passenger; return the answer. Raises MuxProtocolError."""
    rid, console, forwarder = message.request_id, context.console, context.forwarder
    try:
        forward = read_forward(message)
    except InvalidForwardError as error:
        console.notice(f"mux_master_process_open_fwd: {error}")
        return Failure(rid, b"Invalid forwarding request")
    known = forwarder.find(forward)
    if known is not None:
        return RemotePort(rid, known.port) if known.port else Ok(rid)
    gateway_ports = context.settings.keywords.get("gatewayports") == ("yes",)
    described = describe_forward(forward, gateway_ports=gateway_ports)
    if not await context.permits(f"Open {described} on {context.settings.hostname}?"):
        return PermissionDenied(rid, b"Permission denied")
    opened = await forwarder.open_shared(forward)
    if opened is not None:
        return RemotePort(rid, opened.port) if opened.port else Ok(rid)
    if forward.kind in (ForwardKind.LOCAL, ForwardKind.DYNAMIC):
        console.notice(f"mux_master_process_open_fwd: requested {described} failed")
        return Failure(rid, b"Port forwarding failed")
    listen = forward.listen
    where = f"path {listen.path}" if isinstance(listen, UnixEndpoint) else f"port {listen.port}"
    words = f"remote port forwarding failed for listen {where}"
    console.error(f"mux_confirm_remote_forward: {words}")
    return Failure(rid, os.fsencode(words))


def close_forward(context: MasterContext, message: CloseForward) -> Reply:
    """Close a forward; return the answer. Raises MuxProtocolError."""
    rid = message.request_id
    try:
        opened = context.forwarder.find(read_forward(message))
    except InvalidForwardError:
        opened = None
    if opened is None:
        return Failure(rid, b"port not forwarded")
    if context.forwarder.close_shared(opened):
        return Ok(rid)
    is_remote = opened.forward.kind in (ForwardKind.REMOTE, ForwardKind.REMOTE_DYNAMIC)
    return Failure(rid, b"port not in permitted opens" if is_remote else b"port not found")
