"""A forwarded agent: channels from the server to the socket of an agent here.

Before the server's side may speak, the connection is bound to the server with ``is_forwarding``,
so that an agent can refuse keys that are not meant to be used from there (PROTOCOL.agent). Like
ssh, a connection to an agent that does not know binding is used without.
"""

from __future__ import annotations

import asyncio
import socket

import asyncssh
from asyncssh.forward import SSHForwarder
from asyncssh.packet import UInt32

from xsshpy.ssh.agent import ANSWER_DEADLINE, REPLY_LIMIT, SessionBinding, encode_binding

_LENGTH_SIZE = 4


async def open_forwarded_agent(path: str, binding: SessionBinding | None) -> SSHForwarder:
    """Connect a channel that is being opened to the agent at ``path``.

    Raises asyncssh.ChannelOpenError.
    """
    loop = asyncio.get_running_loop()
    try:
        agent = await asyncio.wait_for(_connect(path, binding), ANSWER_DEADLINE)
        try:
            _, peer = await loop.create_unix_connection(SSHForwarder, sock=agent)
        except BaseException:
            agent.close()
            raise
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        raise asyncssh.ChannelOpenError(
            asyncssh.OPEN_CONNECT_FAILED, f"agent: {error or 'no answer'}"
        ) from None
    return SSHForwarder(peer)


async def _connect(path: str, binding: SessionBinding | None) -> socket.socket:
    """Return a connected socket, bound where the agent knows how; it is at a message's start."""
    agent = await _open_socket(path)
    if binding is None:
        return agent
    try:
        await _bind(agent, binding)
    except (OSError, EOFError):
        agent.close()  # it took the unknown request badly
        return await _open_socket(path)
    except BaseException:
        agent.close()
        raise
    return agent


async def _open_socket(path: str) -> socket.socket:
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    agent.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(agent, path)
    except BaseException:
        agent.close()
        raise
    return agent


async def _bind(agent: socket.socket, binding: SessionBinding) -> None:
    message = encode_binding(binding, forwarding=True)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(agent, UInt32(len(message)) + message)
    length = int.from_bytes(await _read(agent, _LENGTH_SIZE), "big")
    if length > REPLY_LIMIT:
        raise EOFError
    # Yes or no: a key that is restricted is then not to be had, the others are.
    await _read(agent, length)


async def _read(agent: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await asyncio.get_running_loop().sock_recv(agent, size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
