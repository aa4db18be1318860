"""What is asked of a master besides sessions: -O check, exit, stop, forward, cancel; forwards.

Words, order and statuses are ssh's (mux.c). PROTOCOL.mux §4 to §8.
"""

from __future__ import annotations

import os

from xsshpy.console import LogLevel
from xsshpy.mux.control import MuxCommand, has_forwards
from xsshpy.mux.conversation import Conversation, MasterLostError
from xsshpy.mux.messages import (
    PATH_PORT,
    CloseForward,
    Failure,
    MuxForwardKind,
    MuxProtocolError,
    Ok,
    OpenForward,
    PermissionDenied,
    ProxyStarted,
    RemotePort,
    Reply,
    StartProxy,
    StopListening,
    Terminate,
)
from xsshpy.mux.task import refuse, shown
from xsshpy.streams import STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xsshpy.mux.task import MuxTask
    from xsshpy.ssh.forward_spec import Endpoint, Forward

_SOCKS = b"socks"
"""What ssh names as the target where each connection names its own."""


def check(task: MuxTask, conversation: Conversation) -> int:
    """-O check: say which process the master is."""
    try:
        pid = conversation.check_alive()
    except (MasterLostError, MuxProtocolError) as error:
        refuse(f"muxclient: master alive check failed: {error}")
    task.console.speak(f"Master running (pid={pid})")
    return 0


def terminate(task: MuxTask, conversation: Conversation) -> int:
    """-O exit: a master that is gone before it could answer has done it."""
    name = "mux_client_request_terminate"
    try:
        reply = conversation.ask(Terminate(conversation.request_id), patient=True)
    except MasterLostError as error:
        if error.is_silent:
            refuse(f"{name}: read from master failed: {error}")
        reply = Ok(0)
    except MuxProtocolError as error:
        refuse(f"{name}: {error}")
    _require_ok(reply, "Master refused termination request", f"{name}: termination request failed")
    if task.console.level > LogLevel.QUIET:
        task.console.speak("Exit request sent.")
    return 0


def stop(task: MuxTask, conversation: Conversation) -> int:
    """-O stop: the master goes on without taking passengers."""
    name = "mux_client_request_stop_listening"
    try:
        reply = conversation.ask(StopListening(conversation.request_id), patient=True)
    except (MasterLostError, MuxProtocolError) as error:
        refuse(f"{name}: read from master failed: {error}")
    _require_ok(
        reply, "Master refused stop listening request", f"{name}: stop listening request failed"
    )
    if task.console.level > LogLevel.QUIET:
        task.console.speak("Stop listening request sent.")
    return 0


def ask_for_proxy(task: MuxTask, conversation: Conversation) -> None:
    """Have the master pass on what is said from now on, which is no message of its any more.

    Raises SessionError where it does not, and MasterLostError.
    """
    try:
        reply = conversation.ask(StartProxy(conversation.request_id), patient=True)
    except MuxProtocolError as error:
        refuse(f"mux_client_proxy: {error}")
    if isinstance(reply, PermissionDenied | Failure):
        refuse(f"mux_client_proxy: master returned error: {shown(reply.reason)}")
    if not isinstance(reply, ProxyStarted):
        refuse("mux_client_proxy: unexpected response from master")


def _require_ok(reply: Reply, refused: str, failed: str) -> None:
    if isinstance(reply, PermissionDenied):
        refuse(f"{refused}: {shown(reply.reason)}")
    if isinstance(reply, Failure):
        refuse(f"{failed}: {shown(reply.reason)}")
    if not isinstance(reply, Ok):
        refuse(f"{failed}: unexpected response from master")


def forward(task: MuxTask, conversation: Conversation) -> int:
    """-O forward: open what -L, -R, -D and the configuration name."""
    if not ask_for_forwards(task, conversation):
        refuse("muxclient: master forward request failed")
    return 0


def cancel(task: MuxTask, conversation: Conversation) -> int:
    """-O cancel: close them. One that is not there is told; the status is 0 as with ssh."""
    if not ask_for_forwards(task, conversation):
        task.console.error("muxclient: master cancel forward request failed")
    return 0


