"""The channel that the X11 agent runs at the other end of: a command without a pty (RFC 4254 §6.5).

As with a session, nothing is waited for that need not be: what is written goes out right behind the
command, without its confirmation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR
from asyncssh.packet import String

from xsshpy.console import inline
from xsshpy.ssh.bulk import BulkChannel
from xsshpy.ssh.connection import ClientConnection
from xsshpy.x11.agent import AgentError, AgentReceiver

RECEIVE_WINDOW = 4 << 20
PACKET_SIZE = 32 << 10


def needs_brief_command(connection: ClientConnection) -> bool:
    """Tell whether a server may end the connection over a long command: only OpenSSH is known to
    take the agent's."""
    return "OpenSSH" not in str(connection.get_extra_info("server_version", ""))


class NoSecondSessionError(AgentError):
    """The server opens no further session on this connection."""


class _AgentSession(asyncssh.SSHClientSession[bytes]):
    """Passes what the agent says on to whoever started it."""

    def __init__(self, receiver: AgentReceiver) -> None:
        self._receiver = receiver
        self._ending = "ended"

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype == EXTENDED_DATA_STDERR:
            self._receiver.message_received(data)
        else:
            self._receiver.data_received(data)

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()

    def exit_status_received(self, status: int) -> None:
        self._ending = f"ended with status {status}"

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._ending = f"was ended by SIG{signal}" if signal.isalnum() else "was ended by a signal"

    def request_refused(self) -> None:
        """Take note that the server does not run the command."""
        self._ending = "was refused by the server"

    def connection_closed(self) -> None:
        """Take note that it is not the command alone that ends."""
        self._ending = ""

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.connection_lost(self._ending)


class AgentChannel(BulkChannel, asyncssh.SSHClientChannel[bytes]):
    """The channel; ``write`` and ``close`` are asyncssh's own."""

    async def start(
        self, command: str, session: _AgentSession, is_forced: Callable[[], bool]
    ) -> None:
        """Open the channel and ask for the command. Raises asyncssh's errors and AgentError."""
        await self._open(b"session")
        self._session = session
        session.connection_made(self)
        # What the server tells of the key comes behind the login, and before this channel.
        if is_forced():
            self.abort()
            raise AgentError("the server runs a command of its own")
        asked = asyncio.ensure_future(self._make_request(b"exec", String(os.fsencode(command))))
        asked.add_done_callback(self._answered)
        # The request leaves when its task first runs; what is written must come behind it.
        await asyncio.sleep(0)
        if self._conn is not None:
            self._conn.create_task(self._start_reading(), self.logger)

    def _answered(self, asked: asyncio.Task[bool | None]) -> None:
        """Close the channel of a command that the server will not run."""
        with contextlib.suppress(asyncssh.Error, OSError, asyncio.CancelledError):
            if not asked.result():
                assert isinstance(self._session, _AgentSession)
                self._session.request_refused()
                self.abort()

    def process_connection_close(self, exc: Exception | None) -> None:
        """Take the end of the whole connection."""
        if isinstance(self._session, _AgentSession):
            self._session.connection_closed()
        super().process_connection_close(exc)

    def kill(self) -> None:
        """End what runs at the other end, whatever it is, and close."""
        if self._send_state == "open":
            self.send_signal("TERM")
        self.abort()

    async def reach(self) -> None:
        """Wait until the server answers; at once where the connection is gone."""
        connection = self._conn
        if connection is not None:
            with contextlib.suppress(asyncssh.Error, OSError):
                await connection._make_global_request(b"keepalive@openssh.com")

    def write(self, data: bytes, datatype: int | None = None) -> None:
        """Send bytes; OSError where the channel is closed, as with any stream."""
        if self._send_state != "open":
            raise BrokenPipeError("the agent's channel is closed")
        super().write(data, datatype)


async def open_agent_channel(
    connection: ClientConnection,
    command: str,
    receiver: AgentReceiver,
    is_forced: Callable[[], bool],
) -> AgentChannel:
    """Run the agent's command in a channel of its own. Raises AgentError.

    ``is_forced`` tells whether the server would run a command of its own instead; then nothing is
    asked of it, as that command would run a second time.
    """
    try:
        channel = AgentChannel(
            connection,
            asyncio.get_running_loop(),
            "replace",
            None,
            "strict",
            RECEIVE_WINDOW,
            PACKET_SIZE,
        )
        await channel.start(command, _AgentSession(receiver), is_forced)
    except asyncssh.ChannelOpenError as error:
        if connection.is_closed():  # that says nothing about the host
            raise AgentError(f"the connection ended: {inline(error.reason)}") from None
        reason = f"the server opens no second session: {inline(error.reason)}"
        raise NoSecondSessionError(reason, lasting=True) from None
    except (asyncssh.Error, OSError) as error:
        raise AgentError(f"the connection ended: {inline(str(error))}") from None
    return channel
