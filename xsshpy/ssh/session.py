"""One remote process: its pty, its environment, its stdio and its end (RFC 4254 §6).

Channel requests are sent together, the command with them, and answered in order, as OpenSSH's
client does it. Only where the remote command line depends on the answers (was a display granted?
was MPLBACKEND accepted?) are they waited for before the command goes out.
"""

from __future__ import annotations

import asyncio
import os
from binascii import hexlify
from collections.abc import Callable, Mapping

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR
from asyncssh.packet import Boolean, Byte, String, UInt32

from xsshpy.console import Console, inline
from xsshpy.errors import SessionError
from xsshpy.ssh.bulk import BulkChannel
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.environment import BACKEND_VARIABLE
from xsshpy.ssh.failures import describe_open_failure
from xsshpy.ssh.session_plan import (
    Grants,
    PtyRequest,
    SessionPlan,
    X11Request,
    decide_program,
    depends_on_grants,
)
from xsshpy.ssh.window import FIRST_WINDOW
from xsshpy.terminal.streams import InputPump, OutputOrder, OutputWriter
from xsshpy.terminal.tty import TerminalSize

PACKET_SIZE = 32 << 10
WAITING_INPUT = 1 << 20
"""Bytes of input that are kept while the server's window is full: a new window finds them here."""
_TTY_OP_END = 0
_HELD = -1
"""Stands among the descriptors that take no output for one that may not be written to now."""
_FLUSH_CHECK = 0.005
"""Seconds between two looks at whether all output is out."""
PTY_REQUEST = "PTY allocation"
"""ssh's name for the request."""


class ChannelRefusedError(SessionError):
    """The server opened no channel for the session."""


class ConnectionEndedError(SessionError):
    """The connection ended while the session was being started; ``cause`` is why."""

    def __init__(self, host: str, cause: Exception) -> None:
        super().__init__(
            f"Connection to {host} closed by remote host.",
            evidence=(f"xssh: it ended while the session was being started: {inline(str(cause))}",),
            remedy=f"look at the log of the SSH server on {host}",
        )
        self.cause = cause


class RequestRefusedError(SessionError):
    """The server refused what the session can't be without; ``request`` is ssh's name for it."""

    def __init__(self, request: str, *, remedy: str = "") -> None:
        super().__init__(f"{request} request failed on channel 0", remedy=remedy)
        self.request = request