def ask_for_forwards(task: MuxTask, conversation: Conversation) -> bool:
    """Ask for all forwards to be opened, or closed with -O cancel; say whether all were.

    What was refused has been told. Raises SessionError for an answer that makes no sense, and
    MasterLostError.
    """
    if not has_forwards(task.settings.keywords):
        return True
    from xsshpy.ssh.forward_spec import parse_forwards

    done = True
    for wanted in parse_forwards(task.settings.keywords):
        done = _ask_for_forward(task, conversation, wanted) and done
    return done


def _ask_for_forward(task: MuxTask, conversation: Conversation, wanted: Forward) -> bool:
    from xsshpy.ssh.forward_spec import describe_forward

    canceling = task.command is MuxCommand.CANCEL
    gateway_ports = task.settings.keywords.get("gatewayports") == ("yes",)
    described = describe_forward(wanted, gateway_ports=gateway_ports)
    request = encode_forward(wanted, conversation.request_id)
    what = "cancellation of" if canceling else "forwarding of"
    task.console.debug(1, f"Requesting {what} {described}")
    try:
        reply = conversation.ask(_closing(request) if canceling else request, patient=True)
    except MuxProtocolError as error:
        refuse(f"mux_client_forward: {error}")
    if isinstance(reply, RemotePort) and not canceling:
        _tell_port(task, request, reply.port)
    elif isinstance(reply, PermissionDenied):
        task.console.error(f"Master refused forwarding request: {shown(reply.reason)}")
        return False
    elif isinstance(reply, Failure):
        reason = shown(reply.reason)
        task.console.error(f"mux_client_forward: forwarding request failed: {reason}")
        return False
    elif not isinstance(reply, Ok):
        refuse("mux_client_forward: unexpected response from master")
    return True


def _closing(opening: OpenForward) -> CloseForward:
    return CloseForward(
        opening.request_id,
        opening.kind,
        opening.listen_host,
        opening.listen_port,
        opening.connect_host,
        opening.connect_port,
    )


def _tell_port(task: MuxTask, request: OpenForward, port: int) -> None:
    """Say which port the server took; with -O forward it is the output, as with ssh."""
    host, number = shown(request.connect_host), _signed(request.connect_port)
    task.console.verbose(f"Allocated port {port} for remote forward to {host}:{number}")
    if task.command is MuxCommand.FORWARD:
        os.write(STDOUT, b"%d\n" % port)


def _signed(port: int) -> int:
    return -2 if port == PATH_PORT else port


def encode_forward(wanted: Forward, request_id: int) -> OpenForward:
    """Return a forward as the protocol has it."""
    from xsshpy.ssh.forward_spec import ForwardKind

    kinds = {
        ForwardKind.LOCAL: MuxForwardKind.LOCAL,
        ForwardKind.DYNAMIC: MuxForwardKind.DYNAMIC,
        ForwardKind.REMOTE: MuxForwardKind.REMOTE,
        ForwardKind.REMOTE_DYNAMIC: MuxForwardKind.REMOTE,
    }
    listen_host, listen_port = _place(wanted.listen)
    # An empty address is every one to the user; to a master it would be none given.
    if listen_host == b"" and getattr(wanted.listen, "host", None) is not None:
        listen_host = b"*"
    target = (_SOCKS, 0) if wanted.target is None else _place(wanted.target)
    return OpenForward(request_id, kinds[wanted.kind], listen_host, listen_port, *target)


def _place(endpoint: Endpoint) -> tuple[bytes, int]:
    name, port = endpoint.describe()
    return os.fsencode(name), port & 0xFFFFFFFF


ORDERS: Mapping[MuxCommand, Callable[[MuxTask, Conversation], int]] = {
    MuxCommand.CHECK: check,
    MuxCommand.EXIT: terminate,
    MuxCommand.STOP: stop,
    MuxCommand.FORWARD: forward,
    MuxCommand.CANCEL: cancel,
}
"""What -O asks for by itself."""
