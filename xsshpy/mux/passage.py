"""A session, or a stdio forward (-W), in a master's hands: what is asked for, and what is passed.

The terminal stays as it is until the master has the session, for it reads the terminal's modes
from the descriptor. Which variables travel is decided twice, as with ssh: here by SendEnv and
SetEnv, there by the master's own SendEnv. PROTOCOL.mux §2, §3.
"""

from __future__ import annotations

import os

from xsshpy.console import LogLevel
from xsshpy.mux.control import LEVEL_VARIABLE
from xsshpy.mux.conversation import Conversation, MasterLostError
from xsshpy.mux.messages import (
    NO_ESCAPE,
    Failure,
    MuxProtocolError,
    NewSession,
    NewStdioForward,
    PermissionDenied,
    SessionOpened,
)
from xsshpy.mux.passenger import KeptFlags, Passenger, Signals, listen_until_end
from xsshpy.mux.sockets import UntrustedSocketError, connect, send_descriptors
from xsshpy.mux.task import refuse, shown
from xsshpy.streams import STDERR, STDIN, STDOUT, decide_streams
from xsshpy.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

    from xsshpy.mux.keyboard import Keyboard
    from xsshpy.mux.messages import Reply
    from xsshpy.mux.task import MuxTask
    from xsshpy.streams import Streams
    from xsshpy.terminal.tty import RawTerminal
else:
    import _signal as signal

_LAST_DEADLINE = 1.0
"""Seconds for a master to show that it is there though it closed a session without a status."""

_SESSION = "mux_client_request_session"
_STDIO = "mux_client_request_stdio_fwd"


def run_session(task: MuxTask, conversation: Conversation) -> int | None:
    """Open a session and wait for its end. None where the master would not, which has been told.

    Raises SessionError for what no master says, and MasterLostError where none answers.
    """
    streams = _decide_streams(task)
    pid = _require_alive(task, conversation, _SESSION)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    keyboard = _own_keyboard(task, streams)
    flags = KeptFlags()
    try:
        terminal = _load_terminal() if streams.raw else None
        opened = _open_session(task, conversation, streams, keyboard)
        if opened is None:
            return None
        if task.settings.fork_after_authentication and _leave_foreground():
            flags.leave_to_child()
            return 0
        passenger = Passenger(
            conversation,
            task.console,
            opened.session,
            terminal,
            let_go=flags.restore if task.control.is_automatic else None,
        )
        return _stay(task, passenger, streams, pid, keyboard)
    finally:
        flags.restore()
        if keyboard is not None:
            keyboard.close()


def _open_session(
    task: MuxTask, conversation: Conversation, streams: Streams, keyboard: Keyboard | None
) -> SessionOpened | None:
    """Have the master open the session; None where it does not, which has been told."""
    stdin = STDIN if keyboard is None else keyboard.reader
    try:
        request = _session_request(task, conversation, streams)
        reply = _pass_streams(conversation, request, (stdin, STDOUT, STDERR), streams.null_input)
    except (MasterLostError, MuxProtocolError) as error:
        task.complain(f"{_SESSION}: read from master failed: {error}")
        return None
    if not isinstance(reply, SessionOpened):
        task.complain(_explain(reply, "session request", _SESSION))
        return None
    task.console.debug(1, f"{_SESSION}: master session id: {reply.session}")
    return reply


def _stay(
    task: MuxTask, passenger: Passenger, streams: Streams, pid: int, keyboard: Keyboard | None
) -> int:
    """Wait for the session's end; return its status. ``pid`` is the master's. Raises SessionError.

    A remote program that a signal ended has no status either, and ssh says nothing.
    """
    try:
        with Signals(pid) as signals:
            if not task.settings.fork_after_authentication:
                passenger.enter_raw_mode()
                signals.when_continued = passenger.resume
            if keyboard is not None:
                keyboard.begin(passenger.suspend)
            status = passenger.wait(signals, keyboard)
        was_cut = not passenger.has_status and not signals.killed
        if was_cut and not _is_there(task):
            task.console.error("xssh: the connection that this session shared has ended")
    except MuxProtocolError as error:
        refuse(f"{_SESSION}: {error}")
    finally:
        passenger.close()
    if streams.pty and task.console.shows(LogLevel.INFO):
        _say_closed(task, passenger, was_killed=bool(signals.killed))
    return status


