"""The command line of the ``~C`` escape: one line in, what it asks for out. Pure.

As in ssh: ``-L``, ``-R`` and ``-D`` with the specifications of ssh(1), ``-KL``, ``-KR`` and ``-KD``
to cancel, ``-h`` or ``?`` for a list, ``!command`` where PermitLocalCommand allows it. The dash may
be left out. What is refused is refused in ssh's words.
"""

from __future__ import annotations

from collections.abc import Mapping

from xsshpy.ssh.forward_spec import (
    Endpoint,
    Forward,
    ForwardKind,
    TcpEndpoint,
    UnixEndpoint,
    expand_variables,
    find_missing_variables,
    named_port,
    split_fields,
)
from xsshpy.values import dataclass

_LONGEST_HOST = 1024
_LONGEST_PATH = 107
_MOST_FIELDS = 4
_KINDS = {"L": ForwardKind.LOCAL, "R": ForwardKind.REMOTE, "D": ForwardKind.DYNAMIC}
_SOCKS_KINDS = {
    ForwardKind.REMOTE: ForwardKind.REMOTE_DYNAMIC,
    ForwardKind.DYNAMIC: ForwardKind.DYNAMIC,
}


@dataclass(frozen=True)
class Command:
    """What the line asks for."""


@dataclass(frozen=True)
class Nothing(Command):
    """An empty line."""


@dataclass(frozen=True)
class ShowHelp(Command):
    """List the commands."""


@dataclass(frozen=True)
class RunLocally(Command):
    """Run a command of this machine's shell."""

    command: str


@dataclass(frozen=True)
class AddForward(Command):
    """Open one more forward."""

    forward: Forward


@dataclass(frozen=True)
class CancelForward(Command):
    """Cancel what listens there."""

    kind: ForwardKind
    listen: Endpoint


@dataclass(frozen=True)
class Refused(Command):
    """The line means nothing; ``reason`` is for the user, and what was found wrong, if known."""

    reason: str
    error: str = ""


def parse_command(line: str, environ: Mapping[str, str], *, permits_local_command: bool) -> Command:
    """Return what a line asks for; ``environ`` has the variables that ``${NAME}`` stands for."""
    words = line.lstrip(" \t\n\v\f\r").removeprefix("-")
    if not words:
        return Nothing()
    if words[0] in "hH?":
        return ShowHelp()
    if words[0] == "!" and permits_local_command:
        return RunLocally(words[1:])
    cancels = words[0] == "K"
    words = words[1:] if cancels else words
    kind = _KINDS.get(words[:1])
    if kind is None:
        return Refused("Invalid command.")
    specification = words[1:].lstrip(" \t\n\v\f\r")
    if cancels:
        return _parse_cancel(kind, specification, environ)
    forward = parse_forward(kind, specification, environ)
    if forward is None:
        side = "remote" if kind is ForwardKind.REMOTE else "local"
        return Refused(f"Bad {side} forwarding specification.", _missing(specification, environ))
    return AddForward(forward)


def _missing(text: str, environ: Mapping[str, str]) -> str:
    names = find_missing_variables(text, environ)
    return f"vdollar_percent_expand: env var ${{{names[0]}}} has no value" if names else ""


def _parse_cancel(kind: ForwardKind, text: str, environ: Mapping[str, str]) -> Command:
    sides = _parse_sides(text, environ)
    if sides is None or sides[2] > 2 or not _is_listening_side(sides[0], any_port=False):
        return Refused("Bad forwarding close specification.", _missing(text, environ))
    return CancelForward(kind, sides[0])


def parse_forward(kind: ForwardKind, text: str, environ: Mapping[str, str]) -> Forward | None:
    """Return a forward as ``-L``, ``-R`` or ``-D`` name it; None where that is not one."""
    sides = _parse_sides(text, environ)
    is_remote = kind is ForwardKind.REMOTE
    if sides is None or not _is_listening_side(sides[0], any_port=is_remote):
        return None
    listen, target, count = sides
    is_path = isinstance(target, UnixEndpoint)
    if kind is not ForwardKind.DYNAMIC and target is not None and (count > 2 or is_path):
        return Forward(kind, listen, target) if _is_target(target) else None
    socks = _SOCKS_KINDS.get(kind)
    if socks is None or count > 2 or target is not None:
        return None
    return Forward(socks, listen, None)


def _parse_sides(
    text: str, environ: Mapping[str, str]
) -> tuple[Endpoint, Endpoint | None, int] | None:
    """Return listening side, target, and how many fields there were. Ports may be -1 by now."""
    fields = split_fields(expand_variables(text, environ).lstrip())
    if not fields or len(fields) > _MOST_FIELDS:
        return None
    first, *others = fields
    count = len(fields)
    if count == 4:
        return _tcp(first, others[0]), _tcp(others[1], others[2]), count
    if count == 3:
        if "/" in first:
            return UnixEndpoint(first), _tcp(others[0], others[1]), count
        if "/" in others[1]:
            return _tcp(first, others[0]), UnixEndpoint(others[1]), count
        return _tcp(None, first), _tcp(others[0], others[1]), count
    if count == 2 and "/" in others[0]:
        listen: Endpoint = UnixEndpoint(first) if "/" in first else _tcp(None, first)
        return listen, UnixEndpoint(others[0]), count
    if count == 2:
        return _tcp(first, others[0]), None, count
    return (UnixEndpoint(first) if "/" in first else _tcp(None, first)), None, count


def _tcp(host: str | None, port: str) -> TcpEndpoint:
    return TcpEndpoint(host, named_port(port, missing=-1))


def _is_listening_side(listen: Endpoint, *, any_port: bool) -> bool:
    if isinstance(listen, UnixEndpoint):
        return len(listen.path.encode("utf-8", "surrogateescape")) <= _LONGEST_PATH
    least = 0 if any_port else 1
    return least <= listen.port <= 65535 and len(listen.host or "") <= _LONGEST_HOST


def _is_target(target: Endpoint) -> bool:
    if isinstance(target, UnixEndpoint):
        return len(target.path.encode("utf-8", "surrogateescape")) <= _LONGEST_PATH
    return 0 < target.port <= 65535 and len(target.host or "") <= _LONGEST_HOST


def help_lines(*, permits_local_command: bool) -> list[str]:
    """Return the list of commands, in ssh's words."""
    commands = [
        ("-L[bind_address:]port:host:hostport", "Request local forward"),
        ("-R[bind_address:]port:host:hostport", "Request remote forward"),
        ("-D[bind_address:]port", "Request dynamic forward"),
        ("-KL[bind_address:]port", "Cancel local forward"),
        ("-KR[bind_address:]port", "Cancel remote forward"),
        ("-KD[bind_address:]port", "Cancel dynamic forward"),
    ]
    if permits_local_command:
        commands.append(("!args", "Execute local command"))
    return ["Commands:", *(f"      {words:<39}{text}" for words, text in commands)]