class SessionChannel(BulkChannel, asyncssh.SSHClientChannel[bytes]):
    """A session channel whose requests travel together.

    asyncssh's own ``create`` waits for the answer to each request in turn. This one uses the same
    primitives (open, request, start reading) in OpenSSH's order.
    """

    _session: RemoteProcess

    @property
    def number(self) -> int:
        """The session's number in ssh's list of channels."""
        # Until the channel is open asyncssh has no session.
        session: RemoteProcess | None = self._session
        return session.number if session is not None else 0

    @property
    def remote_number(self) -> int | None:
        """The number that the other side gave to this channel."""
        return self._send_chan

    async def start(
        self, plan: SessionPlan, process: RemoteProcess, asked: Callable[[], None]
    ) -> Grants:
        """Open the channel, make the requests, start the process.

        ``asked`` is called when the process is asked for; input may follow from then on.
        Raises SessionError where the server refuses the channel, the pty or the command.
        """
        connection = self.get_connection()
        agent = self._start_agent(plan)
        try:
            await self._open(b"session")
        except asyncssh.ChannelOpenError as error:
            if connection.is_closed():
                raise asyncssh.ConnectionLost(error.reason) from None
            raise ChannelRefusedError(
                f"channel {process.number}: open failed: {describe_open_failure(error)}",
                remedy="a server with MaxSessions or a restricted key may refuse shells",
            ) from None
        self._session = process
        self.set_write_buffer_limits(WAITING_INPUT)
        process.connection_made(self)
        grants = await self._request(plan, agent, asked)
        process.session_started()
        if self._conn is not None:  # else a short process without output is over already
            self._conn.create_task(self._start_reading(), self.logger)
        return grants

    def _start_agent(self, plan: SessionPlan) -> _Agent | None:
        """Start the agent. Its channel is opened behind the session's, which comes first where the
        server opens but one, and without waiting for it."""
        if plan.start_agent is None:
            return None
        return asyncio.ensure_future(plan.start_agent())

    async def _request(
        self, plan: SessionPlan, agent: _Agent | None, program_asked: Callable[[], None]
    ) -> Grants:
        """Ask for everything, and for the program at once unless the command has to wait."""
        asked = self._ask_for_surroundings(plan)
        display = await agent if agent is not None else None
        if not display:
            self._ask_for_display(plan, asked)
            if depends_on_grants(plan):
                await asyncio.gather(*asked.values())
        program, command = decide_program(plan, _granted(asked, display))
        arguments = [String(os.fsencode(command))] if command else []
        started = self._ask(program, *arguments)
        program_asked()
        await asyncio.gather(*asked.values(), started)
        if plan.pty is not None and _is_refused(asked, b"pty-req"):
            if plan.pty.required:
                self.close()
                remedy = "without -t, if the program needs no terminal"
                raise RequestRefusedError(PTY_REQUEST, remedy=remedy)
            self._session.pty_refused()
        if not started.result():
            self.close()
            raise RequestRefusedError(program.decode("ascii"))
        return _granted(asked, display)

    def _ask_for_surroundings(self, plan: SessionPlan) -> _Asked:
        """Send what comes before the program; return the requests that are answered."""
        asked: _Asked = {}
        for name, value in plan.variables.items():
            if name != BACKEND_VARIABLE:
                self._send_request(b"env", String(os.fsencode(name)), String(os.fsencode(value)))
        if plan.forward_agent:
            assert isinstance(self._conn, ClientConnection)
            self._conn.allow_agent(plan.forward_agent)
            self._send_request(b"auth-agent-req@openssh.com")
        if plan.pty is not None:
            asked[b"pty-req"] = self._ask(b"pty-req", *_encode_pty(plan.pty))
        return asked

    def _ask_for_display(self, plan: SessionPlan, asked: _Asked) -> None:
        """Ask for X11 channels, and for what goes with a display."""
        if plan.x11 is not None:
            asked[b"x11-req"] = self._ask(b"x11-req", *_encode_x11(plan.x11))
        wanted = plan.variables.get(BACKEND_VARIABLE, plan.backend if plan.x11 else None)
        if wanted is not None:
            arguments = String(BACKEND_VARIABLE), String(os.fsencode(wanted))
            asked[b"env"] = self._ask(b"env", *arguments)

    def _ask(self, request: bytes, *arguments: bytes) -> asyncio.Task[bool | None]:
        """Make a request without waiting. Tasks begin in order, so the packets leave in order."""
        return asyncio.ensure_future(self._make_request(request, *arguments))

    @property
    def takes_requests(self) -> bool:
        """Whether requests may still be sent; after the end of our input they may."""
        return self._send_state not in ("close_pending", "closed")

    def send_eow(self) -> None:
        """Tell an OpenSSH server that nobody reads any more (PROTOCOL §2.1); else just close."""
        assert self._conn is not None
        version = str(self._conn.get_extra_info("server_version", ""))
        if "OpenSSH" in version:
            self._send_request(b"eow@openssh.com")
        else:
            self.close()


_Asked = dict[bytes, "asyncio.Task[bool | None]"]
_Agent = asyncio.Future[Mapping[str, str] | None]


def _granted(asked: _Asked, display: Mapping[str, str] | None = None) -> Grants:
    """Return what has been granted by now."""
    x11, backend = (
        name in asked and asked[name].done() and bool(asked[name].result())
        for name in (b"x11-req", b"env")
    )
    return Grants(x11, backend, display or {})


def _is_refused(asked: _Asked, name: bytes) -> bool:
    return name in asked and not asked[name].result()


def _encode_pty(pty: PtyRequest) -> list[bytes]:
    modes = b"".join(Byte(code) + UInt32(value) for code, value in pty.modes.items())
    size = pty.size
    return [
        String(os.fsencode(pty.term)),
        UInt32(size.columns),
        UInt32(size.rows),
        UInt32(size.width_pixels),
        UInt32(size.height_pixels),
        String(modes + Byte(_TTY_OP_END)),
    ]


def _encode_x11(x11: X11Request) -> list[bytes]:
    return [Boolean(False), String(x11.name), String(hexlify(x11.cookie)), UInt32(x11.screen)]


