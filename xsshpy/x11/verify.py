"""Is there a working X server? Proved by a child process while the SSH connection is made.

Rules kept here:

- Nothing blocks the event loop, and every wait has an end: connecting, the child, its farewell.
- The child (``x11.probe``) gets the connected socket as a descriptor and the cookie on its stdin;
  no secret is in an argument, in the environment or on disk.
- The child leads a session of its own, so that Ctrl-C at the terminal is not for it, and it ends
  when its stdin does: with ``close()``, or with this process, however that ends.
- What the server said reaches the user cleaned of control characters and cut to length.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from typing import TYPE_CHECKING

import xsshpy
from xsshpy.errors import DisplayError
from xsshpy.values import dataclass, field
from xsshpy.x11.authority import AuthorityEntry
from xsshpy.x11.display import Display, open_display, start_remedy

if TYPE_CHECKING:
    from xsshpy.x11.probe import Answer, Facts, Request

DEADLINE = 20.0
"""Seconds for the whole proof: a cold XQuartz takes up to twelve."""
TIMEOUT_SLACK = 60
"""Seconds that an untrusted cookie lives beyond ForwardX11Timeout, as OpenSSH has it: new clients
are refused by then, and the cookie must not go while one of them is still being let in."""

_MAX_TIMEOUT = 2_000_000
"""Longest timeout, in seconds, asked of a server: from 2**31 milliseconds on, X.Org's timer has
expired before it starts, is set again from within itself, and the server aborts (21.1)."""
_MAX_ANSWER = 1 << 18
_GRACE = 1.5
"""Seconds for the child to revoke the cookie once its stdin has ended."""
_KILLED = 3.0
"""Seconds for a child that was killed to be gone."""

# -I keeps the current directory, where a json.py may lie, out of the child's path.
_BOOT = (
    "import sys, json; line = sys.stdin.buffer.readline(1 << 20); "
    "sys.path[:] = json.loads(line)['path']; "
    "from xsshpy.x11.probe import child_main; child_main(line)"
)


@dataclass(frozen=True)
class ServerFacts:
    """What an X server says of itself; sizes in pixels, of the screen that DISPLAY names."""

    vendor: str
    release: int
    protocol: tuple[int, int]
    screens: int
    screen: int
    depth: int
    width: int
    height: int
    extensions: tuple[str, ...]

    @property
    def has_security(self) -> bool:
        """Whether untrusted cookies can be made there."""
        return "SECURITY" in self.extensions

    def describe(self) -> str:
        """Return one line for -v and for the doctor."""
        screens = "1 screen" if self.screens == 1 else f"{self.screens} screens"
        return (
            f"{self.vendor} {self.release}, {screens}, {self.width}x{self.height} pixels, "
            f"depth {self.depth}, {len(self.extensions)} extensions"
        )


@dataclass(frozen=True)
class UntrustedCookie:
    """An MIT-MAGIC-COOKIE-1 whose bearers the server treats as untrusted.

    ``authorization`` is its id on the server, where it lives as long as the probe is not closed
    and, if it has a timeout, as that has not passed without a client.
    """

    data: bytes = field(repr=False)
    authorization: int


@dataclass(frozen=True)
class Verdict:
    """Whether the display works; if not, ``reason`` (one line) and ``remedy`` (one action).

    ``refused``: an X server answers, and lets nobody in with this cookie. ``untrusted`` is None
    when it wasn't asked for, or for the cause in ``untrusted_reason``.
    """

    works: bool
    display: Display
    refused: bool = field(default=False, kw_only=True)
    facts: ServerFacts | None = None
    reason: str = ""
    remedy: str = ""
    untrusted: UntrustedCookie | None = None
    untrusted_reason: str = ""

    @property
    def has_security(self) -> bool:
        """Whether the server has the SECURITY extension."""
        return self.facts is not None and self.facts.has_security

    def as_error(self) -> DisplayError:
        """Return the error to show for a display that does not work."""
        text = f"{_PREFIX.format(self.display.name)}{self.reason}"
        return DisplayError(text, remedy=self.remedy)


_PREFIX = "xssh: X11: cannot open display {}: "


class DisplayProbe:
    """One proof of a display, under way since ``start``; ends with ``close``."""

    def __init__(self, display: Display, request: Request, environ: Mapping[str, str]) -> None:
        self._display = display
        self._request = request
        self._environ = dict(environ)
        self._process: Process | None = None
        self._verdict: asyncio.Task[Verdict] = asyncio.create_task(self._run())
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        display: Display,
        cookie: AuthorityEntry | None,
        *,
        want_untrusted: bool,
        untrusted_timeout: int,
        environ: Mapping[str, str],
        deadline: float = DEADLINE,
    ) -> DisplayProbe:
        """Begin to prove ``display`` with ``cookie``; returns at once.

        With ``want_untrusted`` the server is asked for an untrusted cookie as well, good for
        ``untrusted_timeout`` seconds (0, or more than three weeks: until ``close``) and
        TIMEOUT_SLACK more; the server counts while no client uses it. ``environ`` is the
        child's environment. By ``deadline`` seconds there is a verdict.
        """
        timeout = untrusted_timeout + TIMEOUT_SLACK if untrusted_timeout > 0 else 0
        if timeout > _MAX_TIMEOUT:
            timeout = 0
        request: Request = {
            "path": _module_path(),
            "fd": -1,
            "protocol": cookie.name.decode("latin-1") if cookie else "",
            "cookie": cookie.data.hex() if cookie else "",
            "screen": display.screen,
            "deadline": deadline,
            "untrusted": want_untrusted,
            "untrusted_timeout": timeout,
        }
        return cls(display, request, environ)

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return None if self._process is None else self._process.pid

    async def verdict(self, timeout: float | None = None) -> Verdict | None:
        """Return the verdict, or None if there is none within ``timeout`` seconds.

        The proof goes on meanwhile; ask as often as you like. After ``close`` before a verdict
        there is none.
        """
        if not self._verdict.done():
            await asyncio.wait({self._verdict}, timeout=timeout)
        if not self._verdict.done() or self._verdict.cancelled():
            return None
        return self._verdict.result()

    async def close(self) -> None:
        """End the child and revoke the untrusted cookie. Takes a few seconds at the most.

        May be called again.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        verdict = await self.verdict(0)
        self._verdict.cancel()
        await asyncio.gather(self._verdict, return_exceptions=True)
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None and verdict is not None and verdict.untrusted is not None:
            # The end of its stdin tells it to revoke the cookie.
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), _GRACE)
        await _kill(process)

    async def _run(self) -> Verdict:
        deadline = self._request["deadline"]
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline
        try:
            sock = await open_display(self._display, timeout=deadline)
        except DisplayError as error:
            reason = error.message.removeprefix(_PREFIX.format(self._display.name))
            return Verdict(False, self._display, reason=reason, remedy=error.remedy)
        try:
            with _above_stdio(sock) as connected:
                fd = connected.fileno()
                self._process = process = await self._start_child(fd)
            left = max(0.1, end - loop.time())
            request: Request = {**self._request, "fd": fd, "deadline": left}
            # A little more than the child gives itself: its own answer tells more.
            line = await asyncio.wait_for(_ask(process, request), left + 1.0)
        except (TimeoutError, asyncio.TimeoutError):
            if self._process is not None:
                await _kill(self._process)
            return self._explain("hangs", "")
        except (OSError, ValueError) as error:
            return self._explain("broken", str(error))
        return self._judge(line)

    async def _start_child(self, fd: int) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-c", _BOOT),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            pass_fds=(fd,),
            env=self._environ,
            start_new_session=True,
            limit=_MAX_ANSWER,
        )

    def _judge(self, line: bytes) -> Verdict:
        try:
            answer: Answer = json.loads(line)
            facts = _read_facts(answer["facts"])
            untrusted = None
            if answer["cookie"]:
                data = bytes.fromhex(answer["cookie"])
                untrusted = UntrustedCookie(data, answer["authorization"])
        except (ValueError, KeyError, TypeError):
            # No line at all: the child could not even begin.
            return self._explain("broken", "the child process gave no answer")
        if facts is None:
            return self._explain(answer["kind"], answer["words"])
        return Verdict(
            True,
            self._display,
            facts=facts,
            untrusted=untrusted,
            untrusted_reason=answer["untrusted_words"],
        )

    def _explain(self, kind: str, words: str) -> Verdict:
        reason, remedy = _explain(self._display, kind, words, bool(self._request["cookie"]))
        refused = kind == "refused"
        return Verdict(False, self._display, reason=reason, remedy=remedy, refused=refused)


