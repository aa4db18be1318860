"""``-W``: our standard input and output, carried to a target on the server's side.

As ssh does it: the end of our input is passed on and the other direction stays open; the end of
what comes from there ends the whole. The exit status is 0 once the channel is closed.

Follows RFC 4254 §7.2.
"""

from __future__ import annotations

import asyncio

import asyncssh
from asyncssh.channel import SSHTCPChannel

from xsshpy.console import Console
from xsshpy.errors import EXIT_FAILURE
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.failures import describe_open_failure
from xsshpy.ssh.forward_spec import Endpoint
from xsshpy.ssh.splice import ForwardChannel, channel_request
from xsshpy.terminal.streams import InputPump, OutputWriter

NO_ORIGIN = ("127.0.0.1", 65535)
"""What ssh names as the client where there is no socket: some servers insist on an address."""


async def run_stdio_forward(
    connection: ClientConnection,
    endpoint: Endpoint,
    console: Console,
    stdin_fd: int,
    stdout_fd: int,
) -> int:
    """Carry standard input and output to ``endpoint`` until its end; return the exit status.

    What went wrong has been said. Cancelling it leaves the descriptors as they were.
    """
    session = StdioSession(console, stdin_fd, stdout_fd)
    try:
        kind, arguments = channel_request(endpoint, NO_ORIGIN)
        await ForwardChannel(connection).open(kind, arguments, session)
        await session.closed.wait()
        if connection.is_closed():
            return _tell_lost(connection, console, session.error)
        await session.drain()
    except asyncssh.ChannelOpenError as error:
        if connection._transport is None:
            return _tell_lost(connection, console, None)
        console.notice(f"channel 0: open failed: {describe_open_failure(error)}")
        console.fatal("stdio forwarding failed")
        return EXIT_FAILURE
    finally:
        session.stop()
    console.debug(1, "stdio forwarding: done")
    return 0


async def open_stdio_channel(
    connection: ClientConnection, endpoint: Endpoint, session: StdioSession
) -> str | None:
    """Open the channel for ``session``; return why that failed, or None."""
    kind, arguments = channel_request(endpoint, NO_ORIGIN)
    try:
        await ForwardChannel(connection).open(kind, arguments, session)
    except asyncssh.ChannelOpenError as error:
        return describe_open_failure(error)
    return None


def _tell_lost(connection: ClientConnection, console: Console, error: Exception | None) -> int:
    name = connection.get_extra_info("host") or "the server"
    if error is not None and "keepalive" in str(error):
        console.notice(f"Timeout, server {name} not responding.")
    else:
        console.speak(f"Connection to {name} closed by remote host.")
    return EXIT_FAILURE


class StdioSession(asyncssh.SSHTCPSession[bytes]):
    """The channel's other end is our standard input and output."""

    def __init__(self, console: Console, stdin_fd: int, stdout_fd: int) -> None:
        self.closed = asyncio.Event()
        self.error: Exception | None = None
        self._console = console
        self._channel: SSHTCPChannel[bytes] | None = None
        self._broken = False
        self._input_ended = False
        self._pump = InputPump(stdin_fd, self._take_input, self._take_end)
        self._writer = OutputWriter(
            stdout_fd, pause=self._pause, resume=self._resume, broken=self._output_broken
        )

    def connection_made(self, chan: SSHTCPChannel[bytes]) -> None:
        """Begin to read our input."""
        self._channel = chan
        self._pump.start()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Put data out; once nobody reads it any more, it goes by."""
        if not self._broken:
            self._writer.write(data)

    def eof_received(self) -> bool:
        """The target has said all: that is the end, whatever our input has still to say."""
        self.stop()
        if self._channel is not None:
            self._channel.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed, or the whole connection with it."""
        self.error = exc
        self._channel = None
        self.stop()
        self.closed.set()

    def pause_writing(self) -> None:
        """The channel's window is full."""
        self._pump.pause()

    def resume_writing(self) -> None:
        """There is room again."""
        self._pump.resume()

    def stop(self) -> None:
        """Read no more input."""
        self._pump.stop()

    @property
    def is_reading(self) -> bool:
        """Whether the input may be in use by a thread."""
        return self._pump.is_reading

    def end(self) -> None:
        """Nobody is there any more: close the channel, and let go by what waits."""
        self.stop()
        self._writer.abandon()
        if self._channel is not None:
            self._channel.abort()

    async def drain(self) -> None:
        """Wait until all output has been written, or can't be."""
        await self._writer.close()

    def _take_input(self, data: bytes) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(data)

    def _take_end(self) -> None:
        self._input_ended = True
        if self._channel is not None:
            self._channel.write_eof()
            self._close_if_done()

    def _output_broken(self, error: OSError) -> None:
        self._console.debug(1, f"write: {error.strerror}")
        self._broken = True
        self._resume()
        self._close_if_done()

    def _close_if_done(self) -> None:
        """Close where neither direction has anyone left."""
        if self._channel is not None and self._broken and self._input_ended:
            self._channel.close()

    def _pause(self) -> None:
        if self._channel is not None:
            self._channel.pause_reading()

    def _resume(self) -> None:
        if self._channel is not None:
            self._channel.resume_reading()
