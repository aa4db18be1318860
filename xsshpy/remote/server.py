"""The agent itself: the X display on the other host, at the near end of the link.

One process, one thread, one loop over the link's two descriptors, the listening sockets and the
clients. Each client has a conversation (see ``conversation``); this module only moves bytes.

Rules kept here: stdin and stdout are the link, and their end is the end of everything; nothing is
left behind. A client's fault ends that client; the link's ends the agent. No wait is without end
and no buffer without a limit. Python 3.6 and later, standard library only.

Follows the X Window System Protocol, version 11, §8 (connection setup).
"""

import errno
import gc
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from typing import Callable, Deque, Optional

from .clients import LITTLE, Client, ClientTraffic
from .conversation import Conversation
from .facts import ServerFacts
from .frames import Frame, FrameKind, LinkError
from .listener import COOKIE_NAME, Listener, NoDisplayError, open_listener
from .payloads import (
    build_admitted,
    build_note,
    build_open,
    build_ping,
    parse_pool,
    parse_session,
)
from .plain import PlainConversation
from .records import Told, apply_record, parse_records
from .xmessages import (
    NO_AUTHORIZATION,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    ProtocolError,
    SetupRequest,
    build_setup_failed,
    build_setup_request,
)
from .xrequests import FactClass

CHUNK = 256 * 1024
CLIENT_LIMIT = 256
"""Most clients at one time; X servers themselves take 256 to 2048."""

REFUSED_LIMIT = 32
"""How many more are heard out, to be told why they are refused."""

REST = 0.5
"""How long no client is let in where there is no descriptor left for it (seconds)."""

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

SETUP_TIMEOUT = 30.0
"""How long a client may take to say who it is (seconds)."""

FACTS_TIMEOUT = 3.0
"""How long a client waits for the first facts; then it goes without them (seconds)."""

HOLD = 0.001
"""How long requests may be held together that nobody waits for the effect of (seconds).

A start asks hundreds of questions, one after another, that are answered here."""

LITTLE_READ = 4096
"""What arrives beyond this is acknowledged at once (bytes)."""

FAREWELL_TIMEOUT = 1.0
"""How long the last words may take (seconds)."""

PING_INTERVAL = 60.0
"""After so many seconds of silence the other end is asked for a sign of life."""

WRONG_COOKIE = b"xssh: X11 connection rejected because of wrong authentication\n"
TOO_LATE = b"xssh: X11 connection rejected after ForwardX11Timeout expired\n"
WRONG_VERSION = b"Protocol version mismatch"
"""X servers' own words: they never hear a client's own version."""
TOO_MANY = b"xssh: X11 connection rejected: too many are open\n"


