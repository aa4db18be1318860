"""The configuration of one host, read by OpenSSH, or without it where there is no ``ssh``."""

from __future__ import annotations

from collections.abc import Mapping

from xsshpy.console import Console
from xsshpy.settings import Invocation, Settings
from xsshpy.ssh_g import read_settings


async def resolve_settings(
    invocation: Invocation, environ: Mapping[str, str], console: Console
) -> Settings:
    """Return the settings, showing what OpenSSH said besides. Raises SettingsError."""
    try:
        settings, said = await read_settings(invocation, environ)
    except FileNotFoundError:
        from xsshpy.ssh.config import read_settings_without_ssh

        console.debug(1, "no `ssh` on PATH: the configuration is read without its help")
        return read_settings_without_ssh(invocation, environ)
    for line in said:
        console.error(line)
    return settings
