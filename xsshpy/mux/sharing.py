"""Connections shared without a word in ssh_config: when, and with whom (--share, XSSH_SHARE).

The socket lies in a folder that only this user can enter. Its name is a digest of everything that
could make the connection another one: host, user, port, the way there, every setting that ``ssh
-G`` prints but those that are about one session alone, the agents, the display, and this version.
So who may share does so with the same authentication, the same judgement of the host's key, the
same display, in the same network; whoever asks for anything else gets a connection of his own.

Rules kept here:

* What the user says of sharing himself wins: a ControlPath, ``-S``, ``-M``, ``-o ControlMaster``.
* What would outlive the run that asked for it is never handed to a shared connection: forwards,
  tunnels, -N, -f; nor what happens once for each connection: LocalCommand, questions about other
  host keys; nor what is about the connection itself: -v, -W, ``~C``.
* Where the X server is not to trust the clients the user has to ask for it: how long they may come
  counts from the login on.
* A ProxyCommand may depend on anything, and its stderr is that of the run that started it: what it
  carries is not shared.
* A folder or socket that is not this user's alone is not used.
"""

from __future__ import annotations

import os
import stat

try:
    from _blake2 import blake2b
except ImportError:  # hashlib loads libcrypto for the same
    from hashlib import blake2b

from xsshpy import __version__
from xsshpy.console import LogLevel
from xsshpy.mux.control import AUTOMATIC_KEYWORD, SHARE_VARIABLE
from xsshpy.mux.sockets import PATH_SIZE
from xsshpy.tokens import home_directory
from xsshpy.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xsshpy.console import Console
    from xsshpy.settings import Invocation, Settings

_SUFFIX_ROOM = 18
_TARGET_BYTES = 6
_DIGEST_BYTES = 14

_SESSION_KEYWORDS = frozenset(
    {
        "clearallforwardings",
        "controlmaster",
        "controlpath",
        "controlpersist",
        "dynamicforward",
        "enableescapecommandline",
        "escapechar",
        "exitonforwardfailure",
        "forkafterauthentication",
        "gatewayports",
        "localforward",
        "loglevel",
        "remotecommand",
        "remoteforward",
        "requesttty",
        "sessiontype",
        "stdinnull",
    }
)
"""Settings about one session, a passenger's own count; and about what is never shared."""

_CONNECTION_KEYWORDS = ("dynamicforward", "localforward", "remoteforward")
_VARIABLES = (
    "DISPLAY",
    "DYLD_INSERT_LIBRARIES",
    "HOSTALIASES",
    "KRB5CCNAME",
    "LD_PRELOAD",
    "PROXYCHAINS_CONF_FILE",
    "SSH_AUTH_SOCK",
    "TORSOCKS_CONF_FILE",
    "XAUTHORITY",
    "XSSH_X11",
)
"""What changes the way there (torsocks, proxychains), the login, or where windows open."""

_NAMESPACES = ("net", "mnt", "pid", "user")
_SYSTEM_CONFIG = "/etc/ssh/ssh_config"
_PLACE = ("st_dev", "st_ino")
_CONTENT = (*_PLACE, "st_size", "st_mtime_ns")


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
    is_asked = invocation.share is not None or bool(environ.get(SHARE_VARIABLE))
    reason = why_not(invocation, settings)
    if not reason and not is_asked and _may_be_untrusted(invocation, settings, environ):
        reason = "there may be untrusted windows"
    if reason:
        console.debug(1, f"xssh: no shared connection: {reason}")
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


def without_sharing(settings: Settings) -> Settings:
    """Return the settings of a run that has a connection of its own."""
    keywords = {
        keyword: values
        for keyword, values in settings.keywords.items()
        if keyword not in ("controlmaster", "controlpath", "controlpersist", AUTOMATIC_KEYWORD)
    }
    return replace(settings, keywords=keywords)


