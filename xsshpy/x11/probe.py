"""The child process that proves a display: python-xlib on a socket that is already connected.

It is a process of its own because python-xlib has no timeouts and prints to stdout. The parent
(``x11.verify``) connects, and hands over the socket and one line of JSON on stdin, cookie included;
this side answers with one line of JSON on stdout. The socket replaces python-xlib's own connecting,
which knows neither launchd paths nor IPv6, and the cookie its search, which fails on FamilyWild.

Rules kept here:

- It ends with its parent: end of file on stdin ends it at once, in whatever it is doing, and the
  deadline of the request bounds everything before the answer.
- A server may say anything: what is read from it is limited to MAX_RECEIVED bytes.
- An untrusted cookie (SECURITY extension, "SecurityGenerateAuthorization") is held: the process
  stays, as a client, until stdin ends, because a server that resets when its last client leaves
  forgets the cookie. Then it is revoked.
- Imports little: it starts while the connection to the server is made, on the same processors.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import threading
from typing import TypedDict

from Xlib import error as xlib_error
from Xlib.ext import security
from Xlib.protocol import display as xlib_display
from Xlib.protocol import request as xlib_request
from Xlib.support import connect as xlib_connect

MAX_RECEIVED = 1 << 20
"""Most bytes taken from a server for the whole proof."""
REVOKE_SECONDS = 1
"""Longest time to spend on the farewell to a server."""

_VALUE_TIMEOUT = 1
_VALUE_TRUST_LEVEL = 2


class Request(TypedDict):
    """What the parent sends: times in seconds, ``cookie`` in hexadecimal, empty for none."""

    path: list[str]
    fd: int
    protocol: str
    cookie: str
    screen: int
    deadline: float
    untrusted: bool
    untrusted_timeout: int


class Facts(TypedDict):
    """What the server says of itself; sizes in pixels, of the screen asked for."""

    vendor: str
    release: int
    protocol: tuple[int, int]
    screens: int
    screen: int
    depth: int
    width: int
    height: int
    extensions: list[str]


class Answer(TypedDict):
    """What the parent gets.

    ``kind`` is works, refused, closed, garbled, hangs or broken; ``words`` are the server's own,
    or the failure's. ``authorization`` and ``cookie`` (hexadecimal) are those of the untrusted
    cookie; ``untrusted_words`` tell why there is none.
    """

    kind: str
    words: str
    facts: Facts | None
    cookie: str
    authorization: int
    untrusted_words: str


class GarbledError(Exception):
    """What answers is no X server."""


class _Connected:
    """A connected socket with a limit on what is read, as python-xlib uses sockets."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.allowance = MAX_RECEIVED

    def fileno(self) -> int:
        return self._sock.fileno()

    def getsockopt(self, level: int, option: int) -> int:
        return self._sock.getsockopt(level, option)

    def send(self, data: bytes) -> int:
        return self._sock.send(data)

    def recv(self, size: int) -> bytes:
        data = self._sock.recv(min(size, 1 << 16))
        self.allowance -= len(data)
        if self.allowance < 0:
            raise GarbledError(f"it sent more than {MAX_RECEIVED} bytes")
        return data

    def close(self) -> None:
        self._sock.close()


class _Display(xlib_display.Display):  # type: ignore[misc]  # python-xlib has no types
    """python-xlib's protocol layer alone: its upper layer reads the keymap and every extension."""

    resource_classes: dict[str, type] = {}  # noqa: RUF012 - python-xlib's name; ids stay numbers

    def parse_connection_setup(self) -> bool:
        # python-xlib takes every status but 1 for a refusal with a reason, and would wait for as
        # many bytes as a web server's greeting seems to announce.
        if not self.sent_requests[0]._data and self.data_recv and self.data_recv[0] > 2:
            raise GarbledError("its first byte is none that X11 knows")
        return bool(super().parse_connection_setup())


