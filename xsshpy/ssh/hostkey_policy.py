"""What a decision about a host key depends on besides the key: its names and the settings."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from enum import Enum
from typing import Final

from xsshpy.ssh.keyblob import (
    HostCertificate,
    HostKey,
    is_certificate_algorithm,
    plain_algorithm,
)
from xsshpy.values import dataclass

SSH_PORT: Final = 22
"""The port that a name in known_hosts does not mention."""


class StrictChecking(Enum):
    """StrictHostKeyChecking: what to do about a key that is not on record, or another one."""

    YES = "yes"
    ACCEPT_NEW = "accept-new"
    ASK = "ask"
    NO = "no"


def parse_strict_checking(value: str) -> StrictChecking:
    """Read the option's value as a file or ``ssh -G`` has it; raise ValueError for another."""
    same = {"true": "yes", "false": "no", "off": "no"}
    return StrictChecking(same.get(value.lower(), value.lower()))


def is_permitted(key: HostKey | HostCertificate, algorithms: Sequence[str]) -> bool:
    """Tell whether HostKeyAlgorithms allows a key of this kind; an empty list allows every one."""
    certified = isinstance(key, HostCertificate)
    return not algorithms or any(
        plain_algorithm(name) == key.plain.algorithm and is_certificate_algorithm(name) == certified
        for name in algorithms
    )


class Feature(Enum):
    """What must not be used with a host whose key is not to be trusted; the value is its name."""

    PASSWORD = "Password authentication"  # noqa: S105  (a sentence, not a secret)
    KEYBOARD_INTERACTIVE = "Keyboard-interactive authentication"
    AGENT = "Agent forwarding"
    X11 = "X11 forwarding"
    PORTS = "Port forwarding"
    TUNNEL = "Tunnel forwarding"
    UPDATE_HOST_KEYS = "UpdateHostkeys"


@dataclass(frozen=True)
class HostNames:
    """Under which names a host's key is on record.

    ``host`` is the name after ssh_config's HostName; ``address`` the numeric address it was
    reached at (with ``%scope``), None behind a ProxyCommand or ProxyJump; ``alias`` HostKeyAlias.
    """

    host: str
    port: int = SSH_PORT
    address: str | None = None
    alias: str | None = None

    @property
    def record_name(self) -> str:
        """The name the key is looked up and recorded by: the alias, ``host``, ``[host]:port``."""
        if self.alias is not None:
            return self.alias.lower()
        return _with_port(self.host.lower(), self.port)

    @property
    def bare_name(self) -> str:
        """The host without its port."""
        return self.host.lower()

    @property
    def certificate_name(self) -> str:
        """The name that a host certificate has to list."""
        return self.bare_name if self.alias is None else self.alias.lower()

    @property
    def address_name(self) -> str:
        """The address as the question shows it and CheckHostIP looks it up."""
        if self.address is None:
            return "<no hostip for proxy command>"
        return _with_port(self.address, self.port)

    @property
    def is_local(self) -> bool:
        """Whether the address is this machine's loopback."""
        try:
            return ipaddress.ip_address((self.address or "").partition("%")[0]).is_loopback
        except ValueError:
            return False


def _with_port(host: str, port: int) -> str:
    return host if port in (0, SSH_PORT) else f"[{host}]:{port}"


@dataclass(frozen=True)
class HostKeyPolicy:
    """The settings that bear on host keys.

    ``batch`` is BatchMode; ``host_key_algorithms`` HostKeyAlgorithms (empty allows all);
    ``trust_localhost`` NoHostAuthenticationForLocalhost; ``visual`` VisualHostKey; ``enabled`` what
    this run would use and has to do without if the key is not to be trusted; ``home`` is what ``~``
    stands for.
    """

    strict: StrictChecking = StrictChecking.ASK
    batch: bool = False
    hash_known_hosts: bool = False
    check_host_ip: bool = False
    fingerprint_hash: str = "sha256"
    host_key_algorithms: tuple[str, ...] = ()
    required_rsa_size: int = 1024
    trust_localhost: bool = False
    visual: bool = False
    enabled: frozenset[Feature] = frozenset()
    exit_on_forward_failure: bool = False
    home: str = ""

    def checks_address(self, names: HostNames) -> bool:
        """Tell whether the address has to have the same key on record as the name (CheckHostIP)."""
        differs = names.address is not None and names.address != names.bare_name
        return self.check_host_ip and differs and not names.is_local
