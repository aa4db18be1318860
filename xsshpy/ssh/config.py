"""The configuration where no ``ssh`` is installed to read it: asyncssh's reader, widened.

asyncssh knows about half of ssh_config(5) and passes over the rest in silence. Whatever bears on
security or changes what a run does is therefore read here as well, and the result is put into the
words of ``ssh -G``, so that one parser makes Settings of both. What stays different: ``Match``
knows fewer criteria, tokens are expanded in fewer keywords, and OpenSSH's own defaults for
algorithms are replaced by asyncssh's.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Mapping

from asyncssh import ConfigParseError
from asyncssh.config import SSHClientConfig, SSHConfig

from xsshpy.errors import SettingsError
from xsshpy.settings import Invocation, Settings, alias_of, check_invocation, parse_settings
from xsshpy.ssh.forward_command import parse_forward
from xsshpy.ssh.forward_spec import ForwardKind, print_forward
from xsshpy.tokens import home_directory, local_user

_MORE_KEYWORDS = (
    "AddKeysToAgent",
    "BatchMode",
    "BindInterface",
    "CheckHostIP",
    "ClearAllForwardings",
    "ConnectionAttempts",
    "EnableEscapeCommandline",
    "EscapeChar",
    "ExitOnForwardFailure",
    "FingerprintHash",
    "ForkAfterAuthentication",
    "ForwardX11",
    "ForwardX11Timeout",
    "GatewayPorts",
    "HashKnownHosts",
    "HostbasedAcceptedAlgorithms",
    "KbdInteractiveDevices",
    "KnownHostsCommand",
    "LocalCommand",
    "LogLevel",
    "NoHostAuthenticationForLocalhost",
    "NumberOfPasswordPrompts",
    "PermitLocalCommand",
    "PermitRemoteOpen",
    "ProxyUseFdpass",
    "PubkeyAcceptedAlgorithms",
    "RequiredRSASize",
    "RevokedHostKeys",
    "SecurityKeyProvider",
    "SessionType",
    "StdinNull",
    "StrictHostKeyChecking",
    "StreamLocalBindMask",
    "StreamLocalBindUnlink",
    "Tunnel",
    "TunnelDevice",
    "UpdateHostKeys",
    "VerifyHostKeyDNS",
    "VisualHostKey",
)

_FORWARD_KEYWORDS = {
    "LocalForward": ForwardKind.LOCAL,
    "RemoteForward": ForwardKind.REMOTE,
    "DynamicForward": ForwardKind.DYNAMIC,
}

_FLAG_KEYWORDS = {
    "4": "AddressFamily inet",
    "6": "AddressFamily inet6",
    "A": "ForwardAgent yes",
    "a": "ForwardAgent no",
    "C": "Compression yes",
    "f": "ForkAfterAuthentication yes",
    "g": "GatewayPorts yes",
    "N": "SessionType none",
    "s": "SessionType subsystem",
    "K": "GSSAPIAuthentication yes",
    "k": "GSSAPIDelegateCredentials no",
    "n": "StdinNull yes",
    "q": "LogLevel QUIET",
    "T": "RequestTTY no",
    "X": "ForwardX11 yes",
    "x": "ForwardX11 no",
    "Y": "ForwardX11 yes",
}
_VALUE_KEYWORDS = {
    "b": "BindAddress",
    "c": "Ciphers",
    "D": "DynamicForward",
    "e": "EscapeChar",
    "I": "PKCS11Provider",
    "i": "IdentityFile",
    "J": "ProxyJump",
    "L": "LocalForward",
    "l": "User",
    "m": "MACs",
    "p": "Port",
    "R": "RemoteForward",
    "w": "TunnelDevice",
}


def _set_line(config: SSHConfig, option: str, args: list[str]) -> None:
    """Keep the first line that names the keyword."""
    config._options.setdefault(option, " ".join(args))
    args.clear()


def _add_forward(config: SSHConfig, option: str, args: list[str]) -> None:
    """Add a forward as ``ssh -G`` prints it; unlike other keywords all of them count."""
    text = ":".join(args)
    forward = parse_forward(_FORWARD_KEYWORDS[option], text, os.environ)
    if forward is None:
        raise ConfigParseError(f"Bad forwarding specification: {' '.join(args)}")
    lines = config._options.setdefault(option, [])
    assert isinstance(lines, list)
    line = print_forward(forward)
    if line not in lines:  # ssh opens a forward once, however often it is named
        lines.append(line)
    args.clear()


class _Config(SSHClientConfig):
    """asyncssh's client configuration with the keywords that must not be passed over."""

    _no_split = {  # noqa: RUF012  (asyncssh declares it so)
        *SSHClientConfig._no_split,
        "localcommand",
        "knownhostscommand",
    }
    _handlers = {  # noqa: RUF012
        **SSHClientConfig._handlers,
        **{keyword.lower(): (keyword, _set_line) for keyword in _MORE_KEYWORDS},
        **{keyword.lower(): (keyword, _add_forward) for keyword in _FORWARD_KEYWORDS},
    }