class _Reply:
    """The one answer, given by whoever is first: the proof or the watch over it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._given = False

    def give(self, answer: Answer) -> None:
        with self._lock:
            if self._given:
                return
            self._given = True
            line = json.dumps(answer).encode() + b"\n"
            while line:
                line = line[os.write(self._fd, line) :]


def child_main(line: bytes) -> None:
    """Serve one request (a line of JSON) and end the process; never returns."""
    request: Request = json.loads(line)
    reply = _Reply(os.dup(1))
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 1)  # python-xlib prints there
    os.dup2(quiet, 2)
    proved, prove_end = os.pipe()
    watch = threading.Thread(target=_watch, args=(request["deadline"], reply, proved), daemon=True)
    watch.start()
    try:
        low = os.dup(request["fd"])  # select takes no descriptor above 1023
        os.close(request["fd"])
        sock = _Connected(socket.socket(fileno=low))
        display, answer = _prove(sock, request)
        os.close(prove_end)
        watch.join()
        reply.give(answer)
        if display is not None and answer["cookie"]:
            _hold(display, sock, answer["authorization"])
    except OSError:
        pass  # the parent has gone: nobody is left to tell
    finally:
        os._exit(0)


def _watch(deadline: float, reply: _Reply, proved: int) -> None:
    """End the process when the parent goes or time is up before the proof has ended."""
    ready, _, _ = select.select([0, proved], [], [], deadline)
    if proved in ready:
        return
    if not ready:
        with contextlib.suppress(OSError):
            reply.give(_failure("hangs", ""))
    os._exit(0)


def _failure(kind: str, words: str) -> Answer:
    return Answer(
        kind=kind, words=words, facts=None, cookie="", authorization=0, untrusted_words=""
    )


def _prove(sock: _Connected, request: Request) -> tuple[_Display | None, Answer]:
    try:
        os.set_blocking(sock.fileno(), True)
        display = _open(sock, request)
        facts = _read_facts(display, request["screen"])
        answer = Answer(
            kind="works", words="", facts=facts, cookie="", authorization=0, untrusted_words=""
        )
        if request["untrusted"]:
            _generate(display, facts, request["untrusted_timeout"], answer)
        return display, answer
    except xlib_error.DisplayConnectionError as error:
        return None, _failure("refused", _text(error.msg))
    except (xlib_error.ConnectionClosedError, ConnectionError) as error:
        return None, _failure("closed", str(error))
    except GarbledError as error:
        return None, _failure("garbled", str(error))
    except Exception as error:  # whatever python-xlib makes of bytes that are no X11
        return None, _failure("garbled", type(error).__name__)


def _open(sock: _Connected, request: Request) -> _Display:
    name, data = request["protocol"].encode(), bytes.fromhex(request["cookie"])

    def get_display(display: str) -> tuple[str, None, str, int, int]:
        return display, None, "", 0, request["screen"]

    def get_socket(*_: object) -> _Connected:
        return sock

    def get_auth(*_: object) -> tuple[bytes, bytes]:
        return (name, data) if data else (b"", b"")

    xlib_connect.get_display = get_display
    xlib_connect.get_socket = get_socket
    xlib_connect.get_auth = get_auth
    return _Display("")


def _read_facts(display: _Display, screen: int) -> Facts:
    info = display.info
    if info.protocol_major != 11 or not info.roots:
        raise GarbledError("it speaks another protocol version, or has no screen")
    chosen = min(screen, len(info.roots) - 1)
    root = info.roots[chosen]
    extensions = xlib_request.ListExtensions(display=display).names
    return Facts(
        vendor=_text(info.vendor),
        release=int(info.release_number),
        protocol=(int(info.protocol_major), int(info.protocol_minor)),
        screens=len(info.roots),
        screen=chosen,
        depth=int(root.root_depth),
        width=int(root.width_in_pixels),
        height=int(root.height_in_pixels),
        extensions=[_text(name) for name in extensions],
    )


def _generate(display: _Display, facts: Facts, timeout: int, answer: Answer) -> None:
    """Put an untrusted cookie into ``answer``, or why there is none."""
    if security.extname not in facts["extensions"]:
        answer["untrusted_words"] = "the X server has no SECURITY extension"
        return
    try:
        about = xlib_request.QueryExtension(display=display, name=security.extname)
        display.set_extension_major(security.extname, about.major_opcode)
        made = security.SecurityGenerateAuthorization(
            display=display,
            opcode=about.major_opcode,
            value_mask=_VALUE_TIMEOUT | _VALUE_TRUST_LEVEL,
            auth_proto=b"MIT-MAGIC-COOKIE-1",
            auth_data=b"",
            values=[timeout, security.SecurityClientUntrusted],
        )
    except xlib_error.XError as error:
        answer["untrusted_words"] = f"the X server refuses to make an untrusted cookie: {error}"
        return
    answer["cookie"] = bytes(made.auth_data_return).hex()
    answer["authorization"] = int(made.authid)
    if not answer["cookie"]:
        answer["untrusted_words"] = "the X server made an empty cookie"


def _text(value: object) -> str:
    """Return a server's words, bytes or text, without what could upset a terminal."""
    raw = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return "".join(c if c.isprintable() else " " for c in raw[:200]).strip()


def _hold(display: _Display, sock: _Connected, authorization: int) -> None:
    """Stay connected until stdin ends, then revoke ``authorization``."""
    while True:
        ready, _, _ = select.select([0, sock.fileno()], [], [])
        if 0 in ready:
            break
        sock.allowance = MAX_RECEIVED
        display.pending_events()  # raises when the server has gone
        del display.event_queue[:]
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(REVOKE_SECONDS)
    sock.allowance = MAX_RECEIVED
    opcode = display.get_extension_major(security.extname)
    security.SecurityRevokeAuthorization(display=display, opcode=opcode, authid=authorization)
    # A reply proves that the request before it was carried out.
    xlib_request.QueryExtension(display=display, name=security.extname)
