"""The other way to carry X11: a display that is made on the remote host and answers from near by.

The agent is started through a second channel of the same connection, in the user's login shell,
and says stage by stage how far it is. Each stage has a deadline, and a start that fails says which
stage and why; what to do then is the caller's to decide.

Rules kept here: nothing of this holds the session up longer than the deadlines; what the start
printed is kept only for the message; at the end everything here is closed, and the agent ends with
its channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from xsshpy.remote.frames import LinkError
from xsshpy.remote.payloads import name_authority
from xsshpy.values import dataclass
from xsshpy.x11.agent_facts import AgentFacts
from xsshpy.x11.agent_relay import AgentOptions, AgentRelay
from xsshpy.x11.agent_start import (
    NoiseError,
    Stage,
    StageLine,
    StageReader,
    agent_command,
    brief_command,
)
from xsshpy.x11.local import LocalDisplay

HELLO_DEADLINE = 15.0
"""How long the remote shell may take until a Python speaks, on a host that ran the agent before
(seconds)."""

FIRST_HELLO_DEADLINE = 6.0
"""The same on any other host: where no Python ever speaks, the session must not wait for long."""

READY_DEADLINE = 10.0
"""How long the agent may take from there until it is a display (seconds)."""

STOP_DEADLINE = 1.0
"""How long an agent that is to end may take for its last words (seconds)."""

DOOR_DEADLINE = 10.0
"""How long the agent may take to let a session in (seconds)."""

LAST_SESSION = 0xFFFF

EARLY_LIMIT = 4 << 20
"""Most that the agent may send before the display was proved (bytes)."""

COUNTED_LIMIT = 1000
"""Most clients whose counters are kept."""


class AgentError(Exception):
    """The agent could not be started: ``reason`` in a few words, ``evidence`` line by line.

    ``lasting``: the next attempt would most likely end alike.
    """

    def __init__(
        self, reason: str, evidence: tuple[str, ...] = (), *, lasting: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.evidence = evidence
        self.lasting = lasting


class AgentChannel(Protocol):
    """The channel that the agent runs at the other end of."""

    def write(self, data: bytes) -> None:
        """Send bytes to its stdin; never blocks, may raise OSError once it is closed."""

    def close(self) -> None:
        """Close it, and so end the agent."""

    def kill(self) -> None:
        """End whatever runs there in its place, and close."""

    async def reach(self) -> None:
        """Wait until the server answers; at once where the connection is gone."""


class AgentReceiver(Protocol):
    """What an agent's channel talks to."""

    def data_received(self, data: bytes) -> None:
        """Take what it wrote to stdout."""

    def message_received(self, data: bytes) -> None:
        """Take what it wrote to stderr."""

    def pause_writing(self) -> None:
        """The channel is full."""

    def resume_writing(self) -> None:
        """There is room in the channel again."""

    def connection_lost(self, ending: str) -> None:
        """Take the end of the channel: how the command ended; empty: the connection did."""


OpenChannel = Callable[[str, AgentReceiver], Awaitable[AgentChannel]]
"""Runs a command in a channel of its own. Raises AgentError where the server refuses."""


