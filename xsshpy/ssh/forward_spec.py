"""What to forward: from the words of ``ssh -G`` and ``-W`` to frozen values.

Pure, but for the names of services that ``-W`` may have instead of a port (services(5)).

OpenSSH has read and judged the specifications by then; what it prints is taken apart here, and
the rules are kept that ssh_config(5) has for bind addresses (GatewayPorts), for targets of a
remote SOCKS proxy (PermitRemoteOpen) and for unix sockets (StreamLocalBindMask and -Unlink).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from enum import Enum

from xsshpy.errors import SettingsError, UsageError
from xsshpy.values import dataclass

STREAMLOCAL_PORT = -2
"""The port that ssh's messages show where there is a path instead."""

_HIGHEST_PORT = 65535
_PRIVATE_MASK = 0o177
_SOCKS = "[socks]:0"
_BRACKETED = r"\[(.*)\]:(\d{1,5})"
_FIRST_BRACKETED = r"\[([^]]*)\]:(\d{1,5}) "
_VARIABLE = r"\$\{([^}]*)\}"
_FIRST_PORT = r"(\d{1,5}) "


class ForwardKind(Enum):
    """Which side listens, and who names the target."""

    LOCAL = "local"
    REMOTE = "remote"
    DYNAMIC = "dynamic"
    REMOTE_DYNAMIC = "remote dynamic"


@dataclass(frozen=True)
class TcpEndpoint:
    """A TCP port. ``host`` is None where the user gave no bind address."""

    host: str | None
    port: int

    def describe(self) -> tuple[str, int]:
        """Return host and port as ssh's messages show them."""
        return self.host or "", self.port


@dataclass(frozen=True)
class UnixEndpoint:
    """A unix socket."""

    path: str

    def describe(self) -> tuple[str, int]:
        """Return path and port as ssh's messages show them."""
        return self.path, STREAMLOCAL_PORT


Endpoint = TcpEndpoint | UnixEndpoint


@dataclass(frozen=True)
class Forward:
    """One forward. ``target`` is None where SOCKS names it for each connection."""

    kind: ForwardKind
    listen: Endpoint
    target: Endpoint | None


@dataclass(frozen=True)
class Permission:
    """A target that PermitRemoteOpen allows; None stands for ``*``."""

    host: str | None
    port: int | None


@dataclass(frozen=True)
class ForwardOptions:
    """How forwards behave. ``permitted`` is None where any target may be named."""

    gateway_ports: bool = False
    exit_on_failure: bool = False
    bind_unlink: bool = False
    bind_mask: int = _PRIVATE_MASK
    permitted: tuple[Permission, ...] | None = None

    def permits(self, host: str, port: int) -> bool:
        """Tell whether a remote SOCKS client may be connected to this target."""
        if self.permitted is None:
            return True
        return any(
            permission.host in (None, host) and permission.port in (None, port)
            for permission in self.permitted
        )


def parse_forwards(keywords: Mapping[str, tuple[str, ...]]) -> tuple[Forward, ...]:
    """Return the forwards that ``ssh -G`` printed, those that listen here first.

    OpenSSH (9.2 to 10.2 at least) prints a LocalForward to a unix socket a second time, as a
    DynamicForward with the same listening side; such a line is not one of its own. Raises
    SettingsError for a line that says something else.
    """
    dynamic = list(keywords.get("dynamicforward", ()))
    local = []
    for line in keywords.get("localforward", ()):
        listen_text, target_text = _split_line(line, dynamic)
        if re.fullmatch(_BRACKETED, target_text) is None and listen_text in dynamic:
            dynamic.remove(listen_text)
        local.append(Forward(ForwardKind.LOCAL, _listen(listen_text), _target(target_text)))
    proxies = [Forward(ForwardKind.DYNAMIC, _listen(line), None) for line in dynamic]
    remote = [_parse_remote(line) for line in keywords.get("remoteforward", ())]
    return (*local, *proxies, *remote)


