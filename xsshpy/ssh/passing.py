"""A connection that another process has logged in, spoken through (PROTOCOL.mux §9, -O proxy).

The master passes packets of the connection protocol on, unencrypted: length, a zero for no padding,
payload. So a connection here begins where a login has ended, and asyncssh does the rest.

Rules kept here:

* Only what belongs to channels, and the request for a port to listen on, is ever sent: a master
  passes the rest on to the server as its own. A disconnect would end everybody's sessions.
* There is nothing to encrypt, to sign or to rekey, and no keepalive: the master sees to those.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Mapping

import asyncssh
from asyncssh.constants import (
    MSG_CHANNEL_FIRST,
    MSG_CHANNEL_OPEN,
    MSG_GLOBAL_REQUEST,
    MSG_REQUEST_FAILURE,
    MSG_REQUEST_SUCCESS,
)
from asyncssh.encryption import Encryption
from asyncssh.packet import SSHPacket, SSHPacketLogger, String

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.ssh.auth import Login
from xsshpy.ssh.connect import Session
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.hostkey_evidence import gather_evidence
from xsshpy.ssh.options import connection_options
from xsshpy.ssh.verifier import HostKeyVerifier, host_names

ANSWER_DEADLINE = 3.0
"""Seconds that a master may take to pass on the answer to a request for a port."""

_LENGTH = 4
_NEVER = 1 << 63
_LISTEN = String(b"tcpip-forward")


class _Framing(Encryption):
    """Packets as a master takes and gives them, in the place of a cipher."""

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        """Return the packet without its padding."""
        payload = packet[1 : len(packet) - packet[0]]
        return (len(payload) + 1).to_bytes(_LENGTH, "big") + b"\0" + payload, b""

    def decrypt_header(self, seq: int, first_block: bytes, header_len: int) -> tuple[bytes, bytes]:
        """Return what follows the length, which is nothing yet, and the length."""
        return b"", first_block

    def decrypt_packet(
        self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes
    ) -> bytes:
        """Return the packet with a byte of padding: asyncssh's way to take it off needs one."""
        return b"\x01" + rest[1 : len(rest) - rest[0]] + b"\0" if rest else b"\x01\0"


class PassedConnection(ClientConnection):
    """A connection whose login is the master's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHClientConnectionOptions,
        host_keys: HostKeyVerifier,
        step_succeeded: Callable[[], None],
    ) -> None:
        super().__init__(loop, options, host_keys, step_succeeded)
        self._awaited: deque[asyncio.TimerHandle] = deque()

    def _send_version(self) -> None:
        """Begin where the login has ended."""
        self.first_words = bytes(256)  # none of the server's is to come
        self._send_encryption = self._recv_encryption = _Framing()
        self._recv_blocksize, self._recv_macsize = _LENGTH, 0
        self._recv_handler = self._recv_pkthdr
        self._rekey_bytes, self._rekey_seconds = _NEVER, 0
        self._kex_complete = self._auth_complete = True
        self._cancel_login_timer()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._wait = None

    def send_packet(
        self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None
    ) -> None:
        """Send what is for the server, and keep back what would be the master's to say."""
        if pkttype == MSG_GLOBAL_REQUEST:
            if args[0] != _LISTEN:  # a master breaks off where it is asked for such things
                self._loop.call_soon(self._answer, MSG_REQUEST_FAILURE)
                return
            # ssh's masters keep the server's answer: that it listens is taken for granted then.
            is_port_known = any(args[-1][-_LENGTH:])
            self._awaited.append(
                self._loop.call_later(ANSWER_DEADLINE, self._give_up_waiting, is_port_known)
            )
        elif pkttype < min(MSG_CHANNEL_FIRST, MSG_CHANNEL_OPEN):
            return
        super().send_packet(pkttype, *args, handler=handler)

    def _answer(self, kind: int) -> None:
        """Answer in the server's place."""
        if self._transport is not None and self._global_request_waiters:
            self._process_global_response(kind, 0, SSHPacket(b""))

    def _note_global_response(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Take the server's answer, if it is not too late."""
        if self._awaited:
            self._awaited.popleft().cancel()
            self._process_global_response(pkttype, pktid, packet)

    def _give_up_waiting(self, is_port_known: bool) -> None:
        self._awaited.popleft()
        self._answer(MSG_REQUEST_SUCCESS if is_port_known else MSG_REQUEST_FAILURE)

    _packet_handlers = {  # noqa: RUF012  (asyncssh declares it so)
        **ClientConnection._packet_handlers,
        MSG_REQUEST_SUCCESS: _note_global_response,
        MSG_REQUEST_FAILURE: _note_global_response,
    }


async def use_connection_of(
    master: socket.socket, settings: Settings, console: Console, environ: Mapping[str, str]
) -> Session:
    """Return a session over the connection of a master that has been asked for proxy mode."""
    loop = asyncio.get_running_loop()
    names = host_names(settings, None)
    evidence = await gather_evidence(settings, console, environ, names)
    verifier = HostKeyVerifier(settings, console, evidence, names, wants_x11=True, may_ask=False)
    login = Login(settings, console, lambda _: True)
    options = connection_options(settings, login, evidence.algorithms)
    options.waiter = loop.create_future()
    options.keepalive_interval = 0
    master.setblocking(False)
    _, connection = await loop.create_connection(
        lambda: PassedConnection(loop, options, verifier, login.step_succeeded), sock=master
    )
    connection.set_extra_info(host=settings.hostname, port=settings.port)
    await options.waiter
    return Session(connection, login, settings, console, verifier, None, None)
