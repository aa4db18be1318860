"""May a connection that lives on still be shared? What a new one would meet is looked at again.

For connections that are shared without the user's word on it. It ends where he has taken the host
out of known_hosts, or revoked its key, since: a new connection would ask him, or refuse. It ends
too where its local address is gone (another network, a VPN that is down): nothing would arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from xsshpy.settings import Settings
from xsshpy.ssh.connect import Session
from xsshpy.ssh.known_hosts_file import load_known_hosts
from xsshpy.ssh.revoked_keys import load_revoked_keys


class Soundness:
    """Looks at one connection, and at those of its jump hosts, before each session."""

    def __init__(self, session: Session) -> None:
        self._records = [_HostRecord(part) for part in _parts(session)]
        *_, first = _parts(session)
        self._transport = first.transport

    async def begin(self) -> None:
        """See how it is, when the connection is new."""
        for record in self._records:
            await record.holds()

    async def find_fault(self) -> str:
        """Say why no more sessions should begin; nothing where they may."""
        if self._transport is not None and not _is_local(self._transport.socket):
            return "the local address is gone"
        for record in self._records:
            if not await record.holds():
                return f"the key of {record.host} is not on record any more"
        return ""


def _parts(session: Session) -> Iterator[Session]:
    part: Session | None = session
    while part is not None:
        yield part
        part = part.carrier


def _is_local(connection: socket.socket | None) -> bool:
    """Say whether the connection's own address is still this machine's."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        address = connection.getsockname()
        with socket.socket(connection.family, socket.SOCK_DGRAM) as probe:
            probe.bind((address[0], 0, *address[2:]))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


class _HostRecord:
    """Whether a host's key is still on record; read again only where a file has changed."""

    def __init__(self, session: Session) -> None:
        self.host = session.settings.host
        self._settings: Settings = session.settings
        self._verifier = session.verifier
        self._seen: object = None
        self._was_accepted = False

    async def holds(self) -> bool:
        """Say whether a new connection would be made with the same key without a question."""
        files = [_state(path) for path in self._paths()]
        if files == self._seen:
            return True
        accepted = await asyncio.get_running_loop().run_in_executor(None, self._is_accepted)
        if self._was_accepted and not accepted:
            return False
        self._seen, self._was_accepted = files, accepted
        return True

    def _paths(self) -> Iterator[str]:
        yield from self._settings.user_known_hosts_files
        yield from self._settings.global_known_hosts_files
        if self._settings.revoked_host_keys:
            yield self._settings.revoked_host_keys

    def _is_accepted(self) -> bool:
        settings = self._settings
        known = load_known_hosts(settings.user_known_hosts_files, settings.global_known_hosts_files)
        path = settings.revoked_host_keys
        return self._verifier.would_accept(known, load_revoked_keys(path) if path else None)


def _state(path: str) -> object:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return None
