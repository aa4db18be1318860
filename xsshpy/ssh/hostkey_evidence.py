"""What there is to judge a host key by, read before the key is shown.

known_hosts files, the file of revoked keys, and what KnownHostsCommand says about the host before
the connection (``%I`` is ``ORDER``): the kinds of keys on record decide which ones are asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.ssh.hostkey_policy import HostNames
from xsshpy.ssh.known_hosts import KnownHosts, order_host_key_algorithms
from xsshpy.ssh.known_hosts_command import KnownHostsCommand, Occasion
from xsshpy.ssh.known_hosts_file import load_known_hosts
from xsshpy.ssh.revoked_keys import RevokedKeys, load_revoked_keys
from xsshpy.values import dataclass


@dataclass(frozen=True)
class Evidence:
    """What is on record. ``algorithms`` are those to offer the server, the known ones first."""

    known: KnownHosts
    revoked: RevokedKeys | None
    command: KnownHostsCommand
    algorithms: tuple[str, ...]


async def gather_evidence(
    settings: Settings, console: Console, environ: Mapping[str, str], names: HostNames
) -> Evidence:
    """Read all of it. Raises HostKeyError where KnownHostsCommand fails."""
    loop = asyncio.get_running_loop()
    known = await loop.run_in_executor(
        None,
        load_known_hosts,
        settings.user_known_hosts_files,
        settings.global_known_hosts_files,
    )
    for path, reason in known.unreadable:
        console.debug(1, f"load_hostkeys: fopen {path}: {reason}")
    revoked = None
    if settings.revoked_host_keys:
        path = settings.revoked_host_keys
        revoked = await loop.run_in_executor(None, load_revoked_keys, path)
    command = KnownHostsCommand(settings, console, environ)
    entries = known.lookup(names.record_name)
    if command:
        # Up to 9.5 ssh takes the bare name in this place, whatever the port and the alias.
        name = names.record_name if settings.release >= (9, 6) else names.bare_name
        occasion = Occasion("ORDER", name)
        printed = KnownHosts().with_command_output(await command.read(occasion), occasion.tag)
        entries += printed.lookup(name)
    algorithms = order_host_key_algorithms(settings.host_key_algorithms, entries)
    return Evidence(known, revoked, command, algorithms)
