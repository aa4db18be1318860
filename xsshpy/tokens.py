"""The tokens and tildes of ssh_config(5), and whose they are here: home directory, local user.

As in ssh, both come from the password database, not from the environment.
"""

from __future__ import annotations

import os

from xsshpy.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def home_directory() -> str:
    """Return the home directory that ssh uses: the password database's, not ``$HOME``."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return os.path.expanduser("~")


def local_user() -> str:
    """Return the name of the user who runs this process."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def expand_tokens(text: str, tokens: Mapping[str, str], keyword: str) -> str:
    """Replace ``%x`` tokens. Raises SettingsError for one that ``keyword`` does not have."""
    if "%" not in text:
        return text
    import re  # it takes 7 ms

    return re.sub(
        r"%(.?)", lambda m: find_token(m.group(1), tokens, keyword), text, flags=re.DOTALL
    )


def find_token(name: str, tokens: Mapping[str, str], keyword: str) -> str:
    """Return the value of a token. Raises SettingsError for one that ``keyword`` does not have."""
    if name not in tokens:
        raise SettingsError(
            f"vdollar_percent_expand: unknown key %{name}\npercent_expand: failed",
            evidence=(f"xssh: in {keyword}",),
        )
    return tokens[name]


def expand_home(path: str) -> str:
    """Return a path with its tilde replaced: one's own home directory, or another user's."""
    if path == "~" or path.startswith("~/"):
        return home_directory() + path[1:]
    return os.path.expanduser(path) if path.startswith("~") else path
