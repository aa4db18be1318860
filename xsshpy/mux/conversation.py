"""A conversation with a master: requests and their answers, each with a deadline where it has one.

Rules kept here: a master that is silent, gone, or speaks something else never hangs its passenger,
nor one that is stopped while a user or a server is asked, where the system tells that;
:class:`MasterLostError` tells the two apart. ssh's words for what a master says are in
``xsshpy.mux.client``. PROTOCOL.mux.
"""

from __future__ import annotations

import time

from xsshpy.mux.messages import (
    VERSION,
    XSSH_EXTENSION,
    Alive,
    AliveCheck,
    FrameReader,
    Hello,
    MuxProtocolError,
    decode_reply,
    encode,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from xsshpy.console import Console
    from xsshpy.mux.messages import Reply, Request

_READ_SIZE = 4096


class MasterLostError(Exception):
    """The master can't be talked to. ``is_silent``: it is there but does not answer in time."""

    def __init__(self, reason: str, *, is_silent: bool = False) -> None:
        super().__init__(reason)
        self.is_silent = is_silent


class Conversation:
    """What is said on one connection to a master, in turn. ``seconds`` is for each quick answer.

    ``is_xssh``, after the hellos: it is a master of xssh's.
    """

    def __init__(self, connection: _socket.socket, console: Console, seconds: float) -> None:
        self.socket = connection
        self._console = console
        self._seconds = seconds
        self._reader = FrameReader()
        self._master_pid = 0
        self.request_id = 0
        self.is_xssh = False

    def exchange_hellos(self) -> Hello:
        """Say hello and return the master's. Raises MasterLostError and MuxProtocolError."""
        self.send(Hello())
        hello = self.receive(self._seconds)
        if not isinstance(hello, Hello):
            raise MuxProtocolError("a master begins with another message than hello")
        if hello.version == VERSION:
            self._console.debug(2, f"mux_client_hello_exchange: master version {hello.version}")
            for name in set(hello.extensions[::2]) - {XSSH_EXTENSION[0]}:
                shown = name.decode("utf-8", "replace")
                self._console.debug(2, f'Unrecognised master extension "{shown}"')
        self.is_xssh = XSSH_EXTENSION[0] in hello.extensions[::2]
        return hello

    def check_alive(self) -> int:
        """Return the master's process id. Raises MasterLostError and MuxProtocolError."""
        reply = self.ask(AliveCheck(self.request_id))
        if not isinstance(reply, Alive):
            raise MuxProtocolError("a master does not answer the alive check")
        self._console.debug(3, f"mux_client_request_alive: done pid = {reply.pid}")
        self._master_pid = reply.pid
        return reply.pid

    def ask(self, request: Request, *, patient: bool = False) -> Reply:
        """Send a request and return its answer.

        The answer may take any time where the user or the server is asked first: ``patient``.
        Raises MasterLostError, and MuxProtocolError also for an answer to something else.
        """
        self.send(request)
        return self.answer(patient=patient)

    def answer(self, *, patient: bool = False) -> Reply:
        """Return the answer to what was sent before. Raises as :meth:`ask` does."""
        reply = self.receive(None if patient else self._seconds)
        theirs = getattr(reply, "request_id", None)
        if theirs != self.request_id:
            raise MuxProtocolError(
                f"out of sequence reply: my id {self.request_id} theirs {theirs}"
            )
        self.request_id += 1
        return reply

    def send(self, request: Request) -> None:
        """Send a message. Raises MasterLostError, and MuxProtocolError for one that is too long."""
        data = encode(request)
        try:
            self.socket.settimeout(self._seconds)
            self.socket.sendall(data)
        except OSError as error:
            raise _lost(error) from None

    def receive(self, seconds: float | None) -> Reply:
        """Return the next message; None waits as long as the master is not seen to be stopped.

        Raises as :meth:`ask` does.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while (frame := self._reader.next_frame()) is None:
            try:
                left = deadline - time.monotonic() if deadline is not None else self._seconds
                self.socket.settimeout(max(left, 0.001))
                data = self.socket.recv(self._reader.missing())
            except TimeoutError as error:
                if deadline is None and not _is_stopped(self._master_pid):
                    continue
                raise _lost(error) from None
            except OSError as error:
                raise _lost(error) from None
            if not data:
                raise MasterLostError("Broken pipe")
            self._reader.receive_data(data)
            if deadline is not None and time.monotonic() > deadline and self._reader.missing():
                raise MasterLostError("Connection timed out", is_silent=True)
        return decode_reply(frame)

    def read_available(self) -> list[Reply] | None:
        """Return the messages that have arrived, or None at the end. Raises MuxProtocolError."""
        try:
            self.socket.settimeout(0)
            data = self.socket.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None
        if not data:
            return None
        self._reader.receive_data(data)
        found = []
        while (frame := self._reader.next_frame()) is not None:
            found.append(decode_reply(frame))
        return found

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def _is_stopped(pid: int) -> bool:
    """Say whether a process is stopped, by Ctrl-Z or a debugger; False where nothing tells."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:
        return False


def _lost(error: OSError) -> MasterLostError:
    if isinstance(error, TimeoutError):
        return MasterLostError("Connection timed out", is_silent=True)
    return MasterLostError(error.strerror or str(error))