def _module_path() -> list[str]:
    """Return where the child finds this package and python-xlib: where this process did."""
    path = [entry for entry in sys.path if entry]
    parent = os.path.dirname(os.path.dirname(os.path.abspath(xsshpy.__file__)))
    return path if parent in path else [*path, parent]


def _read_facts(facts: Facts | None) -> ServerFacts | None:
    if facts is None:
        return None
    major, minor = facts["protocol"]
    return ServerFacts(
        vendor=facts["vendor"],
        release=facts["release"],
        protocol=(major, minor),
        screens=facts["screens"],
        screen=facts["screen"],
        depth=facts["depth"],
        width=facts["width"],
        height=facts["height"],
        extensions=tuple(facts["extensions"]),
    )


def _above_stdio(sock: socket.socket) -> socket.socket:
    """Return ``sock`` on a descriptor that is none of the child's three standard ones.

    A program started with its stdin closed gets number 0 for the first thing it opens.
    """
    if sock.fileno() > 2:
        return sock
    with sock:
        return socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))


async def _ask(process: Process, request: Request) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    # stdin stays open: its end tells the child to end.
    process.stdin.write(json.dumps(request).encode() + b"\n")
    with contextlib.suppress(ConnectionError):
        await process.stdin.drain()
    return await process.stdout.readline()