def aim(invocation: Invocation, settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Return the settings of an -O about a connection that is shared without a ControlPath.

    That of a run with the same words, or else the newest one to the same account.
    """
    if _speaks_of_sharing(invocation, "MS"):
        return settings
    name = digest(invocation, settings, environ)
    found: list[tuple[bool, int, str]] = []
    for folder in _folders(environ):
        try:
            # In /tmp another user may have been there first, and put newer ones into it.
            is_ours = os.lstat(folder).st_uid == os.geteuid()
            others = os.listdir(folder) if is_ours else []
        except OSError:
            continue
        for other in others:
            if other[: 2 * _TARGET_BYTES] == name[: 2 * _TARGET_BYTES] and "." not in other:
                path = os.path.join(folder, other)
                found.append((other == name, _age(path), path))
    return _with_control(settings, max(found)[2], 0) if found else settings


def _age(path: str) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return 0


def why_not(invocation: Invocation, settings: Settings) -> str:
    """Say why the run is none whose connection others may have, or that may have another's.

    An empty text: it is.
    """
    keywords = settings.keywords
    if _speaks_of_sharing(invocation, "MSO") or "controlpath" in keywords:
        return "the user has spoken of one"
    if invocation.script is not None or invocation.stats:
        return "--script and --stats have one of their own"
    if settings.session_type == "none" or settings.fork_after_authentication:
        return "the connection is to stay by itself"
    if any(keywords.get(keyword) for keyword in _CONNECTION_KEYWORDS):
        return "something is forwarded"
    if keywords.get("tunnel", ("false",))[0] not in ("false", "no"):
        return "there is to be a tunnel"
    if settings.local_command:
        return "LocalCommand is run for each connection"
    if settings.proxy_command:
        return "it goes by a ProxyCommand"
    if settings.update_host_keys == "ask":
        return "UpdateHostKeys may have questions"
    if keywords.get("enableescapecommandline", ("no",))[0] in ("yes", "true"):
        return "~C opens forwards"
    if invocation.value_of("W") is not None:
        return "-W has one of its own"
    if invocation.share is None and LogLevel.parse(settings.log_level) >= LogLevel.VERBOSE:
        return "-v is about one of its own"
    return ""


def _may_be_untrusted(
    invocation: Invocation, settings: Settings, environ: Mapping[str, str]
) -> bool:
    """Tell whether there may be windows that the X server is not to trust."""
    way = (invocation.x11 or environ.get("XSSH_X11") or "auto").lower()
    if invocation.last_of("XYx") == "x" or way == "off":
        return False
    command = invocation.command or settings.remote_command
    if settings.forward_x11_trusted and not settings.forward_x11:
        return False
    from xsshpy.ssh.environment import is_protocol_command

    is_spoken_over = settings.session_type == "subsystem" or is_protocol_command(command)
    if is_spoken_over:
        # What is spoken there is carried as it is; with -X by the server's own channels alone.
        return settings.forward_x11
    return not settings.forward_x11_trusted


def _speaks_of_sharing(invocation: Invocation, letters: str) -> bool:
    if invocation.last_of(letters):
        return True
    options = [value or "" for letter, value in invocation.ssh_options if letter == "o"]
    return any(option.strip().lower().startswith("control") for option in options)


def digest(invocation: Invocation, settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the name that stands for everything that makes the connection what it is.

    Its beginning stands for the account alone.
    """
    target = repr([settings.hostname, settings.user, settings.port])
    facts = repr([*_facts(invocation, settings, environ)])
    return f"{_hash(target, _TARGET_BYTES)}-{_hash(facts, _DIGEST_BYTES)}"


def _hash(text: str, size: int) -> str:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=size).hexdigest()


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
    yield from _file_facts(invocation)
    yield [invocation.last_of("XYx"), invocation.x11, invocation.backend]
    yield [environ.get(name) for name in _VARIABLES]
    yield [os.getegid(), sorted(os.getgroups())]
    yield os.getpriority(os.PRIO_PROCESS, 0)  # who is in a hurry should not wait for nice(1)
    yield [_identity(f"/proc/self/ns/{name}") for name in _NAMESPACES]
    yield _display_identity(environ.get("DISPLAY", ""))
    home = environ.get("HOME") or home_directory()
    cookies = environ.get("XAUTHORITY") or os.path.join(home, ".Xauthority")
    yield _identity(cookies, _CONTENT)  # a display that another ssh made gets another cookie


def _file_facts(invocation: Invocation) -> Iterator[object]:
    """What is said of jump hosts, and against sharing, is not among what ``ssh -G`` prints."""
    own = os.path.join(home_directory(), ".ssh", "config")
    for path in (invocation.value_of("F") or own, _SYSTEM_CONFIG):
        yield [os.path.abspath(path), _identity(path, _CONTENT)]


def _display_identity(display: str) -> object:
    """Tell an X server from one that had the same number before it."""
    number = display.rpartition(":")[2].partition(".")[0]
    if not number.isdecimal():
        return None
    return _identity(f"/tmp/.X11-unix/X{number}", _CONTENT)  # noqa: S108


def _identity(path: str, names: tuple[str, ...] = _PLACE) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [getattr(found, name) for name in names]


def _folders(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield where sockets may lie: the runtime folder, or where its path is too long in /tmp.

    With sudo the runtime folder may be another user's, who should find nothing of root's in it.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    try:
        is_ours = os.path.isabs(runtime) and os.stat(runtime).st_uid == os.geteuid()
    except OSError:
        is_ours = False
    if is_ours:
        yield os.path.join(runtime, "xssh")
    yield f"/tmp/xssh-{os.getuid()}"  # noqa: S108  (a folder of ours alone, which is looked at)


def _prepare_folder(folder: str) -> str:
    """Make the folder; return why it must not be used, or nothing."""
    try:
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass
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
