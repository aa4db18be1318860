"""Reading private keys: permissions, passphrases, sizes, and the words where one can't be used.

A key is read once it is needed and at most once in a run (sshconnect2.c, load_identity_file).
"""

from __future__ import annotations

import asyncio
import errno
import os
import re

import asyncssh

from xsshpy.console import Console, LogLevel
from xsshpy.settings import Settings
from xsshpy.ssh.agent_add import AgentAdder
from xsshpy.ssh.keyfiles import import_key, is_default, is_too_small, read_key_file

_OPENSSH_HEADER = b"BEGIN OPENSSH PRIVATE KEY"
_PEM_HEADER = rb"(?m)^-----BEGIN ((RSA|DSA|EC|ENCRYPTED) )?PRIVATE KEY-----"
_UNPROTECTED = "@" * 59


class KeyUnlocker:
    """Reads private keys, asking for passphrases; each key is unlocked once in a run."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._adder = AgentAdder(settings, console)
        self._unlocked: dict[str, asyncssh.SSHKey | None] = {}

    async def private_key(self, path: str) -> asyncssh.SSHKey | None:
        """Return the private key, or None where it can't be had; the reason has been shown."""
        if path not in self._unlocked:
            self._unlocked[path] = await self._load(path)
        return self._unlocked[path]

    async def _load(self, path: str) -> asyncssh.SSHKey | None:
        data = self._read(path)
        key = None if data is None else await self._decrypt(path, data)
        if key is None or data is None:
            return None
        if is_too_small(key, self._settings):
            self._console.debug(1, f"Skipping key {path}: Invalid key length")
            return None
        # Other formats keep no comment; ssh then takes the file's name.
        is_openssh = _OPENSSH_HEADER in data
        comment = (key.get_comment_bytes() or b"") if is_openssh else os.fsencode(path)
        await self._adder.add(path, key, comment)
        return key

    def _read(self, path: str) -> bytes | None:
        try:
            mode = os.stat(path)
        except OSError as error:
            text = f"no such identity: {path}: {error.strerror}"
            self._console.log(LogLevel.DEBUG3 if is_default(path) else LogLevel.INFO, text)
            return None
        if not self._is_private(path, mode):
            return None
        try:
            return read_key_file(path)
        except OSError as error:
            if error.errno == errno.ENOENT:
                self._console.debug(2, f'Load key "{path}": {error.strerror}')
            else:
                self._console.error(f'Load key "{path}": {error.strerror or error}')
            return None

    async def _decrypt(self, path: str, data: bytes) -> asyncssh.SSHKey | None:
        try:
            return import_key(asyncssh.import_private_key, data)
        except asyncssh.KeyEncryptionError:
            return await self._ask_passphrase(path, data)
        except (asyncssh.KeyImportError, ValueError) as error:
            if "passphrase" in str(error).lower():
                return await self._ask_passphrase(path, data)
            self._console.debug(1, f"{path}: {error}")
            # What OpenSSH can't read it leaves to libcrypto, which knows a key by its first line.
            cause = "invalid format" if re.search(_PEM_HEADER, data) else "error in libcrypto"
            self._console.error(f'Load key "{path}": {cause}')
            return None

    def _is_private(self, path: str, mode: os.stat_result) -> bool:
        """Refuse a key that others can read, in ssh's words."""
        if mode.st_uid != os.getuid() or not mode.st_mode & 0o077:
            return True
        self._console.error(
            f"{_UNPROTECTED}\n"
            "@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\n"
            f"{_UNPROTECTED}\n"
            f"Permissions 0{mode.st_mode & 0o777:03o} for '{path}' are too open.\n"
            "It is required that your private key files are NOT accessible by others.\n"
            "This private key will be ignored.\n"
            f'Load key "{path}": bad permissions'
        )
        return False

    async def _ask_passphrase(self, path: str, data: bytes) -> asyncssh.SSHKey | None:
        if self._settings.batch_mode:
            return None
        loop = asyncio.get_running_loop()
        for _ in range(self._settings.number_of_password_prompts):
            passphrase = await self._console.ask_secret(f"Enter passphrase for key '{path}': ")
            if not passphrase:
                self._console.debug(2, "no passphrase given, try next key")
                return None
            try:
                return await loop.run_in_executor(
                    None, import_key, asyncssh.import_private_key, data, passphrase
                )
            except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError, ValueError):
                # What a wrong passphrase makes of a PEM file is no key either.
                self._console.debug(2, "bad passphrase given, try again...")
        return None