@dataclass(frozen=True)
class RemoteDisplay:
    """The display on the remote host: what DISPLAY and XAUTHORITY are to be there."""

    name: str
    authority: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment that clients need."""
        return {"DISPLAY": self.name, "XAUTHORITY": self.authority}


_PATH = re.compile(r"/[A-Za-z0-9_.:/+-]*")
"""What may stand in a command line as it is."""

_DISPLAY = re.compile(r"localhost:\d{1,4}\.0")


def _read_display(facts: Mapping[str, str], screen: int) -> RemoteDisplay | None:
    """Return the display that an agent says it is; None where that makes no sense."""
    name, authority = facts.get("display", ""), facts.get("authority", "")
    if not _DISPLAY.fullmatch(name) or not _PATH.fullmatch(authority):
        return None
    return RemoteDisplay(f"{name[:-1]}{screen}", authority)


class AgentForwarding:
    """The clients that come through an agent, from its start to the last of them."""

    def __init__(
        self, local: LocalDisplay, environ: Mapping[str, str], debug: Callable[[str], None]
    ) -> None:
        self.local = local
        self.counts: list[tuple[int, Mapping[str, int]]] = []
        """For each client that is gone, its number and the counters that are shown."""
        self._debug = debug
        self._nonce = secrets.token_hex(8)
        self._stages = StageReader(self._nonce)
        self._arrived: asyncio.Queue[StageLine | AgentError] = asyncio.Queue()
        self.display: RemoteDisplay | None = None
        """The display while the agent runs."""
        self._channel: AgentChannel | None = None
        self._relay: AgentRelay | None = None
        self._command = asyncio.create_task(asyncio.to_thread(agent_command, self._nonce))
        self._facts = AgentFacts(local, environ, debug)
        self._beginning: asyncio.Task[None] | None = None
        self._early = bytearray()
        self._closing = False
        self._gone = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._doors: set[int] = set()
        self._last_door = -1
        self._spare_doors: asyncio.Queue[int] = asyncio.Queue()
        self._ordered_doors: set[int] = set()
        self._early_reports: dict[int, Callable[[str], None]] = {}
        self._closed_early: set[int] = set()

    @property
    def bytes_on_wire(self) -> tuple[int, int]:
        """What the link took so far, to the remote host and from there (bytes)."""
        return self._relay.bytes_on_wire if self._relay is not None else (0, 0)

    # -- the start --

    async def start(
        self, open_channel: OpenChannel, *, known: bool, brief: bool = False
    ) -> RemoteDisplay:
        """Start the agent; return its display. Raises AgentError.

        ``known``: the host ran it before, and so may take its time. ``brief``: the server may not
        take the modules in the command line; they follow a round trip later.
        """
        try:
            return await self._start(open_channel, known=known, brief=brief)
        except AgentError:
            self._closing = True
            if self._channel is not None:
                self._channel.kill()
            raise

    async def _start(self, open_channel: OpenChannel, *, known: bool, brief: bool) -> RemoteDisplay:
        command, modules = await self._command, b""
        if brief:
            command, modules = await asyncio.to_thread(brief_command, self._nonce)
        self._channel = await open_channel(command, self)
        hello = await self._await_stage(
            Stage.HELLO, HELLO_DEADLINE if known else FIRST_HELLO_DEADLINE
        )
        self._debug(
            f"X11 agent: Python {hello.facts.get('python')} at {hello.facts.get('executable')}"
        )
        if modules:
            with contextlib.suppress(OSError):  # that it has ended is told by the next stage
                self._channel.write(modules)
        ready = await self._await_stage(Stage.READY, READY_DEADLINE)
        display = _read_display(ready.facts, self.local.screen)
        if display is None:
            raise AgentError("it says nothing sensible about its display")
        # A display that takes its time must not hold the session up, only its clients.
        self._beginning = asyncio.create_task(self._begin())
        self.display = display
        return display

    async def _options(self) -> AgentOptions:
        return AgentOptions(
            open_server=self.local.open_server,
            real=await self.local.real_authorization(),
            report=self.local.report,
            debug=self._debug,
            expired=self.local.has_expired,
            learned=self._facts.learn,
            counted=self._count,
            opened=self._facts.look_again,
            look=self._facts.look,
            admitted=self._take_door,
            reach=self._reach,
        )

    async def _reach(self) -> None:
        if self._channel is not None:
            await self._channel.reach()

    def _count(self, client: int, counters: Mapping[str, int]) -> None:
        if len(self.counts) < COUNTED_LIMIT:
            from xsshpy.x11.statistics import keep_counters  # no start needs it

            self.counts.append((client, keep_counters(counters)))

    async def _begin(self) -> None:
        options = await self._options()
        assert self._channel is not None
        self._relay = AgentRelay(options, self._channel)
        self._relay.reports.update(self._early_reports)
        self._relay.start()
        self._facts.begin(self._relay)
        for number in self._closed_early:
            self._relay.dismiss(number)
        if self._last_door >= 0:
            self._order_door()
        early, self._early = bytes(self._early), bytearray()
        if early:
            self._relay.data_received(early)
        left = self.local.expires_in
        if left is not None:
            self._expiry = asyncio.get_running_loop().call_later(left, self._relay.expire)

    async def _await_stage(self, wanted: Stage, deadline: float) -> StageLine:
        """Wait for a stage. Raises AgentError, with what the remote host printed instead."""
        end = asyncio.get_running_loop().time() + deadline
        old = ""
        while True:
            left = end - asyncio.get_running_loop().time()
            try:
                arrived = await asyncio.wait_for(self._arrived.get(), max(0.0, left))
            except (TimeoutError, asyncio.TimeoutError):
                what = "no Python spoke" if wanted is Stage.HELLO else "it was not ready"
                raise self._failure(f"{what} within {deadline:g} seconds", lasting=True) from None
            if isinstance(arrived, AgentError):
                raise arrived
            if arrived.stage is wanted:
                return arrived
            if arrived.stage is Stage.OLD:
                old = f", only {arrived.facts.get('python')}"
            elif arrived.stage is Stage.NONE:
                raise self._failure(f"no Python 3.6 or later is there{old}", lasting=True)
            elif arrived.stage is Stage.FAILED:
                reason = arrived.facts.get("reason", "").replace("_", " ")
                raise self._failure(f"it fails: {reason}")

    def _failure(self, reason: str, *, lasting: bool = False) -> AgentError:
        return AgentError(reason, self._stages.last_words, lasting=lasting)

    # -- what the channel calls --

    def data_received(self, data: bytes) -> None:
        """Take what the agent wrote: stages first, then the link."""
        if self._relay is not None:
            self._relay.data_received(data)
            return
        if self._closing:
            return
        if self._stages.is_ready:
            self._early += data
            if len(self._early) > EARLY_LIMIT and self._channel is not None:
                self._channel.kill()
            return
        try:
            for stage in self._stages.receive_data(data):
                self._arrived.put_nowait(stage)
        except NoiseError:
            failure = self._failure("the login shell prints without end", lasting=True)
            self._arrived.put_nowait(failure)
            self._closing = True
        self._early += self._stages.rest

    def message_received(self, data: bytes) -> None:
        """Take what came on stderr: for the message while starting, for -v later."""
        if self._relay is None:
            self._stages.receive_message(data)
        else:
            for line in data.decode("utf-8", "replace").splitlines():
                self._debug("X11 agent: " + "".join(c if c.isprintable() else "?" for c in line))

    def pause_writing(self) -> None:
        """The channel is full."""
        if self._relay is not None:
            self._relay.pause_writing()

    def resume_writing(self) -> None:
        """There is room in the channel again."""
        if self._relay is not None:
            self._relay.resume_writing()

    def connection_lost(self, ending: str) -> None:
        """Take the end of the channel: how the command ended; empty: the connection did."""
        self._gone.set()
        self.display = None
        if self._relay is None and self._beginning is not None:
            self._beginning.cancel()
        reason = f"the command {ending}" if ending else "the connection ended"
        self._arrived.put_nowait(self._failure(reason, lasting=bool(ending)))
        if self._relay is not None:
            if ending and not self._closing:
                windows = ", and its windows with it" if self._relay.open_clients else ""
                self.local.report(f"xssh: X11: the remote agent {ending}{windows}")
            self._relay.connection_lost()

    # -- sessions that have clients of their own --

    async def open_door(self, report: Callable[[str], None]) -> tuple[int, RemoteDisplay] | None:
        """Return a session's number, and the display with a cookie that stands for it.

        ``report`` takes what there is to be said of its clients. None where the agent ended, or
        lets no more sessions in. One cookie is made ahead of time, so that nobody waits for it.
        """
        number, first = 0, self._last_door < 0
        if first:
            self._last_door = 0
            if self._relay is not None:
                self._order_door()
        else:
            if self._beginning is not None and self._relay is None:
                await asyncio.wait({self._beginning}, timeout=DOOR_DEADLINE)
            self._order_door()
            try:
                number = await asyncio.wait_for(self._spare_doors.get(), DOOR_DEADLINE)
            except (TimeoutError, asyncio.TimeoutError):
                return None
        display = self.display
        if display is None:
            return None
        self._doors.add(number)
        reports = self._relay.reports if self._relay is not None else self._early_reports
        reports[number] = report
        return number, RemoteDisplay(display.name, name_authority(display.authority, number))

    def _order_door(self) -> None:
        """Have the agent make a cookie for the next session."""
        self._last_door = self._last_door % LAST_SESSION + 1
        while self._last_door in self._doors:
            self._last_door = self._last_door % LAST_SESSION + 1
        if self._relay is not None:
            self._ordered_doors.add(self._last_door)
            with contextlib.suppress(LinkError):  # then nothing is read any more
                self._relay.admit(self._last_door)

    def _take_door(self, number: int, written: bool) -> None:
        if number not in self._ordered_doors:
            return
        self._ordered_doors.discard(number)
        if written:
            self._spare_doors.put_nowait(number)
        else:
            self._debug("X11: the agent has no cookie for another session")

    def close_door(self, number: int) -> None:
        """End a session's clients, and let no more of them in."""
        self._doors.discard(number)
        self._early_reports.pop(number, None)
        if self._relay is None:
            self._closed_early.add(number)
            return
        with contextlib.suppress(LinkError):
            self._relay.dismiss(number)

    # -- the end --

    async def wait_until_idle(self, session: int | None = None) -> None:
        """Wait until the last X client is gone, or the last one of a session.

        ssh does not end before its windows do.
        """
        if self._beginning is not None and self._early:  # there is a client already
            await asyncio.wait({self._beginning})
        if self._relay is not None:
            await self._relay.wait_until_idle(session)

    async def count_open_clients(self) -> None:
        """Have the counters of clients that are still here, too; the agent ends with that."""
        if self._relay is None or not self._relay.open_clients or self._gone.is_set():
            return
        self._closing = True
        self._facts.stop()
        self._relay.stop()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._gone.wait(), STOP_DEADLINE)

    async def close(self) -> None:
        """End the agent and all its clients; keep what was learned."""
        self._closing = True
        if self._expiry is not None:
            self._expiry.cancel()
        self._facts.stop()
        begun = (self._command, self._beginning)
        tasks: list[asyncio.Task[object]] = [task for task in begun if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._relay is not None:
            await self._relay.aclose()
        if self._channel is not None:
            self._channel.close()
        await self._facts.aclose()