def print_forward(forward: Forward) -> str:
    """Return a forward as ``ssh -G`` prints it: what :func:`parse_forwards` reads."""
    listen = _printed(forward.listen)
    if forward.target is not None:
        return f"{listen} {_printed(forward.target)}"
    return listen if forward.kind is ForwardKind.DYNAMIC else f"{listen} {_SOCKS}"


def _printed(endpoint: Endpoint) -> str:
    if isinstance(endpoint, UnixEndpoint):
        return endpoint.path
    return str(endpoint.port) if endpoint.host is None else f"[{endpoint.host}]:{endpoint.port}"


def _parse_remote(line: str) -> Forward:
    listen_text, target_text = _split_line(line, ())
    if target_text == _SOCKS:
        return Forward(ForwardKind.REMOTE_DYNAMIC, _listen(listen_text), None)
    return Forward(ForwardKind.REMOTE, _listen(listen_text), _target(target_text))


def _split_line(line: str, known: tuple[str, ...] | list[str]) -> tuple[str, str]:
    """Return the listening side and the target. A path may have spaces: it is not quoted.

    ``known`` are listening sides printed elsewhere; between two paths nothing else tells where
    the first one ends.
    """
    first = re.match(_FIRST_BRACKETED, line) or re.match(_FIRST_PORT, line)
    if first is not None:
        return line[: first.end() - 1], line[first.end() :]
    head, space, tail = line.rpartition(" [")
    if space and re.fullmatch(_BRACKETED, "[" + tail):
        return head, "[" + tail
    for text in sorted(known, key=len, reverse=True):
        if line.startswith(text + " "):
            return text, line[len(text) + 1 :]
    head, space, tail = line.partition(" /")
    if not space:
        raise _misunderstood(line)
    return head, "/" + tail


def _listen(text: str) -> Endpoint:
    if text.isascii() and text.isdecimal():
        return TcpEndpoint(None, _port(text, text))
    return _target(text)


def _target(text: str) -> Endpoint:
    match = re.fullmatch(_BRACKETED, text)
    if match is not None:
        return TcpEndpoint(match[1], _port(match[2], text))
    if "/" not in text:
        raise _misunderstood(text)
    return UnixEndpoint(text)


def _port(digits: str, text: str) -> int:
    port = int(digits)
    if port > _HIGHEST_PORT:
        raise _misunderstood(text)
    return port


def _misunderstood(text: str) -> SettingsError:
    return SettingsError(
        f"xssh: ssh -G names a forward that is not understood: {text}",
        remedy="use ssh for this host, and report this line",
    )


def parse_forward_options(keywords: Mapping[str, tuple[str, ...]]) -> ForwardOptions:
    """Return what ``ssh -G`` says about all forwards."""

    def text(keyword: str) -> str:
        return (keywords.get(keyword) or ("",))[0]

    mask = text("streamlocalbindmask")
    return ForwardOptions(
        gateway_ports=text("gatewayports") == "yes",
        exit_on_failure=text("exitonforwardfailure") == "yes",
        bind_unlink=text("streamlocalbindunlink") == "yes",
        bind_mask=int(mask, 8) if re.fullmatch("[0-7]{1,4}", mask) else _PRIVATE_MASK,
        permitted=_parse_permissions(text("permitremoteopen").split()),
    )


def _parse_permissions(words: list[str]) -> tuple[Permission, ...] | None:
    if not words or words == ["any"]:
        return None
    if words == ["none"]:
        return ()
    return tuple(_parse_permission(word) for word in words)


def _parse_permission(word: str) -> Permission:
    """Read ``host:port`` or ``[host]:port``, as ssh does it when the connection is made."""
    match = re.fullmatch(r"(\[[^]]*\]|[^:/\[]*)[:/](\*|\d{1,5})", word)
    if match is None:
        raise SettingsError(f"xssh: bad PermitRemoteOpen: {word}")
    host = match[1].removeprefix("[").removesuffix("]")
    port = None if match[2] == "*" else _port(match[2], word)
    return Permission(None if host == "*" else host, port)


