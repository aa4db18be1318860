"""The command line taken apart: ssh's own options, and xssh's long ones, become an Invocation.

ssh's options are read as getopt(3) reads them for ssh(1): clustered (``-tt``, ``-vvv``), joined
(``-p2222``), before the host and after it, until the command begins; ``--`` ends them. xssh's own
options are long, so the two never meet. What is written as it should be is read here, at every
start; help, and everything that is wrong with a long option, is :mod:`cli`'s, with click.
"""

from __future__ import annotations

import os
import sys

from xsshpy import __version__
from xsshpy.errors import UsageError
from xsshpy.openssh import find_openssh, openssh_environment
from xsshpy.settings import Invocation
from xsshpy.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SSH_FLAGS = {
    "4": "use IPv4 addresses only",
    "6": "use IPv6 addresses only",
    "A": "forward the authentication agent",
    "a": "do not forward the authentication agent",
    "C": "compress the connection",
    "f": "go to the background once logged in",
    "G": "show the configuration for this host, as ssh reads it, and exit",
    "g": "let other hosts connect to forwarded local ports",
    "K": "log in with a Kerberos ticket and pass it on",
    "k": "Kerberos credentials stay here",
    "M": "let others share this connection; twice: and ask before they do",
    "N": "no remote command: only forwards",
    "n": "take stdin from /dev/null",
    "q": "quiet: only fatal errors",
    "s": "the command is the name of a subsystem",
    "T": "no pseudo-terminal",
    "V": "show versions and exit",
    "t": "a pseudo-terminal even for a command; -tt even without a local one",
    "v": "say what is going on; up to three times",
    "X": "X11 forwarding, untrusted where ForwardX11Trusted says so",
    "x": "no X11 forwarding",
    "Y": "trusted X11 forwarding",
    "y": "log to syslog instead of stderr",
}
SSH_VALUES = {
    "B": ("INTERFACE", "local interface to connect from"),
    "b": ("ADDRESS", "local address to connect from"),
    "c": ("CIPHERS", "ciphers, best first"),
    "D": ("[ADDRESS:]PORT", "a local SOCKS proxy through the server"),
    "E": ("FILE", "log to this file instead of stderr"),
    "e": ("CHAR", "escape character, ~ by default, or none"),
    "F": ("FILE", "another configuration file"),
    "I": ("LIBRARY", "a PKCS#11 library with keys"),
    "i": ("FILE", "private key to log in with"),
    "J": ("HOSTS", "jump hosts, separated by commas"),
    "L": ("[ADDRESS:]PORT:HOST:PORT", "forward a local port, or socket path, to there"),
    "l": ("USER", "user to log in as"),
    "m": ("MACS", "message authentication codes, best first"),
    "O": ("COMMAND", "to a shared connection: check, forward, cancel, exit, stop, proxy"),
    "o": ("KEYWORD=VALUE", "any option of ssh_config(5)"),
    "P": ("TAG", "a tag for Match tagged"),
    "p": ("PORT", "port of the server"),
    "Q": ("WHAT", "list what ssh supports, such as cipher"),
    "R": ("[ADDRESS:]PORT[:HOST:PORT]", "forward a port of the server to here"),
    "S": ("PATH", "socket of a connection to share, or none"),
    "W": ("HOST:PORT", "tie stdin and stdout to a port as seen from the server"),
    "w": ("LOCAL[:REMOTE]", "tie a tunnel device to one of the server, by number or any"),
}
BACKEND_PATTERN = r"[A-Za-z0-9_.:/+-]+"
BACKEND_VARIABLE = "XSSH_BACKEND"
WAYS = ("auto", "agent", "native", "off")

LONG_OPTIONS_WITH_VALUE = ("--script", "--python", "--backend", "--x11", "--share", "--completion")


def usage_error(text: str) -> UsageError:
    """Return the error for a command line that makes no sense."""
    return UsageError(f"xssh: {text}", remedy="`xssh --help` lists the options")


@dataclass
class Words:
    """A command line taken apart.

    ``options`` are ssh's own, in order; the last ``late`` of them stood after the destination.
    ``long_options`` are xssh's, as typed; ``rest`` is what remains: the command. An empty word can
    be the destination too: what follows it must not be taken for a host.
    """

    options: list[tuple[str, str | None]] = field(default_factory=list)
    late: int = 0
    long_options: list[str] = field(default_factory=list)
    destination: str | None = None
    rest: list[str] = field(default_factory=list)


def split_ssh_arguments(arguments: Sequence[str]) -> Words:
    """Separate ssh's options, xssh's long ones, the destination and the rest, as ssh would.

    A long option takes its value after ``=`` or as the next word. Raises UsageError.
    """
    found = Words()
    words = list(arguments)
    while words:
        word = words[0]
        if word == "--":
            del words[0]
            if found.destination is None and words:
                found.destination = words.pop(0)
            break  # what follows is the command, dashes and all
        if word.startswith("--"):
            found.long_options.append(words.pop(0))
            if "=" not in word and word in LONG_OPTIONS_WITH_VALUE:
                if not words:
                    raise usage_error(f"option {word} needs a value")
                found.long_options.append(words.pop(0))
        elif word.startswith("-") and len(word) > 1:
            del words[0]
            cluster = _split_cluster(word, words)
            found.options += cluster
            found.late += 0 if found.destination is None else len(cluster)
        elif found.destination is None:
            found.destination = words.pop(0)
        else:
            break
        if found.destination is not None and any(
            option.split("=")[0] == "--script" for option in found.long_options
        ):
            break  # what follows the host is the script's own, dashes and all
    found.rest = words
    return found


