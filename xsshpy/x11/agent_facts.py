"""What an agent is told of the local X server, from the first question to the last news.

The X server is asked while the login goes on, and the answers are told as soon as there is an agent
to tell. What changes from then on is told as it comes; where the X server ends, the next client
looks for another one, which is asked anew.

Rules kept here: nothing of this is needed for a client to run, so whatever fails costs speed alone
and is said to whoever asked for details; what a host makes us ask the next time is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from xsshpy.remote.looks import Look
from xsshpy.remote.records import Record
from xsshpy.remote.xrequests import FactClass
from xsshpy.x11.local import LocalDisplay
from xsshpy.x11.news import WaitingNews
from xsshpy.x11.questions import Question, load_questions, recognise, save_questions
from xsshpy.x11.rejections import describe_failure
from xsshpy.x11.watch import ServerWatch

if TYPE_CHECKING:
    from xsshpy.x11.agent_relay import AgentRelay

LEARNED_LIMIT = 128
"""Most questions that one session adds to the list: a host must not drive out all others'."""

LOSS_PATIENCE = 0.2
"""How far apart the ends of an X server's connections may be (seconds). It may close but one."""


class AgentFacts:
    """Asks at once, tells once there is a relay to the agent, and keeps what was learned."""

    def __init__(
        self, local: LocalDisplay, environ: Mapping[str, str], debug: Callable[[str], None]
    ) -> None:
        self._local = local
        self._environ = environ
        self._debug = debug
        self._relay: AgentRelay | None = None
        self._watch: ServerWatch | None = None
        self._learned: dict[Question, None] = {}
        self._asking = asyncio.create_task(self._ask_server())
        self._telling: asyncio.Task[None] | None = None
        self._news = WaitingNews()
        """What changed since the facts were asked for, until they are told."""
        self._is_told = False
        self._stopped = False
        self._loss: asyncio.TimerHandle | None = None

    def begin(self, relay: AgentRelay) -> None:
        """Tell an agent what there is to tell, as soon as it is known, and all news of it."""
        self._relay = relay
        self._telling = asyncio.create_task(self._tell_facts(relay))

    # -- what the relay calls --

    def learn(self, records: list[Record]) -> None:
        """Take what clients asked that was not known beforehand, for the next session's start."""
        if self._watch is None:
            return
        for record in records:
            question = recognise(record, self._watch.names)
            if question is not None and len(self._learned) < LEARNED_LIMIT:
                self._learned[question] = None

    def look(self, orders: list[Look]) -> None:
        """Look at what the agent wants to know."""
        if self._watch is not None:
            self._watch.look(orders)

    def look_again(self) -> None:
        """A client came: look at what the X server tells nobody, or for another X server."""
        if self._watch is not None:
            self._watch.look_again()
        elif self._asking.done() and self._relay is not None and not self._stopped:
            self._asking = asyncio.create_task(self._ask_server())
            self._telling = asyncio.create_task(self._tell_again(self._relay))

    # -- asking and telling --

    async def _ask_server(self) -> list[Record]:
        """Ask the X server what clients will ask; no facts where it does not answer."""
        real = await self._local.real_authorization()
        watch = ServerWatch(self._pass_news, self._pass_stale, self._lose_server)
        self._watch = watch
        try:
            await watch.open(self._local.open_server, real)
            return await watch.ask(load_questions(self._environ))
        except (Exception, asyncio.CancelledError) as error:
            self._debug(f"X11: the X server was not asked beforehand: {describe_failure(error)}")
            await watch.aclose()
            self._watch = None
            if isinstance(error, asyncio.CancelledError):
                raise
            return []

    async def _tell_facts(self, relay: AgentRelay) -> None:
        relay.tell(await asyncio.shield(self._asking))
        # What was asked for first may be old by now: a password was typed meanwhile.
        stale, records = self._news.take()
        for kind in stale:
            relay.forget(kind)
        relay.tell(records, news=True)
        self._is_told = True
        if self._watch is not None:
            with contextlib.suppress(asyncio.TimeoutError):  # then clients ask themselves
                relay.tell(await self._watch.ask_atom_names(), news=True)

    async def _tell_again(self, relay: AgentRelay) -> None:
        """Tell the facts of another X server, and offer connections to it."""
        await self._tell_facts(relay)
        if self._watch is not None:
            relay.start()

    def _pass_news(self, records: list[Record]) -> None:
        if self._relay is not None and self._is_told:
            self._relay.tell(records, news=True)
        else:
            self._news.add(records)

    def _pass_stale(self, kind: FactClass) -> None:
        if self._relay is not None and self._is_told:
            self._relay.forget(kind)
        else:
            self._news.forget(kind)

    def _lose_server(self) -> None:
        """The X server is gone. Another may take its place: the next client tells."""
        self._watch = None
        self._is_told = False
        self._news.clear()
        if self._relay is None or self._stopped:
            return
        self._relay.lose_server()
        if self._relay.has_lost_clients:
            loop = asyncio.get_running_loop()
            self._loss = loop.call_later(LOSS_PATIENCE, self._tell_of_loss, self._relay)
        else:
            self._debug("X11: the local X server ended")

    def _tell_of_loss(self, relay: AgentRelay) -> None:
        """Say that the X server ended; where clients of it live on, it closed one connection."""
        self._loss = None
        if not relay.serves_clients:
            self._local.report("xssh: X11: the local X server ended, and all windows with it")
        else:
            self._debug("X11: the X server closed the connection that watches it")
            self.look_again()

    # -- the end --

    def stop(self) -> None:
        """The agent is about to end: tell it no more, and look for no other X server."""
        self._stopped = True
        if self._loss is not None and self._relay is not None:
            self._loss.cancel()
            self._tell_of_loss(self._relay)
        if self._telling is not None:
            self._telling.cancel()

    async def aclose(self) -> None:
        """Ask no more, and keep what was learned."""
        self.stop()
        tasks = [task for task in (self._asking, self._telling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._watch is not None:
            await self._watch.aclose()
        if self._learned:
            save_questions(self._learned, self._environ)