async def _kill(process: Process) -> None:
    if process.returncode is None:
        # Not Process.kill(): it may reap the child, which asyncio's watcher then misses aloud.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(process.wait(), _KILLED)


def _explain(display: Display, kind: str, words: str, had_cookie: bool) -> tuple[str, str]:
    """Return reason and remedy for an answer other than "works"."""
    if kind == "refused":
        return _explain_refusal(display, words, had_cookie)
    if kind == "hangs":
        reason = "the X server takes the connection and never answers"
        if display.is_launchd:
            return reason, "DISPLAY=:0 xssh ..., with XQuartz open"
        return reason, "restart the X server, or close the program that has grabbed it"
    if kind == "closed":
        return "the X server closes the connection without a word", start_remedy(display)
    if kind == "garbled":
        why = f" ({words})" if words else ""
        return f"what listens there is no X server{why}", start_remedy(display)
    return (
        f"the display could not be checked: {words}",
        "reinstall xsshpy: python-xlib belongs to it",
    )


def _explain_refusal(display: Display, words: str, had_cookie: bool) -> tuple[str, str]:
    reason = f"the X server refuses: {words}" if words else "the X server refuses"
    if "maximum number of clients" in words.lower():
        return reason, "close some windows"
    if had_cookie:
        return f"{reason} (the cookie in Xauthority is not this server's)", (
            "run xssh from a new terminal on your desktop; unset XAUTHORITY if you set it yourself"
        )
    where = "a terminal of XQuartz" if sys.platform == "darwin" else "a terminal on that desktop"
    return f"{reason} (Xauthority has no cookie for {display.name})", (
        f"run xssh from {where}, or set XAUTHORITY to its Xauthority file"
    )
