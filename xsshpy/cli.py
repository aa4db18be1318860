"""The command line: ssh's own options, and xssh's long ones, become an Invocation.

ssh's options are read as getopt(3) reads them for ssh(1): clustered (``-tt``, ``-vvv``), joined
(``-p2222``), before the host and after it, until the command begins; ``--`` ends them. xssh's own
options are long, so the two never meet. This module is the only one that imports click, and
imports nothing that speaks SSH: help, version and usage errors answer at once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import click

from xsshpy import __version__
from xsshpy.errors import EXIT_FAILURE, UsageError, XsshError
from xsshpy.openssh import find_openssh, openssh_environment
from xsshpy.settings import Invocation
from xsshpy.values import dataclass, field

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
    "O": ("COMMAND", "to a shared connection: check, forward, cancel, exit, stop"),
    "o": ("KEYWORD=VALUE", "any option of ssh_config(5)"),
    "P": ("TAG", "a tag for Match tagged"),
    "p": ("PORT", "port of the server"),
    "Q": ("WHAT", "list what ssh supports, such as cipher"),
    "R": ("[ADDRESS:]PORT[:HOST:PORT]", "forward a port of the server to here"),
    "S": ("PATH", "socket of a connection to share, or none"),
    "W": ("HOST:PORT", "tie stdin and stdout to a port as seen from the server"),
    "w": ("LOCAL[:REMOTE]", "tie a tunnel device to one of the server, by number or any"),
}
UNSUPPORTED = "M"
"""ssh's other letters: refused by name, because an option ignored in silence is a trap."""

BACKEND_PATTERN = r"[A-Za-z0-9_.:/+-]+"


class UsageFailure(click.UsageError):
    """A usage error that ends with ssh's status instead of click's 2."""

    exit_code = EXIT_FAILURE


@dataclass
class Words:
    """A command line taken apart.

    ``options`` are ssh's own, in order; the last ``late`` of them stood after the destination.
    ``long_options`` are xssh's, as typed; ``rest`` is what remains: the command.
    """

    options: list[tuple[str, str | None]] = field(default_factory=list)
    late: int = 0
    long_options: list[str] = field(default_factory=list)
    destination: str = ""
    rest: list[str] = field(default_factory=list)


