"""What to ask of the server for one session: the command, the terminal, the variables. Pure but
for reading the terminal's modes and looking for the agent."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from xsshpy.settings import Invocation, Settings
from xsshpy.ssh.environment import BACKEND_VARIABLE, choose_variables, decide_backend
from xsshpy.ssh.hostkey_policy import Feature
from xsshpy.ssh.script import encode_script, loader_command, raw_modes
from xsshpy.ssh.session_plan import Grants, PtyRequest, SessionPlan, StartAgent, X11Request
from xsshpy.streams import STDIN, Streams
from xsshpy.terminal.tty import read_modes, read_size


def plan_session(
    invocation: Invocation,
    settings: Settings,
    environ: Mapping[str, str],
    streams: Streams,
    x11: X11Request | None,
    start_agent: StartAgent | None,
    *,
    disabled: frozenset[Feature],
    is_forced: Callable[[], bool],
) -> SessionPlan:
    """Return the plan. ``disabled`` is what an untrusted host key forbids."""
    may_forward = Feature.AGENT not in disabled and has_agent(settings.forward_agent)
    variables = choose_variables(settings.send_env, settings.set_env, environ)
    scripted = invocation.script is not None
    pty = None
    if streams.pty:
        modes = read_modes(STDIN)
        given = dict(reversed(settings.set_env)).get("TERM")
        term = environ.get("TERM", "") if given is None else given
        pty = PtyRequest(
            term,
            read_size(STDIN),
            raw_modes(modes) if scripted else modes,
            required=settings.request_tty != "auto",
        )
    return SessionPlan(
        command=loader_command(invocation.python) if scripted else chosen(invocation, settings),
        subsystem=settings.session_type == "subsystem",
        variables=variables,
        pty=pty,
        x11=x11,
        forward_agent=settings.forward_agent if may_forward else "",
        backend=decide_backend(variables, invocation.backend),
        settles_environment=scripted,
        is_forced=is_forced,
        start_agent=start_agent,
    )


def has_agent(path: str) -> bool:
    """Say whether an agent listens there: one that is not there is not offered to the server."""
    if not path:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # it has much to do
        except (OSError, ValueError):
            return False
    return True


def chosen(invocation: Invocation, settings: Settings) -> str:
    """Return the remote command: the one typed, or RemoteCommand."""
    return invocation.command or settings.remote_command


def script_preamble(
    invocation: Invocation, script: bytes, plan: SessionPlan, grants: Grants
) -> bytes:
    """Return what goes to the loader before the script's own stdin."""
    assert invocation.script is not None
    variables = dict(grants.display)
    if grants.has_display and plan.backend is not None:
        variables[BACKEND_VARIABLE] = plan.backend
    modes = read_modes(STDIN) if plan.pty is not None else None
    return encode_script(invocation.script, script, invocation.script_arguments, variables, modes)