class RemoteProcess(asyncssh.SSHClientSession[bytes]):
    """The remote process as seen from here: output out, input in, and how it ended."""

    def __init__(self, console: Console, *, stdout: int, stderr: int, number: int = 0) -> None:
        self.console = console
        self.number = number
        self._channel: SessionChannel | None = None
        self.exit_status: int | None = None
        self.error: Exception | None = None
        self.closed = asyncio.Event()
        self._blocked: set[int] = set()
        self._order = OutputOrder()
        self._stdout = self._writer(stdout, self._stdout_broken)
        self._stderr = self._writer(stderr, self._stderr_broken)
        self._input: InputPump | None = None
        self._input_paused = False

    def _writer(self, descriptor: int, broken: Callable[[OSError], None]) -> OutputWriter:
        return OutputWriter(
            descriptor,
            pause=lambda: self._pause_output(descriptor),
            resume=lambda: self._resume_output(descriptor),
            broken=broken,
            order=self._order,
        )

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Remember the channel."""
        assert isinstance(chan, SessionChannel)
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Pass output on, stderr apart from stdout."""
        (self._stderr if datatype == EXTENDED_DATA_STDERR else self._stdout).write(data)

    def pty_refused(self) -> None:
        """The server gave no terminal; the process runs without."""
        self.console.error(f"{PTY_REQUEST} request failed on channel 0")

    def tell(self, data: bytes) -> None:
        """Put out on stderr what is not the process's own, in its turn."""
        self._stderr.write(data)

    def discard_output(self) -> None:
        """Nobody wants the output any more: what waits is lost, and what comes."""
        self._stdout.abandon()
        self._stderr.abandon()

    def eof_received(self) -> bool:
        """Keep our own direction open: the process may still read."""
        return True

    def exit_status_received(self, status: int) -> None:
        """Remember the exit status."""
        self.exit_status = status

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed, or the whole connection with it."""
        self.error = exc
        if self._input is not None:
            self._input.stop()
        self._channel = None
        self.closed.set()

    async def end_with(self, connection: ClientConnection) -> None:
        """Count as ended when the connection does: for a run without a session (-N)."""
        await connection.wait_closed()
        self.connection_lost(connection.loss)

    def write(self, data: bytes) -> None:
        """Send input to the process; nothing happens once it is gone."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(data)

    def write_eof(self) -> None:
        """Send end of input."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write_eof()

    def pump_input(self, pump: InputPump) -> None:
        """Read local input from now on, at the speed that the channel takes it."""
        self._input = pump
        if not self._input_paused:
            pump.start()

    def pause_writing(self) -> None:
        """The channel's window is full."""
        self._input_paused = True
        if self._input is not None:
            self._input.pause()

    def resume_writing(self) -> None:
        """There is room in the channel's window again."""
        self._input_paused = False
        if self._input is not None:
            self._input.resume()

    def change_size(self, size: TerminalSize) -> None:
        """Tell the remote terminal its new size (RFC 4254 §6.7)."""
        if self._channel is not None and self._channel.takes_requests:
            self._channel.change_terminal_size(
                size.columns, size.rows, size.width_pixels, size.height_pixels
            )

    def send_break(self, milliseconds: int = 1000) -> None:
        """Send a break (RFC 4335)."""
        if self._channel is not None and self._channel.takes_requests:
            self._channel.send_break(milliseconds)

    def end(self) -> None:
        """Close the channel from this side."""
        if self._channel is not None:
            self._channel.abort()

    def hold_output(self, held: bool) -> None:
        """Take no more output for a while: something else is shown on the terminal."""
        if held:
            self._pause_output(_HELD)
        else:
            self._resume_output(_HELD)

    async def flush(self, seconds: float) -> None:
        """Wait until nothing waits to be put out, but no longer than that."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (self._stdout.is_idle and self._stderr.is_idle):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_FLUSH_CHECK)

    def fork_with(self, fork: Callable[[], None]) -> None:
        """Call ``fork``, which returns in a child process, so that output goes on there."""
        with self._order.condition:  # no thread of ours holds it then
            fork()
        self._stdout.survive_fork()
        self._stderr.survive_fork()

    async def finish_stdout(self) -> None:
        """Wait until all of stdout has been written, or can't be; what else there is is told on."""
        await self._stdout.close()

    async def drain(self) -> None:
        """Wait until all output has been written, or can't be."""
        await asyncio.gather(self._stdout.close(), self._stderr.close())

    def _pause_output(self, descriptor: int) -> None:
        self._blocked.add(descriptor)
        if self._channel is not None:
            self._channel.pause_reading()

    def _resume_output(self, descriptor: int) -> None:
        self._blocked.discard(descriptor)
        if not self._blocked and self._channel is not None:
            self._channel.resume_reading()

    def _stdout_broken(self, error: OSError) -> None:
        """Nobody reads our output any more: say so to the server, and let the data go by."""
        self.console.debug(1, f"write: {error.strerror}")
        if self._channel is not None and self._channel.takes_requests:
            self._channel.send_eow()
        self._resume_output(self._stdout.descriptor)

    def _stderr_broken(self, error: OSError) -> None:
        """Let the messages go by, as ssh does: the output is read on."""
        self._resume_output(self._stderr.descriptor)


async def start_process(
    connection: ClientConnection,
    plan: SessionPlan,
    process: RemoteProcess,
    asked: Callable[[], None],
) -> Grants:
    """Start a remote process on a connection; return what the server granted.

    ``asked`` is called when it is asked for, before the server has answered.
    Raises SessionError where the server refuses, ConnectionEndedError where the connection ends.
    """
    try:
        channel = SessionChannel(
            connection,
            asyncio.get_running_loop(),
            "replace",
            None,
            "strict",
            FIRST_WINDOW,
            PACKET_SIZE,
        )
        return await channel.start(plan, process, asked)
    except (asyncssh.Error, OSError) as error:
        host = connection.get_extra_info("host") or "the server"
        raise ConnectionEndedError(host, connection.loss or error) from None
