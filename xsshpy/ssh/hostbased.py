"""HostbasedAuthentication: this machine vouches for its user (RFC 4252 §9).

The machine's private host keys are root's. OpenSSH's ``ssh-keysign``, setuid root, signs with them
where ``EnableSSHKeysign yes`` stands in the system's ssh_config, which it reads itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Sequence
from typing import cast

import asyncssh
from asyncssh.packet import Byte, PacketDecodeError, SSHPacket, String, UInt32

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.ssh.keyblob import parse_public_key
from xsshpy.ssh.keyfiles import parse_public_half, read_key_file
from xsshpy.threads import call_in_thread

_KEYSIGN_PLACES = (
    "/usr/lib/openssh",
    "/usr/libexec/openssh",
    "/usr/libexec",
    "/usr/lib/ssh",
    "/usr/local/libexec",
    "/opt/homebrew/libexec",
)
_HOST_KEYS = "/etc/ssh/ssh_host_{}_key.pub"
_KINDS = ("ecdsa", "ed25519", "rsa")
_VERSION = 2
_DEADLINE = 30.0
"""Seconds for ssh-keysign to sign."""
_REPLY_LIMIT = 64 << 10
_RSA_NAMES = (b"rsa-sha2-512", b"rsa-sha2-256", b"ssh-rsa")


class HostKeyPair(asyncssh.SSHKeyPair):
    """A host key of this machine, with which ``ssh-keysign`` signs."""

    _key_type = "hostbased"

    def __init__(
        self, key: asyncssh.SSHKey, algorithm: bytes, settings: Settings, console: Console
    ) -> None:
        super().__init__(algorithm, algorithm, (algorithm,), (algorithm,), key.public_data, None)
        self._settings = settings
        self._console = console
        self.socket_fd = -1

    async def sign_async(self, data: bytes) -> bytes:
        """Let ssh-keysign sign; it looks at the connection to see which host this is.

        ValueError makes asyncssh go on.
        """
        signature = await self._call_keysign(data)
        if signature is not None:
            return signature
        key = parse_public_key(self.public_data)
        fingerprint = key.plain.fingerprint(self._settings.fingerprint_hash)
        self._console.error(
            f"ssh_keysign: no reply\nsign using hostkey {key.algorithm} {fingerprint} failed"
        )
        raise ValueError("ssh-keysign did not sign")

    async def _call_keysign(self, data: bytes) -> bytes | None:
        program = find_keysign()
        if program is None or self.socket_fd < 0:
            return None
        body = Byte(_VERSION) + UInt32(self.socket_fd) + String(data)
        process = await asyncio.create_subprocess_exec(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.socket_fd],
            limit=_REPLY_LIMIT,
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(String(body)), _DEADLINE)
        except asyncio.TimeoutError:
            return None
        try:
            reply = SSHPacket(SSHPacket(out).get_string())
            if reply.get_byte() != _VERSION:
                return None
            return reply.get_string()
        except PacketDecodeError:
            return None


async def name_this_host(address: tuple[object, ...] | None) -> str:
    """Return the name that ``address``, our end of the connection, has, as ssh-keysign wants it."""

    def look_up() -> str:
        if address is not None:
            with contextlib.suppress(OSError):
                # The four fields of an IPv6 address make it one that getnameinfo takes as well.
                place = cast("tuple[str, int]", address)
                return socket.getnameinfo(place, socket.NI_NAMEREQD)[0]
        return socket.gethostname()

    return await call_in_thread(look_up, "resolver") + "."


def find_keysign() -> str | None:
    """Return the path of OpenSSH's ssh-keysign, or None."""
    for place in _KEYSIGN_PLACES:
        path = os.path.join(place, "ssh-keysign")
        if os.access(path, os.X_OK):
            return path
    return None


def load_host_keys(settings: Settings, console: Console) -> list[HostKeyPair]:
    """Return this machine's host keys in the order of HostbasedAcceptedAlgorithms."""
    if not settings.login.hostbased:
        return []
    keys = []
    for kind in _KINDS:
        path = _HOST_KEYS.format(kind)
        try:
            key = parse_public_half(read_key_file(path))
        except OSError as error:
            console.debug(1, f"{path}: {error.strerror}")
            continue
        if key is not None:
            keys.append(key)
    found = order_host_keys(keys, settings.login.hostbased_algorithms)
    pairs = [HostKeyPair(key, algorithm, settings, console) for key, algorithm in found]
    if not pairs:
        console.debug(1, "No more client hostkeys for hostbased authentication.")
    return pairs


def order_host_keys(
    keys: Sequence[asyncssh.SSHKey], accepted: Sequence[str]
) -> list[tuple[asyncssh.SSHKey, bytes]]:
    """Return keys with the algorithm that each signs with, as ``accepted`` has them. Pure."""
    chosen: list[tuple[asyncssh.SSHKey, bytes]] = []
    for name in (name.encode() for name in accepted):
        for key in keys:
            able = _RSA_NAMES if key.algorithm == b"ssh-rsa" else (key.algorithm,)
            if name in able and all(key is not other for other, _ in chosen):
                chosen.append((key, name))
    return chosen