def _load_terminal() -> RawTerminal:
    """Be ready to make the terminal raw as soon as the session is open: what is typed is echoed
    until then. A passenger with a command does without the 5 ms."""
    from xsshpy.terminal.tty import RawTerminal

    return RawTerminal(STDIN)


def _own_keyboard(task: MuxTask, streams: Streams) -> Keyboard | None:
    """Keep the terminal where the user asked for no master; one that draws has to be left to it."""
    if not task.control.is_automatic or streams.null_input or not os.isatty(STDIN):
        return None
    if streams.pty:
        terminal = os.fstat(STDIN).st_rdev
        if all(os.fstat(number).st_rdev != terminal for number in (STDOUT, STDERR)):
            return None
    from xsshpy.mux.keyboard import Keyboard

    escape = _escape(task.settings.escape_char) if streams.pty else NO_ESCAPE
    return Keyboard(STDIN, None if escape == NO_ESCAPE else escape)


def _say_closed(task: MuxTask, passenger: Passenger, *, was_killed: bool) -> None:
    """As without a master, where the user asked for none."""
    if not task.control.is_automatic:
        task.console.speak(f"Shared connection to {task.settings.hostname} closed.")
    elif not was_killed and not passenger.is_without_terminal:
        task.console.speak(f"Connection to {task.settings.hostname} closed.")


def _is_there(task: MuxTask) -> bool:
    """Say whether the master still is. One that is being killed may listen, but does not answer."""
    try:
        connection = connect(task.control.path, _LAST_DEADLINE)
    except (OSError, UntrustedSocketError):
        return False
    conversation = Conversation(connection, task.console, _LAST_DEADLINE)
    try:
        conversation.exchange_hellos()
    except (MasterLostError, MuxProtocolError):
        return False
    finally:
        conversation.close()
    return True


def run_stdio_forward(task: MuxTask, conversation: Conversation) -> int | None:
    """-W: tie stdin and stdout to a port as seen from the server. None where no master answers.

    Raises SessionError, in ssh's words, where the master does not do it.
    """
    from xsshpy.ssh.forward_spec import parse_stdio_forward

    endpoint = parse_stdio_forward(task.invocation.value_of("W") or "", task.environ)
    pid = _require_alive(task, conversation, _STDIO)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    flags = KeptFlags()
    host, port = endpoint.describe()
    request = NewStdioForward(
        conversation.request_id, host=os.fsencode(host), port=port & 0xFFFFFFFF
    )
    null_input = task.settings.stdin_null
    try:
        reply = _pass_streams(conversation, request, (STDIN, STDOUT), null_input)
    except (MasterLostError, MuxProtocolError) as error:
        refuse(f"{_STDIO}: read from master failed: {error}")
    if isinstance(reply, PermissionDenied):
        refuse(f"Master refused stdio forwarding request: {shown(reply.reason)}")
    if isinstance(reply, Failure):
        refuse(f"Stdio forwarding request failed: {shown(reply.reason)}")
    if not isinstance(reply, SessionOpened):
        refuse(f"{_STDIO}: unexpected response from master")
    task.console.debug(1, f"{_STDIO}: master session id: {reply.session}")
    try:
        with Signals(pid) as signals:
            for said in listen_until_end(conversation, signals):
                refuse(f"{_STDIO}: master returned unexpected message {type(said).__name__}")
    except MuxProtocolError as error:
        refuse(f"{_STDIO}: {error}")
    finally:
        flags.restore()
    return 0


def _decide_streams(task: MuxTask) -> Streams:
    """Decide about the pty. -N opens a session all the same, as with ssh, without one."""
    has_program = bool(task.invocation.command or task.settings.remote_command)
    streams, _ = decide_streams(task.settings, has_program, stdin_is_terminal=os.isatty(STDIN))
    if task.settings.session_type == "none":
        return replace(streams, pty=False, raw=False)
    return streams


def _require_alive(task: MuxTask, conversation: Conversation, name: str) -> int:
    """Return the master's process id. Raises MasterLostError, having said so."""
    try:
        return conversation.check_alive()
    except MasterLostError:
        task.complain(f"{name}: master alive request failed")
        raise
    except MuxProtocolError as error:
        task.complain(f"{name}: master alive request failed")
        raise MasterLostError(str(error)) from None