def decide_bind(host: str | None, *, gateway_ports: bool) -> tuple[str | None, bool]:
    """Return which address to listen on here, and whether on all of them.

    None as an address stands for loopback, or for all addresses, of every address family.
    """
    if host is None:
        return None, gateway_ports
    if host in ("", "*"):
        return None, True
    if host == "localhost":
        return None, False
    return host, False


def remote_bind(host: str | None) -> str:
    """Return the bind address as a server is asked for it (RFC 4254 §7.1)."""
    if host is None:
        return "localhost"
    return "" if host in ("", "*") else host


def parse_stdio_forward(text: str, environ: Mapping[str, str] | None = None) -> Endpoint:
    """Return where ``-W`` leads: ``host:port``, ``[v6]:port``, or a unix socket's path.

    ``${NAME}`` stands for a variable of ``environ``. Raises UsageError in ssh's words. Unlike
    OpenSSH before 9.4, which would wait for nothing, a path is understood.
    """
    fields = split_fields(expand_variables(text, environ or {}).lstrip())
    if fields is not None and len(fields) == 1 and "/" in fields[0]:
        return UnixEndpoint(fields[0])
    if fields is not None and len(fields) == 2 and "/" not in fields[1]:
        port = named_port(fields[1])
        if 0 < port <= _HIGHEST_PORT:
            return TcpEndpoint(fields[0], port)
    raise UsageError(f"Bad stdio forwarding specification '{text}'")


def expand_variables(text: str, environ: Mapping[str, str]) -> str:
    """Put variables in; nothing is left where one is missing."""
    missing = find_missing_variables(text, environ)
    return "" if missing else re.sub(_VARIABLE, lambda match: environ[match[1]], text)


def find_missing_variables(text: str, environ: Mapping[str, str]) -> list[str]:
    """Return the names of variables that ``text`` has and ``environ`` has not."""
    return [name for name in re.findall(_VARIABLE, text) if name not in environ]


def named_port(text: str, *, missing: int = 0) -> int:
    """Return a port by its number or its service's name; ``missing`` where there is none."""
    if re.fullmatch(r"[ \t\n\v\f\r]*\+?[0-9]{1,10}", text):  # as strtonum(3) takes it
        return int(text)
    try:
        return socket.getservbyname(text, "tcp")
    except (OSError, ValueError):
        return missing


def split_fields(text: str) -> list[str] | None:
    """Split at colons, outside of ``[…]`` and where no backslash precedes; None: it can't be."""
    fields = []
    while text:
        if text.startswith("["):
            field, closed, text = text[1:].partition("]")
            if not closed or (text and text[0] != ":"):
                return None
            text = text[1:]
        else:
            match = re.match(r"((?:\\.|[^\\:])*)(?::|$)", text, re.DOTALL)
            if match is None:
                return None
            field, text = re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL), text[match.end() :]
        fields.append(field)
    return fields


def describe_target(target: Endpoint | None) -> tuple[str, int]:
    """Return host and port of a target as ssh names them; without one it is SOCKS."""
    return ("socks", 0) if target is None else target.describe()


def describe_forward(forward: Forward, *, gateway_ports: bool) -> str:
    """Return what ssh calls a forward when it asks about it, or asks a master for it."""
    place, number = forward.listen.describe()
    is_remote = forward.kind in (ForwardKind.REMOTE, ForwardKind.REMOTE_DYNAMIC)
    if isinstance(forward.listen, TcpEndpoint) and forward.listen.host is None:
        place = "*" if gateway_ports and not is_remote else "LOCALHOST"
    if forward.kind is ForwardKind.DYNAMIC:
        return f"dynamic forward {place}:{number} -> *"
    host, port = describe_target(forward.target)
    return f"{'remote' if is_remote else 'local'} forward {place}:{number} -> {host}:{port}"
