"""Which server a connection leads to, proved: for agents, and for signatures bound to a host key.

The proof is the server's own signature in the first key exchange, which asyncssh verifies and
forgets (PROTOCOL.agent, PROTOCOL section 3.1: ``publickey-hostbound-v00@openssh.com``).
"""

from __future__ import annotations

from typing import cast

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket

from xsshpy.ssh.agent import SessionBinding

HOST_BOUND_METHOD = b"publickey-hostbound-v00@openssh.com"
_HOST_BOUND_EXTENSION = b"publickey-hostbound@openssh.com"
_MOST_EXTENSIONS = 256


class HostKeyWitness:
    """Watches the first key exchange, and remembers what proves the server's identity."""

    def __init__(self) -> None:
        self._shown = b""
        self._binding: SessionBinding | None = None

    @property
    def binding(self) -> SessionBinding | None:
        """The proof; None before the first key exchange has ended."""
        return self._binding

    def watch(self, key: asyncssh.SSHKey, shown: bytes) -> asyncssh.SSHKey:
        """Return something that verifies as ``key`` does, and remembers what it saw first.

        ``shown`` is the key, or certificate, as the server showed it.
        """
        self._shown = shown
        # The key exchange calls nothing else of it.
        return cast("asyncssh.SSHKey", _Watched(self, key))

    def note(self, session_id: bytes, signature: bytes) -> None:
        """Remember the signature of the first key exchange, which has been verified."""
        if self._binding is None:
            self._binding = SessionBinding(self._shown, session_id, signature)


class _Watched:
    def __init__(self, witness: HostKeyWitness, key: asyncssh.SSHKey) -> None:
        self._witness = witness
        self._key = key

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Verify a signature of the exchange hash."""
        is_good = self._key.verify(data, signature)
        if is_good:
            self._witness.note(data, signature)
        return is_good


def takes_host_bound(payload: bytes) -> bool:
    """Tell whether SSH_MSG_EXT_INFO (RFC 8308 §2.3) says that the server knows the bound method."""
    packet = SSHPacket(payload)
    try:
        for _ in range(min(packet.get_uint32(), _MOST_EXTENSIONS)):
            name, value = packet.get_string(), packet.get_string()
            if name == _HOST_BOUND_EXTENSION:
                return value == b"0"
    except PacketDecodeError:
        return False
    return False