def split_ssh_arguments(arguments: Sequence[str]) -> Words:
    """Separate ssh's options, xssh's long ones, the destination and the rest, as ssh would.

    A long option takes its value after ``=`` or as the next word. Raises UsageFailure.
    """
    found = Words()
    words = list(arguments)
    while words:
        word = words[0]
        if word == "--":
            del words[0]
            if not found.destination and words:
                found.destination = words.pop(0)
            break  # what follows is the command, dashes and all
        if word.startswith("--"):
            found.long_options.append(words.pop(0))
            if "=" not in word and word in _LONG_OPTIONS_WITH_VALUE:
                if not words:
                    raise UsageFailure(f"option {word} needs a value")
                found.long_options.append(words.pop(0))
        elif word.startswith("-") and len(word) > 1:
            del words[0]
            cluster = _split_cluster(word, words)
            found.options += cluster
            found.late += len(cluster) if found.destination else 0
        elif not found.destination:
            found.destination = words.pop(0)
        else:
            break
        if found.destination and any(
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
                    raise UsageFailure(f"option requires an argument -- {letter}")
                value = following.pop(0)
            found.append((letter, value))
            break
        elif letter in UNSUPPORTED:
            raise UsageFailure(f"ssh's option -{letter} is not supported yet")
        else:
            raise UsageFailure(f"unknown option -- {letter}")
    return found


class SshCommand(click.Command):
    """A click command whose short options are read as ssh reads them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take ssh's part away and leave the long options to click."""
        try:
            ctx.obj = split_ssh_arguments(args)
            return super().parse_args(ctx, ctx.obj.long_options)
        except click.UsageError as error:
            raise UsageFailure(error.format_message(), ctx) from None

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the usage lines."""
        formatter.write_usage("xssh", "[options] [user@]host [command …]")
        formatter.write_usage("xssh", "[options] --script FILE [user@]host [argument …]", " " * 7)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write xssh's own options, then ssh's."""
        own = [p.get_help_record(ctx) for p in self.get_params(ctx)]
        with formatter.section("xssh's own options"):
            formatter.write_dl([record for record in own if record])
        flags = [(f"-{letter}", text) for letter, text in SSH_FLAGS.items()]
        values = [(f"-{letter} {name}", text) for letter, (name, text) in SSH_VALUES.items()]
        with formatter.section("ssh's options, as in ssh(1)"):
            formatter.write_dl(sorted(flags + values, key=lambda row: row[0].lower()))


def _check_backend(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    """A backend's name travels in a command line: only harmless characters may be in it."""
    if value is not None and not re.fullmatch(BACKEND_PATTERN, value):
        raise UsageFailure(f"--backend: {value!r} is not the name of a matplotlib backend")
    return value


@click.command(
    cls=SshCommand,
    help="ssh with X11 that works: remote plots open on the screen in front of you.",
    epilog="Environment: XSSH_BACKEND (as --backend), XSSH_X11 (as --x11). "
    "Exit status: the remote command's, or 255 for a failure of xssh's own.",
    add_help_option=False,
)
@click.option(
    "--script", metavar="FILE", help="run a local Python file on the remote host; it stays here"
)
@click.option(
    "--python", metavar="CMD", help="interpreter for --script (default: python3, then python)"
)
@click.option(
    "--backend",
    metavar="NAME",
    callback=_check_backend,
    envvar="XSSH_BACKEND",
    help="matplotlib backend where a display is granted (default: TkAgg); none: leave it alone",
)
@click.option(
    "--x11",
    metavar="WAY",
    type=click.Choice(["auto", "agent", "native", "off"], case_sensitive=False),
    help="how X11 is carried: auto (default), agent (quick over a distance; needs python3 there), "
    "native (the server's own), off",
)
@click.option("--stats", is_flag=True, help="say at the end what each X client did")
@click.option(
    "--doctor", is_flag=True, help="find out what is wrong: here, or with a host the whole way"
)
@click.option("--json", "as_json", is_flag=True, help="what --doctor finds, as JSON")
@click.option("--version", "show_version", is_flag=True, help="show the version and exit")
@click.option("--help", "show_help", is_flag=True, help="show this text and exit")
@click.pass_context
def command_line(
    ctx: click.Context,
    script: str | None,
    python: str | None,
    backend: str | None,
    x11: str | None,
    stats: bool,
    doctor: bool,
    as_json: bool,
    show_version: bool,
    show_help: bool,
) -> Invocation | None:
    """Turn the parsed options into an Invocation, or answer at once."""
    if show_version:
        click.echo(f"xssh {__version__}")
        return None
    if show_help:
        click.echo(ctx.get_help())
        return None
    words: Words = ctx.obj
    if _answered_by_ssh(words):
        return None
    if as_json and not doctor:
        raise UsageFailure("--json goes with --doctor", ctx)
    if not words.destination and not doctor:
        raise UsageFailure("no host given", ctx)
    if python is not None and script is None:
        raise UsageFailure("--python goes with --script", ctx)
    if script == "":
        raise UsageFailure("--script needs the path of a Python file", ctx)
    return Invocation(
        destination=words.destination,
        command="" if script else " ".join(words.rest),
        ssh_options=tuple(words.options),
        late_options=words.late,
        script=script,
        script_arguments=tuple(words.rest) if script else (),
        python=python,
        backend=backend,
        x11=x11,
        stats=stats,
        doctor=doctor,
        as_json=as_json,
    )


def _answered_by_ssh(words: Words) -> bool:
    """Answer -V, and let the machine's own ssh answer -Q and -G. Says whether one was given."""
    given, destination = dict(words.options), words.destination
    if "V" in given:
        from importlib.metadata import version

        click.echo(f"xssh {__version__}, asyncssh {version('asyncssh')}, ", nl=False, err=True)
        _replace_by_ssh(["-V"], otherwise="no OpenSSH to read the configuration with")
        return True
    if "Q" in given:
        _replace_by_ssh(["-Q", given["Q"] or ""])
    if "G" in given and destination:
        typed = Invocation(destination, ssh_options=tuple(words.options), late_options=words.late)
        _replace_by_ssh([*typed.ssh_arguments(), *words.rest])
    return bool({"Q", "G"} & set(given)) and bool(destination or "Q" in given)


def _replace_by_ssh(arguments: list[str], otherwise: str = "") -> None:
    """Become ``ssh``. Where there is none, say ``otherwise`` or raise UsageFailure."""
    path = find_openssh(os.environ)
    if path is not None:
        os.execve(path, ["ssh", *arguments], openssh_environment(path, os.environ))
    if not otherwise:
        raise UsageFailure("this option is answered by `ssh`, which is not installed")
    click.echo(otherwise, err=True)


_LONG_OPTIONS_WITH_VALUE = {
    name
    for parameter in command_line.params
    if isinstance(parameter, click.Option) and not parameter.is_flag
    for name in parameter.opts
}


def parse_command_line(arguments: Sequence[str]) -> Invocation | None:
    """Return what the user asked for, or None where the answer has been printed.

    Raises UsageError with the whole text to show.
    """
    try:
        invocation: Invocation | None = command_line.main(
            list(arguments), prog_name="xssh", standalone_mode=False
        )
    except click.ClickException as error:
        raise UsageError(
            f"xssh: {error.format_message()}", remedy="`xssh --help` lists the options"
        ) from None
    return invocation


def main() -> int:
    """Run xssh with the process's own arguments and return the exit status."""
    try:
        invocation = parse_command_line(sys.argv[1:])
        if invocation is None:
            return 0
        if invocation.doctor:
            from xsshpy.doctor.visit import visit

            return visit(invocation, os.environ)
        from xsshpy.start import start  # nothing slow is loaded before it is needed

        return start(invocation, os.environ)
    except XsshError as error:
        sys.stderr.write(error.render() + "\n")
        return error.status
    except Exception as error:
        # What is raised within the run is told there; this is the event loop's own failure.
        sys.stderr.write(f"xssh: internal error: {type(error).__name__}: {error}\n")
    return EXIT_FAILURE
