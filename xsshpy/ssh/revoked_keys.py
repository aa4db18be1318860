"""RevokedHostKeys: a file of keys that must never be accepted, whatever else is known about them.

The file is a list of public keys, one on a line, or a binary KRL. Where it is missing or broken
every host key is refused (ssh_config(5)). ``load_revoked_keys`` reads the file, in an executor;
the rest is pure.
"""

from __future__ import annotations

import errno
import os
import stat

from xsshpy.ssh.keyblob import HostCertificate, HostKey, KeyBlobError, KeyLengthError
from xsshpy.ssh.known_hosts import parse_key_text
from xsshpy.ssh.known_hosts_file import read_whole_file
from xsshpy.ssh.krl import MAGIC, KrlError, parse_krl
from xsshpy.values import dataclass, field


class RevokedKeysError(ValueError):
    """The file can't be used; the text says why, as OpenSSH does."""


@dataclass(frozen=True)
class RevokedKeys:
    """The file's contents, or why there are none."""

    path: str
    data: bytes = field(default=b"", repr=False)
    problem: str = ""

    def describe(self, key: HostKey | HostCertificate, hash_name: str) -> str:
        """Say in OpenSSH's words why the key is refused; nothing where it is not."""
        name = f"{key.display_name} {key.plain.fingerprint(hash_name)}"
        try:
            if self.problem:
                raise RevokedKeysError(self.problem)
            revoked = is_revoked(key, self.data)
        except RevokedKeysError as error:
            return f"Error checking host key {name} in revoked keys file {self.path}: {error}"
        return f"Host key {name} revoked by file {self.path}" if revoked else ""


def is_revoked(key: HostKey | HostCertificate, data: bytes) -> bool:
    """Tell whether a file with these contents revokes the key. Raises RevokedKeysError."""
    if data.startswith(MAGIC):
        try:
            return parse_krl(data).revokes(key)
        except KrlError as error:
            raise RevokedKeysError(str(error)) from None
    revoked = {key.plain, key.ca} if isinstance(key, HostCertificate) else {key}
    for line in data.split(b"\n"):
        text = line.partition(b"\0")[0].lstrip(b" \t")
        if not text or text.startswith(b"#"):
            continue
        try:
            if parse_key_text(text).plain in revoked:
                return True
        except KeyLengthError:
            continue  # ssh accepts no such key anyway
        except KeyBlobError:
            raise RevokedKeysError("invalid format") from None
    return False


def load_revoked_keys(path: str) -> RevokedKeys:
    """Read the file; what stands in the way is kept with the rest."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return RevokedKeys(path, read_whole_file(path))
    except OSError as error:
        return RevokedKeys(path, problem=error.strerror or str(error))
    except ValueError as error:
        return RevokedKeys(path, problem=str(error))