def _split_cluster(word: str, following: list[str]) -> list[tuple[str, str | None]]:
    """Split one ``-abc`` word; a value may be joined to it or be the next word."""
    found: list[tuple[str, str | None]] = []
    for position, letter in enumerate(word[1:], start=2):
        if letter in SSH_FLAGS:
            found.append((letter, None))
        elif letter in SSH_VALUES:
            value = word[position:]
            if not value:
                if not following:
                    raise usage_error(f"option requires an argument -- {letter}")
                value = following.pop(0)
            found.append((letter, value))
            break
        else:
            raise usage_error(f"unknown option -- {letter}")
    return found


@dataclass(frozen=True)
class LongOptions:
    """What xssh's own options say."""

    script: str | None = None
    python: str | None = None
    backend: str | None = None
    x11: str | None = None
    stats: bool = False
    doctor: bool = False
    as_json: bool = False
    share: str | None = None
    setup: bool = False
    yes: bool = False
    dry_run: bool = False
    undo: bool = False


def read_long_options(words: Sequence[str], environ: Mapping[str, str]) -> LongOptions | None:
    """Return what the long options say; None for all that click has to answer, or to refuse."""
    values: dict[str, str] = {}
    stats = False
    following = iter(words)
    for word in following:
        name, joined, value = word.partition("=")
        if name in LONG_OPTIONS_WITH_VALUE:
            values[name] = value if joined else next(following, "-")
            if not joined and values[name].startswith("-"):
                return None
        elif word == "--stats":
            stats = True
        else:
            return None
    if "--completion" in values:
        return None
    backend = values.get("--backend", environ.get(BACKEND_VARIABLE) or None)
    x11 = values["--x11"].lower() if "--x11" in values else None
    if backend is not None and not _is_backend(backend):
        return None
    if x11 is not None and x11 not in WAYS:
        return None
    return LongOptions(
        values.get("--script"),
        values.get("--python"),
        backend,
        x11,
        stats,
        share=values.get("--share"),
    )


def _is_backend(name: str) -> bool:
    import re  # it takes 7 ms

    return re.fullmatch(BACKEND_PATTERN, name) is not None


def read_invocation(words: Words, options: LongOptions) -> Invocation | None:
    """Return what is asked for; None where ssh's own answer to it has been printed.

    Raises UsageError.
    """
    if _answered_by_ssh(words):
        return None
    script = options.script
    if options.as_json and not options.doctor:
        raise usage_error("--json goes with --doctor")
    if (options.yes or options.dry_run or options.undo) and not options.setup:
        raise usage_error("--yes, --dry-run and --undo go with --setup")
    if options.setup and (options.doctor or script is not None):
        raise usage_error("--setup goes without --doctor and --script")
    if not words.destination and not options.doctor:
        raise usage_error("no host given")
    if options.python is not None and script is None:
        raise usage_error("--python goes with --script")
    if script == "":
        raise usage_error("--script needs the path of a Python file")
    return Invocation(
        destination=words.destination or "",
        command="" if script else " ".join(words.rest),
        ssh_options=tuple(words.options),
        late_options=words.late,
        script=script,
        script_arguments=tuple(words.rest) if script else (),
        python=options.python,
        backend=options.backend,
        x11=options.x11,
        stats=options.stats,
        doctor=options.doctor,
        as_json=options.as_json,
        share=options.share,
        setup=options.setup,
        yes=options.yes,
        dry_run=options.dry_run,
        undo=options.undo,
    )


def _answered_by_ssh(words: Words) -> bool:
    """Answer -V, and let the machine's own ssh answer -Q and -G. Says whether one was given."""
    given, destination = dict(words.options), words.destination
    if "V" in given:
        sys.stderr.write(f"xssh {__version__}, asyncssh {_version_of_asyncssh()}, ")
        sys.stderr.flush()
        _replace_by_ssh(["-V"], otherwise="no OpenSSH to read the configuration with")
        return True
    if "Q" in given:
        _replace_by_ssh(["-Q", given["Q"] or ""])
    if "G" in given and destination:
        typed = Invocation(destination, ssh_options=tuple(words.options), late_options=words.late)
        _replace_by_ssh([*typed.ssh_arguments(), *words.rest])
    return bool({"Q", "G"} & set(given)) and bool(destination or "Q" in given)


def _replace_by_ssh(arguments: list[str], otherwise: str = "") -> None:
    """Become ``ssh``. Where there is none, say ``otherwise`` or raise UsageError."""
    path = find_openssh(os.environ)
    if path is not None:
        os.execve(path, ["ssh", *arguments], openssh_environment(path, os.environ))
    if not otherwise:
        raise usage_error("this option is answered by `ssh`, which is not installed")
    sys.stderr.write(otherwise + "\n")


def _version_of_asyncssh() -> str:
    """Read it where asyncssh does, without the rest; or in the installer's records: 30 ms more."""
    from importlib.util import find_spec, module_from_spec, spec_from_file_location

    package = find_spec("asyncssh")
    for folder in (package.submodule_search_locations or ()) if package else ():
        spec = spec_from_file_location("asyncssh_version", os.path.join(folder, "version.py"))
        if spec is not None and spec.loader is not None and spec.has_location:
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            return str(module.__version__)
    from importlib.metadata import version

    return version("asyncssh")