def read_settings_without_ssh(invocation: Invocation, environ: Mapping[str, str]) -> Settings:
    """Read the user's and the system's configuration without OpenSSH's help.

    Raises SettingsError where a file can't be understood.
    """
    check_invocation(invocation)
    host = alias_of(invocation.destination)
    user, port = _destination_parts(invocation.destination)
    with tempfile.NamedTemporaryFile("w", prefix="xssh-options-") as given:
        given.write("\n".join(option_lines(invocation)) + "\n")
        given.flush()
        paths = [given.name, *(path for path in _files(invocation) if os.path.exists(path))]
        try:
            config = _Config.load(
                None, paths, False, False, False, local_user(), user or (), host, port or ()
            )
        except (ConfigParseError, OSError, ValueError) as error:
            text = str(error).replace(given.name, "command line")
            raise SettingsError(
                f"xssh: ssh_config: {text}",
                remedy="mend that line, or install OpenSSH's client, which reads every ssh_config",
            ) from None
    return parse_settings(_as_ssh_g(config, host), host, environ)


def option_lines(invocation: Invocation) -> list[str]:
    """Return ssh's own options as lines of ssh_config; the first of a kind wins, as in a file.

    Options that win by coming last on a command line (-X and -x, -t and -T) are turned round.
    """
    lines = []
    for letter, _ in reversed(invocation.ssh_options):
        if letter in _FLAG_KEYWORDS:
            lines.append(_FLAG_KEYWORDS[letter])
        if letter == "Y":
            lines.append("ForwardX11Trusted yes")
        if letter == "K":
            lines.append("GSSAPIDelegateCredentials yes")
        if letter == "f":
            lines.append("StdinNull yes")
        if letter == "w":
            lines.append("Tunnel yes")
    for letter, value in invocation.ssh_options:
        if letter == "o" and value is not None:
            lines.append(re.sub(r"^\s*(\w+)\s*=\s*", r"\1 ", value))
        elif letter in _VALUE_KEYWORDS and value is not None:
            lines.append(f"{_VALUE_KEYWORDS[letter]} {shlex.quote(value)}")
    if invocation.count("t") and invocation.last_of("tT") == "t":
        lines.insert(0, "RequestTTY force" if invocation.count("t") > 1 else "RequestTTY yes")
    if invocation.count("v"):
        lines.insert(0, f"LogLevel DEBUG{min(3, invocation.count('v'))}")
    return lines


def _files(invocation: Invocation) -> list[str]:
    chosen = invocation.value_of("F")
    if chosen is not None:
        return [] if chosen == "none" else [chosen]
    return [os.path.join(home_directory(), ".ssh", "config"), "/etc/ssh/ssh_config"]


def _destination_parts(destination: str) -> tuple[str, int | None]:
    """Return user and port of ``[user@]host`` or ``ssh://[user@]host[:port]``."""
    is_url = destination.startswith("ssh://")
    authority = destination[len("ssh://") :].split("/")[0] if is_url else destination
    user, _, host = authority.rpartition("@")
    port = re.search(r":(\d+)$", host) if is_url else None
    return user, int(port.group(1)) if port else None


_DEFAULT_ALGORITHMS = ",".join(
    [f"{kind}-cert-v01@openssh.com" for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256")]
    + ["rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com", "ssh-ed25519"]
    + [f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)]
    + ["rsa-sha2-512", "rsa-sha2-256"]
)
"""For host keys and user keys: what OpenSSH has by default, where asyncssh still takes SHA-1."""

_DEFAULT_KEYS = ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk")


def _as_ssh_g(config: SSHConfig, host: str) -> str:
    """Return the configuration as ``ssh -G`` would print it, with OpenSSH's defaults."""
    home = home_directory()
    found: dict[str, list[str]] = {
        "user": [local_user()],
        "hostname": [host],
        "userknownhostsfile": [f"{home}/.ssh/known_hosts {home}/.ssh/known_hosts2"],
        "globalknownhostsfile": ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"],
        "hostbasedacceptedalgorithms": [_DEFAULT_ALGORITHMS],
        "hostkeyalgorithms": [_DEFAULT_ALGORITHMS],
        "pubkeyacceptedalgorithms": [_DEFAULT_ALGORITHMS],
        "securitykeyprovider": ["internal"],
        "identityfile": [f"{home}/.ssh/id_{kind}" for kind in _DEFAULT_KEYS],
    }
    files = found["userknownhostsfile"]
    for option, value in config.get_options(False).items():
        found[option.lower()] = _printed(option, value)
    if found.get("clearallforwardings") == ["yes"]:
        for option in _FORWARD_KEYWORDS:
            found.pop(option.lower(), None)
    by_dns = found.get("verifyhostkeydns", ["no"])[0].lower() not in ("no", "false")
    is_usual = found["userknownhostsfile"] is files and not by_dns
    found.setdefault("updatehostkeys", ["yes" if is_usual else "no"])
    return "\n".join(f"{keyword} {value}" for keyword, values in found.items() for value in values)


_ONE_LINE_LISTS = {"UserKnownHostsFile", "GlobalKnownHostsFile"}
_FAMILY_NAMES = {2: "inet", 10: "inet6", 30: "inet6", 0: "any"}


def _printed(option: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, (list, tuple)):
        words = [str(word) for word in value]
        return [" ".join(words)] if option in _ONE_LINE_LISTS else words
    if option == "AddressFamily":
        return [_FAMILY_NAMES.get(int(str(value)), "any")]
    return [str(value)]
