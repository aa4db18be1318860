"""Connections shared without a word in ssh_config: when, and with whom (--share, XSSH_SHARE).

The socket lies in a folder that only this user can enter. Its name is a digest of everything that
could make the connection another one: host, user, port, the way there, every setting that ``ssh
-G`` prints but those that are about one session alone, the agents, the display, and this version.
So who may share does so with the same authentication, the same judgement of the host's key and the
same display; whoever asks for anything else gets a connection of his own.

Rules kept here:

* What the user says of sharing himself wins: a ControlPath, ``-S``, ``-M``, ``-o ControlMaster``.
* What would outlive the run that asked for it is never handed to a shared connection: forwards,
  tunnels, -N, -f; nor what happens once for each connection: LocalCommand.
* A folder or socket that is not this user's alone is not used.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from hashlib import sha256

from xsshpy import __version__
from xsshpy.console import Console
from xsshpy.mux.control import AUTOMATIC_KEYWORD
from xsshpy.mux.sockets import PATH_SIZE
from xsshpy.settings import Invocation, Settings
from xsshpy.values import replace

_SUFFIX_ROOM = 18
_DIGEST_LENGTH = 32

_SESSION_KEYWORDS = frozenset(
    {
        "controlmaster",
        "controlpath",
        "controlpersist",
        "enableescapecommandline",
        "escapechar",
        "forkafterauthentication",
        "loglevel",
        "remotecommand",
        "requesttty",
        "sessiontype",
        "stdinnull",
    }
)
"""Settings about one session: a passenger's own count."""

_CONNECTION_KEYWORDS = ("dynamicforward", "localforward", "remoteforward")
_VARIABLES = (
    "DISPLAY",
    "KRB5CCNAME",
    "SSH_AUTH_SOCK",
    "XAUTHORITY",
    "XSSH_X11",
)


def share(
    invocation: Invocation,
    settings: Settings,
    seconds: int,
    console: Console,
    environ: Mapping[str, str],
) -> Settings:
    """Return the settings with a shared connection in them, where there is to be one.

    ``seconds`` is how long it stays after its last session.
    """
    if not may_share(invocation, settings):
        return settings
    name = digest(invocation, settings, environ)
    for folder in _folders(environ):
        path = os.path.join(folder, name)
        if len(os.fsencode(path)) + _SUFFIX_ROOM < PATH_SIZE:
            break
    else:
        return settings
    refusal = _prepare_folder(folder)
    if refusal:
        console.debug(1, f"xssh: no shared connection: {refusal}")
        return settings
    return _with_control(settings, path, seconds)


def _with_control(settings: Settings, path: str, seconds: int) -> Settings:
    keywords = {
        **settings.keywords,
        "controlmaster": ("auto",),
        "controlpath": (path,),
        "controlpersist": (str(seconds),),
        AUTOMATIC_KEYWORD: ("yes",),
    }
    return replace(settings, keywords=keywords)


def may_share(invocation: Invocation, settings: Settings) -> bool:
    """Tell whether the run is one whose connection others may have, or that may have another's."""
    keywords = settings.keywords
    if _speaks_of_sharing(invocation) or "controlpath" in keywords:
        return False
    if invocation.script is not None or invocation.stats:
        return False
    if settings.session_type == "none" or settings.fork_after_authentication:
        return False
    if any(keywords.get(keyword) for keyword in _CONNECTION_KEYWORDS) or settings.local_command:
        return False
    return keywords.get("tunnel", ("false",))[0] in ("false", "no")


def _speaks_of_sharing(invocation: Invocation) -> bool:
    if invocation.last_of("MSO"):
        return True
    options = [value or "" for letter, value in invocation.ssh_options if letter == "o"]
    return any(option.strip().lower().startswith("control") for option in options)


def digest(invocation: Invocation, settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the name that stands for everything that makes the connection what it is."""
    facts = repr([*_facts(invocation, settings, environ)])
    return sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGEST_LENGTH]


def _facts(
    invocation: Invocation, settings: Settings, environ: Mapping[str, str]
) -> Iterator[object]:
    yield [__version__, os.getuid(), settings.host, settings.hostname, settings.user, settings.port]
    yield [
        (keyword, values)
        for keyword, values in sorted(settings.keywords.items())
        if keyword not in _SESSION_KEYWORDS
    ]
    # The same words mean other files elsewhere, and for other agents.
    paths = (
        *settings.identity_files,
        *settings.certificate_files,
        *settings.user_known_hosts_files,
        *settings.global_known_hosts_files,
        settings.revoked_host_keys,
    )
    yield [os.path.abspath(path) if path else "" for path in paths]
    yield [settings.identity_agent, settings.forward_agent]
    if settings.proxy_command or settings.proxy_jump:
        yield [os.getcwd(), os.path.abspath(invocation.value_of("F") or "")]
    yield [invocation.last_of("XYx"), invocation.x11, invocation.backend]
    yield [environ.get(name) for name in _VARIABLES]


def _folders(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield where sockets may lie: the runtime folder, or where its path is too long in /tmp."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        yield os.path.join(runtime, "xssh")
    yield f"/tmp/xssh-{os.getuid()}"  # noqa: S108  (a folder of ours alone, which is looked at)


def _prepare_folder(folder: str) -> str:
    """Make the folder; return why it must not be used, or nothing."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder} is no folder"
    if found.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if found.st_mode & 0o077:
        return f"{folder} is open to others (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""