def _session_request(task: MuxTask, conversation: Conversation, streams: Streams) -> NewSession:
    settings = task.settings
    given = dict(reversed(settings.set_env)).get("TERM")
    term = given or task.environ.get("TERM", "")
    return NewSession(
        conversation.request_id,
        want_tty=streams.pty,
        want_x11=_wants_x11(task, is_xssh=conversation.is_xssh),
        want_agent=bool(settings.forward_agent),
        subsystem=settings.session_type == "subsystem",
        escape=_escape(settings.escape_char),
        term=os.fsencode(term),
        command=os.fsencode(task.invocation.command or settings.remote_command),
        variables=tuple(_variables(task)),
    )


def _wants_x11(task: MuxTask, *, is_xssh: bool) -> bool:
    """Tell whether X11 is wanted. The master has the last word, by the settings that it began with.

    Of a master of xssh's as without a master: unless the user says no, or another program speaks
    over the command.
    """
    invocation, settings = task.invocation, task.settings
    way = invocation.x11 or task.environ.get("XSSH_X11", "")
    if invocation.last_of("XYx") == "x" or way.lower() == "off":
        return False
    if settings.forward_x11:
        return True
    options = [value or "" for letter, value in invocation.ssh_options if letter == "o"]
    said = any(_keyword_of(option) == "forwardx11" for option in options)
    if (
        not is_xssh
        or said
        or not (task.environ.get("DISPLAY") or _hears_of_displays(task))
        or settings.session_type == "subsystem"
    ):
        return False
    from xsshpy.ssh.environment import is_protocol_command

    return not is_protocol_command(invocation.command or settings.remote_command)


def _hears_of_displays(task: MuxTask) -> bool:
    """Tell whether somebody reads that there is no DISPLAY, which a run without a master says."""
    return task.control.is_automatic and os.isatty(STDERR)


def _keyword_of(option: str) -> str:
    """Return the keyword of -o's value, which ends at a space or an equals sign."""
    return "".join(option.partition("=")[0].split()[:1]).lower()


def _escape(text: str) -> int:
    if text.isascii() and len(text) == 1:
        return ord(text)
    from xsshpy.terminal.escapes import parse_escape_char

    code = parse_escape_char(text)
    return NO_ESCAPE if code is None else code


def _variables(task: MuxTask) -> Iterator[bytes]:
    """Yield what SendEnv lets through, then what SetEnv sets: each as ``NAME=value``."""
    patterns = task.settings.send_env
    if patterns:
        from xsshpy.patterns import matches_any

        for name, value in task.environ.items():
            if matches_any(name, patterns):
                yield os.fsencode(f"{name}={value}")
    for name, value in task.settings.set_env:
        yield os.fsencode(f"{name}={value}")
    if task.control.is_automatic:
        yield os.fsencode(f"{LEVEL_VARIABLE}={task.console.level.name}")
    elif task.invocation.backend is not None:  # which a master of xssh's understands
        yield os.fsencode(f"MPLBACKEND={task.invocation.backend}")


def _pass_streams(
    conversation: Conversation,
    request: NewSession | NewStdioForward,
    descriptors: tuple[int, ...],
    null_input: bool,
) -> Reply:
    """Send the request and the descriptors behind it; return the answer.

    The server is asked first, and where the master was told to, the user: it takes its time.
    Raises MasterLostError and MuxProtocolError.
    """
    null = os.open(os.devnull, os.O_RDONLY) if null_input else -1
    try:
        conversation.send(request)
        send_descriptors(
            conversation.socket, (null, *descriptors[1:]) if null_input else descriptors
        )
        return conversation.answer(patient=True)
    except OSError as error:
        raise MasterLostError(error.strerror or str(error)) from None
    finally:
        if null >= 0:
            os.close(null)


def _explain(reply: Reply, what: str, name: str) -> str:
    if isinstance(reply, PermissionDenied):
        return f"Master refused {what}: {shown(reply.reason)}"
    if isinstance(reply, Failure):
        return f"{name}: {what} failed: {shown(reply.reason)}"
    return f"{name}: unexpected response from master"


def _leave_foreground() -> bool:
    """-f: go on in a child, out of the terminal's session. Says whether this is the parent."""
    if os.fork() > 0:
        return True
    os.setsid()
    return False
