"""The passenger: what is asked for is done by a master that is there already, ssh's or xssh's.

:func:`try_master` is called once the settings are known. It answers with an exit status, or says
that an own connection is to be made: where there is no master, and as with ssh where one refuses
or breaks off. A master that does not answer in time counts as none.

Nothing here imports asyncssh, asyncio, python-xlib or click: a session through a master begins
sooner than those are loaded. Words and order are ssh's (mux.c, muxclient).
"""

from __future__ import annotations

import errno
import os

from xsshpy.errors import ConnectError, SessionError, SettingsError
from xsshpy.mux import passage
from xsshpy.mux.control import ControlMaster, MuxCommand, decide_command, has_forwards, read_control
from xsshpy.mux.conversation import Conversation, MasterLostError
from xsshpy.mux.messages import VERSION, XSSH_EXTENSION, MuxProtocolError
from xsshpy.mux.sockets import UntrustedSocketError, connect, remove_stale
from xsshpy.mux.task import MuxTask
from xsshpy.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from socket import socket

    from xsshpy.console import Console
    from xsshpy.settings import Invocation, Settings

ANSWER_DEADLINE = 5.0
"""Seconds that a master may take for its hello, and to say that it is alive. ConnectTimeout may
say less."""


@dataclass(frozen=True)
class Ride:
    """What came of it: an exit status, or None where an own connection is to be made.

    ``is_dead``: somebody listens and does not answer. Who becomes a master may take his place.
    ``passage``: the way through a master that passes packets on; no connection is to be made then.
    """

    status: int | None
    is_dead: bool = False
    passage: socket | None = None


def try_master(
    invocation: Invocation, settings: Settings, console: Console, environ: Mapping[str, str]
) -> Ride:
    """Have it done by the master at ControlPath, if there is one.

    Raises XsshError where the run is to end, with ssh's words where it has some.
    """
    control = read_control(settings.keywords)
    command = decide_command(invocation.value_of("O"), invocation.value_of("W"))
    if not control.path:
        if command.needs_master:
            raise SettingsError('No ControlPath specified for "-O" command')
        return Ride(None)
    if not control.master.uses_existing:
        return Ride(None)
    if control.master is not ControlMaster.NO:
        console.debug(1, "auto-mux: Trying existing master")
    task = MuxTask(invocation, settings, console, environ, control, command)
    try:
        conversation, is_xssh = _call(task)
        if conversation is None:
            return Ride(None)
        if command is MuxCommand.PROXY or _speaks_for_itself(task, is_xssh=is_xssh):
            return _pass_through(task, conversation)
        try:
            return Ride(_work(task, conversation))
        finally:
            conversation.close()
    except MasterLostError as lost:
        if command.needs_master:
            raise ConnectError(
                f"muxclient: master {command.value} request failed: {lost}"
            ) from None
        return Ride(None, is_dead=lost.is_silent)


def _work(task: MuxTask, conversation: Conversation) -> int | None:
    """Have it done, and return the exit status; None where all is to be done without the master."""
    if task.command is MuxCommand.STDIO_FORWARD:
        return passage.run_stdio_forward(task, conversation)
    if task.command is MuxCommand.OPEN and not has_forwards(task.settings.keywords):
        return passage.run_session(task, conversation)
    from xsshpy.mux import orders

    if task.command is MuxCommand.OPEN:
        # The forwards first, as with ssh; where one is refused, it is of no use.
        if not orders.ask_for_forwards(task, conversation):
            task.complain("muxclient: master forward request failed")
            return None
        return passage.run_session(task, conversation)
    return orders.ORDERS[task.command](task, conversation)


def _pass_through(task: MuxTask, conversation: Conversation) -> Ride:
    """Have the master pass on what this process says to the server."""
    from socket import socket

    from xsshpy.mux import orders

    try:
        orders.ask_for_proxy(task, conversation)
    except (SessionError, MasterLostError) as error:
        conversation.close()
        if task.command.needs_master:
            raise
        task.console.debug(1, f"xssh: not through the master: {error}")
        return Ride(None)
    return Ride(None, passage=socket(fileno=conversation.socket.detach()))


def _speaks_for_itself(task: MuxTask, *, is_xssh: bool) -> bool:
    """Tell whether the session takes more than a passenger can say.

    The agent's channel, and a script's, are this process's: it speaks SSH through the master. For
    windows that is done where the user himself asked for them; ssh's master would carry them
    natively at best. A master of xssh's has an agent of its own.
    """
    invocation = task.invocation
    if task.command is not MuxCommand.OPEN or task.settings.session_type == "none":
        return False
    if invocation.script is not None:
        return True
    way = (invocation.x11 or task.environ.get("XSSH_X11") or "auto").lower()
    asked = task.settings.forward_x11 or way == "agent" or invocation.stats
    if is_xssh or not asked or invocation.last_of("XYx") == "x":
        return False
    return way in ("auto", "agent") and bool(task.environ.get("DISPLAY"))


def _call(task: MuxTask) -> tuple[Conversation | None, bool]:
    """Return a conversation in which the hellos are said, or None: there is no master.

    The second value says whether the master is xssh. Raises MasterLostError for one that does not
    answer.
    """
    seconds = min(ANSWER_DEADLINE, task.settings.connect_timeout or ANSWER_DEADLINE)
    try:
        connection = connect(task.control.path, seconds)
    except UntrustedSocketError as error:
        _give_up(task, f"xssh: a shared connection is not used: {error}")
        return None, False
    except OSError as error:
        _explain_no_master(task, error)
        if isinstance(error, TimeoutError):
            raise MasterLostError("Connection timed out", is_silent=True) from None
        return None, False
    conversation = Conversation(connection, task.console, seconds)
    try:
        hello = conversation.exchange_hellos()
        _require_version(task, hello.version)
    except (MasterLostError, MuxProtocolError) as error:
        conversation.close()
        task.console.debug(1, f"mux_client_hello_exchange: {error}")
        _give_up(task, "muxclient: master hello exchange failed")
        if isinstance(error, MasterLostError):
            raise
        return None, False
    return conversation, XSSH_EXTENSION[0] in hello.extensions[::2]


def _require_version(task: MuxTask, version: int) -> None:
    if version != VERSION:
        task.complain(f"Unsupported multiplexing protocol version {version} (expected {VERSION})")
        raise MuxProtocolError("another version")


def _explain_no_master(task: MuxTask, error: OSError) -> None:
    """Say why there is none, as ssh does. Raises ConnectError where one is needed."""
    path, console = task.shown_path, task.console
    text = f"Control socket connect({path}): {os.strerror(error.errno or 0)}"
    if task.command.needs_master:
        raise ConnectError(text)
    if error.errno == errno.ECONNREFUSED and task.control.master is not ControlMaster.NO:
        console.debug(1, f"Stale control socket {path}, unlinking")
        remove_stale(task.control.path)
    elif error.errno == errno.ENOENT:
        console.debug(1, f'Control socket "{path}" does not exist')
    else:
        task.complain(text)


def _give_up(task: MuxTask, text: str) -> None:
    """Say why the master is not used. Raises ConnectError where one is needed."""
    if task.command.needs_master:
        raise ConnectError(text)
    task.complain(text)