class Agent(ClientTraffic):
    """The loop. ``run`` returns when the link ends."""

    def __init__(self, listener: Listener, source: int, sink: int) -> None:
        super().__init__()
        self._listener = listener
        self._source = source
        self._sink = sink
        self._listening = {each.fileno(): each for each in listener.sockets}
        self._output: Deque[memoryview] = deque()
        self._pool: Deque["tuple[int, bytes]"] = deque()
        self._facts: Optional[ServerFacts] = None
        self._primed = False
        self._expired = False
        self._rest_until: Optional[float] = None
        self._stopped = False
        self._sink_events = 0
        self._heard = time.monotonic()
        self._held_since: Optional[float] = None

    # -- the loop --

    def run(self) -> None:
        """Serve clients until the link ends."""
        for descriptor in (self._source, self._sink):
            os.set_blocking(descriptor, False)
        for descriptor in (self._source, *self._listening):
            self._poll.register(descriptor, select.POLLIN)
        self._poll.register(self._sink, 0)
        while not self._stopped:
            if not self._holds():
                self._write_link()
            self._arrange()
            for descriptor, event in self._poll.poll(self._patience()):
                self._serve(descriptor, event)
            self._look_at_time()
        for client in list(self._clients.values()):
            self._drop_socket(client)

    def _holds(self) -> bool:
        """Tell whether what is to be sent may wait for more of it."""
        fresh, urgent = self._fresh, self._urgent
        if fresh and not urgent and not self._output and self._link.has_little:
            now = time.monotonic()
            if self._held_since is None:
                self._held_since = now
            if now - self._held_since < HOLD:
                return True
        self._fresh = self._urgent = False
        self._held_since = None
        return False

    def _serve(self, descriptor: int, event: int) -> None:
        if descriptor == self._source:
            self._read_link()
        elif descriptor == self._sink:
            if event & (select.POLLERR | select.POLLHUP):
                self._stopped = True
        elif descriptor in self._listening:
            self._accept(self._listening[descriptor])
        else:
            client = self._by_descriptor.get(descriptor)
            if client is not None:
                self._serve_client(client, event)

    def _patience(self) -> int:
        """Return how long nothing needs to be done (milliseconds)."""
        if self._held_since is not None:
            return 1
        now = time.monotonic()
        times = [client.deadline for client in self._clients.values() if client.deadline]
        times.append(self._rest_until or self._heard + PING_INTERVAL)
        return max(0, int((min(times) - now) * 1000) + 1)

    def _look_at_time(self) -> None:
        now = time.monotonic()
        for client in list(self._clients.values()):
            if client.deadline is not None and now >= client.deadline:
                self._lose_patience(client)
        if self._rest_until is not None and now >= self._rest_until:
            self._rest_until = None
            self._listen(select.POLLIN)
        if now - self._heard >= PING_INTERVAL:
            self._heard = now
            self._link.queue_control(build_ping(b""))
            self._urgent = True

    def _lose_patience(self, client: Client) -> None:
        client.deadline = None
        if client in self._waiting:
            self._waiting.remove(client)
            self._welcome(client)
        else:
            self._drop_socket(client)
            self._forget(client)

    # -- the link --

    def _read_link(self) -> None:
        try:
            data = os.read(self._source, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._stopped = True
            return
        self._heard = time.monotonic()
        self._fresh = True
        if len(data) > LITTLE_READ:
            self._urgent = True
        for frame in self._link.receive_data(data):
            self._take_frame(frame)

    def _write_link(self) -> None:
        """Write what the link may have."""
        while True:
            if not self._output:
                self._output.extend(memoryview(each) for each in self._link.take())
                if not self._output:
                    break
            try:
                written = os.writev(self._sink, list(self._output)[:64])
            except BlockingIOError:
                break
            except OSError:
                self._stopped = True
                return
            while written:
                first = self._output[0]
                if written < len(first):
                    self._output[0] = first[written:]
                    break
                written -= len(first)
                self._output.popleft()

    def _arrange(self) -> None:
        """Ask to be woken for what can be done now; forget who is gone."""
        events = select.POLLOUT if self._output else 0
        if events != self._sink_events:
            self._sink_events = events
            self._poll.modify(self._sink, events)
        for client in list(self._by_descriptor.values()):
            self._set_events(client)
        for client in [each for each in self._clients.values() if each.close_received]:
            self._forget(client)

    def _tell_counters(self) -> None:
        """Tell the counters of the clients that are still here; gives up after a moment."""
        for client in self._clients.values():
            if client.conversation is not None and not client.close_sent:
                self._link.queue_control(self._count(client))
        ready = select.poll()
        ready.register(self._sink, select.POLLOUT)
        deadline = time.monotonic() + FAREWELL_TIMEOUT
        self._write_link()
        while self._output and not self._stopped and time.monotonic() < deadline:
            ready.poll(100)
            self._write_link()

    def _take_frame(self, frame: Frame) -> None:
        kind = frame.kind
        if kind is FrameKind.DATA:
            client = self._clients.get(frame.client)
            if client is not None and client.conversation is not None:
                self._take_from_server(client, bytes(frame.payload))
        elif kind is FrameKind.CLOSE:
            self._take_close(frame)
        elif kind is FrameKind.POOL:
            self._take_pool(frame)
        elif kind in (FrameKind.PRIME, FrameKind.PROPERTY):
            try:
                self._take_facts(frame)
            except ProtocolError as error:
                raise LinkError(str(error)) from None
        elif kind is FrameKind.FORGET:
            for fact in FactClass:
                if self._facts is not None and fact.value in bytes(frame.payload):
                    self._facts.forget(fact)
        else:
            self._take_order(frame)

    def _take_order(self, frame: Frame) -> None:
        """Do what concerns who may come in, and for how long."""
        if frame.kind is FrameKind.ADMIT:
            self._admit(parse_session(frame))
        elif frame.kind is FrameKind.DISMISS:
            self._dismiss(parse_session(frame))
        elif frame.kind is FrameKind.EXPIRED:
            self._expired = True
        elif frame.kind is FrameKind.STOP:
            self._tell_counters()
            self._stopped = True

    def _take_pool(self, frame: Frame) -> None:
        offered = parse_pool(frame)
        self._pool.append((offered.slot, offered.setup))

    def _take_facts(self, frame: Frame) -> None:
        for record in parse_records(bytes(frame.payload)):
            if record.about is Told.SETUP and not record.value:  # that X server is no more
                self._facts = None
                self._pool.clear()
            elif record.about is Told.SETUP and self._facts is None:
                self._facts = ServerFacts(record.value, LITTLE)
            elif self._facts is not None:
                apply_record(self._facts, record)
        if frame.kind is FrameKind.PRIME and not self._primed:
            self._primed = True
            waiting, self._waiting = self._waiting, []
            for client in waiting:
                client.deadline = None
                self._welcome(client)

    def _admit(self, session: int) -> None:
        try:
            self._listener.admit(session)
            written = True
        except OSError:
            written = False
        self._link.queue_control(build_admitted(session, written))
        self._urgent = True

    def _dismiss(self, session: int) -> None:
        """End a session's clients, and let no more of them in."""
        self._listener.dismiss(session)
        for client in list(self._clients.values()):
            if client.setup is not None and client.session == session:
                self._close(client)

    # -- clients: the beginning --

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._rest_until = time.monotonic() + REST
                self._listen(0)
            return
        places = CLIENT_LIMIT + REFUSED_LIMIT
        if len(self._clients) >= places and not self._drop_stranger():
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = next(each for each in range(1, places + 1) if each not in self._clients)
        client = Client(number, sock, time.monotonic() + SETUP_TIMEOUT)
        self._clients[number] = client
        self._by_descriptor[sock.fileno()] = client
        client.events = select.POLLIN
        self._poll.register(sock.fileno(), client.events)

    def _listen(self, events: int) -> None:
        for descriptor in self._listening:
            self._poll.modify(descriptor, events)

    def _drop_stranger(self) -> bool:
        """Drop the one who says for longest not who it is; return whether there was one.

        Anybody on this host can connect, and must not keep the display's owner out.
        """
        for client in self._clients.values():
            if client.setup is None and client.sock is not None:
                self._drop_socket(client)
                self._forget(client)
                return True
        return False

    def _read_setup(self, client: Client, data: bytes) -> None:
        try:
            client.reader.receive_data(data)
            event = client.reader.next_event()
        except ProtocolError:
            self._refuse(client, WRONG_COOKIE)
            return
        if not isinstance(event, SetupRequest):
            return
        shown = event.authorization
        session = self._listener.find_session(shown.data)
        right = session is not None and shown.name == COOKIE_NAME
        if session is None or not right or self._expired:
            told = right or not self._listener.was_let_in(shown.data)
            self._refuse(client, TOO_LATE if right else WRONG_COOKIE, told=told)
            return
        if (event.major, event.minor) != (PROTOCOL_MAJOR, PROTOCOL_MINOR):
            self._refuse(client, WRONG_VERSION, told=False)
            return
        if sum(each.setup is not None for each in self._clients.values()) >= CLIENT_LIMIT:
            self._refuse(client, TOO_MANY)
            return
        client.setup = event
        client.session = session
        if self._primed:
            client.deadline = None
            self._welcome(client)
        else:
            client.deadline = time.monotonic() + FACTS_TIMEOUT
            self._waiting.append(client)

    def _welcome(self, client: Client) -> None:
        """Let a client in: with a connection from the pool, or with one of its own."""
        setup = client.setup
        assert setup is not None
        slot, answer = None, b""
        if self._facts is not None and setup.order is LITTLE:
            if self._pool:
                slot, answer = self._pool.popleft()
            client.conversation = Conversation(client.reader, self._facts)
        else:
            client.conversation = PlainConversation(client.reader)
        client.welcomed = True
        plain = SetupRequest(setup.order, setup.major, setup.minor, NO_AUTHORIZATION)
        self._link.open_stream(client.number)
        self._urgent = True
        self._link.queue(
            build_open(client.number, slot, build_setup_request(plain), client.session)
        )
        if slot is not None:
            self._take_from_server(client, answer, credited=False)

    def _refuse(self, client: Client, reason: bytes, told: bool = True) -> None:
        order = client.reader.order
        if order is not None:
            client.output.append(build_setup_failed(order, reason))
            self._write_client(client)
        if told:
            self._link.queue_note(build_note(reason.decode("ascii").strip()))
            self._urgent = True
        self._drop_socket(client)
        self._forget(client)

    def _serve_client(self, client: Client, event: int) -> None:
        if event & select.POLLOUT:
            self._write_client(client)
        if client.ended and event & (select.POLLHUP | select.POLLERR):
            self._close(client)
        elif event & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self._read_client(client)

    def _read_client(self, client: Client) -> None:
        if client.sock is None or client.ended:
            return
        try:
            data = client.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._close(client)
            return
        if not data:
            self._end(client)
        elif client.conversation is None:
            if client.setup is None:
                self._read_setup(client, data)
            else:
                client.reader.receive_data(data)
        else:
            self._converse(client, client.conversation.receive_from_client, data)


class _Stopped(BaseException):
    """A signal asks for the end."""


def _stop(number: int, frame: object) -> None:
    raise _Stopped


def serve(say: Callable[..., None]) -> None:
    """Be the display until the link ends. ``say`` writes a stage line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(gc, "freeze"):  # since 3.7; what is there now need not be looked at again
        gc.freeze()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    listener = None
    try:
        listener = open_listener()
        authority = listener.write_authority()
        say("ready", display=listener.name, authority=authority)
        Agent(listener, 0, 1).run()
    except (NoDisplayError, OSError) as error:
        say("failed", reason=(getattr(error, "strerror", None) or str(error)).replace(" ", "_"))
    except LinkError as error:
        sys.stderr.write("xssh-agent: {}\n".format(error))
    except _Stopped:
        pass
    finally:
        if listener is not None:
            listener.close()
