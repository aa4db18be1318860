"""A run becomes a master: where it listens, and what it says where it can't."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from xsshpy.console import Console, LogLevel
from xsshpy.mux.context import MasterContext, SharedX11
from xsshpy.mux.control import read_control
from xsshpy.mux.master import Master
from xsshpy.mux.sockets import (
    ControlPathError,
    ControlSocketTakenError,
    Listener,
    is_stale,
    listen,
    remove_stale,
)
from xsshpy.mux.soundness import Soundness
from xsshpy.settings import Invocation
from xsshpy.ssh.connect import Session
from xsshpy.ssh.forward import Forwarder
from xsshpy.x11_ways import X11Run, prepare_shared_x11


def open_master(
    stack: contextlib.AsyncExitStack,
    invocation: Invocation,
    environ: Mapping[str, str],
    session: Session,
    forwarder: Forwarder,
    x11: asyncio.Task[X11Run | None],
) -> Master | None:
    """Let others share the connection, until the stack is closed.

    None where another process was quicker, which has been said. Raises ControlPathError where
    nothing can be made there, which ends the run, as ssh's.
    """
    settings, console = session.settings, session.console
    control = read_control(settings.keywords)
    console.debug(1, "setting up multiplex master socket")
    try:
        listener = _listen_instead_of_a_dead_one(control.path, console)
    except ControlSocketTakenError:
        text = f"ControlSocket {control.path} already exists, disabling multiplexing"
        console.log(LogLevel.DEBUG1 if control.is_automatic else LogLevel.ERROR, text)
        return None
    except ControlPathError as error:
        if not control.is_automatic:
            raise
        console.debug(1, error.message)
        return None
    shared = SharedX11(
        x11,
        lambda report: prepare_shared_x11(
            invocation, settings, environ, console, report, is_asked_for=control.is_automatic
        ),
        console.notice,
    )
    context = MasterContext(
        session=session,
        invocation=invocation,
        settings=settings,
        console=console,
        forwarder=forwarder,
        x11=shared,
        asks=control.master.asks,
        soundness=Soundness(session) if control.is_automatic else None,
    )
    master = Master(listener, context, session.connection.abort)
    stack.push_async_callback(shared.close)
    stack.push_async_callback(master.close)
    return master


def _listen_instead_of_a_dead_one(path: str, console: Console) -> Listener:
    """Listen at ``path``, which a master that was killed may have left there. Raises as listen().

    ssh does so for ControlMaster auto, whose passenger finds out first, and stays without a socket
    for -M.
    """
    try:
        return listen(path)
    except ControlSocketTakenError:
        if not is_stale(path):
            raise
        console.debug(1, f"Stale control socket {path}, unlinking")
        remove_stale(path)
        return listen(path)
