"""The long options, for those who ask for help or make a mistake: the only module with click.

What is written as it should be never gets here (:mod:`arguments`). Nothing is imported that speaks
SSH: help and usage errors answer at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TypeVar

import click

from xsshpy import __version__
from xsshpy.arguments import (
    BACKEND_PATTERN,
    BACKEND_VARIABLE,
    SSH_FLAGS,
    SSH_VALUES,
    WAYS,
    LongOptions,
    Words,
    read_invocation,
    usage_error,
)
from xsshpy.errors import EXIT_FAILURE
from xsshpy.long_options import LONG_OPTIONS, SHELLS
from xsshpy.settings import Invocation

_Decorated = TypeVar("_Decorated", bound=Callable[..., object])


class UsageFailure(click.UsageError):
    """A usage error that ends with ssh's status instead of click's 2."""

    exit_code = EXIT_FAILURE


class SshCommand(click.Command):
    """A click command of long options, whose help names ssh's own too."""

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


def _option(
    name: str,
    target: str = "",
    *,
    type: click.Choice[str] | None = None,
    callback: Callable[[click.Context, click.Parameter, str | None], str | None] | None = None,
    envvar: str | None = None,
) -> Callable[[_Decorated], _Decorated]:
    """Return the decorator for the long option of a name, with what the table says of it."""
    metavar, text = LONG_OPTIONS[name]
    words = (f"--{name}", target) if target else (f"--{name}",)
    if not metavar:
        return click.option(*words, is_flag=True, help=text)
    return click.option(
        *words, metavar=metavar, help=text, type=type, callback=callback, envvar=envvar
    )


@click.command(
    cls=SshCommand,
    help="ssh with X11 that works: remote plots open on the screen in front of you.",
    epilog="Environment: XSSH_BACKEND (as --backend), XSSH_X11 (as --x11), XSSH_SHARE (as "
    "--share). Exit status: the remote command's, or 255 for a failure of xssh's own.",
    add_help_option=False,
)
@_option("script")
@_option("python")
@_option("backend", callback=_check_backend, envvar=BACKEND_VARIABLE)
@_option("x11", type=click.Choice(WAYS, case_sensitive=False))
@_option("share")
@_option("stats")
@_option("doctor")
@_option("setup")
@_option("yes")
@_option("dry-run")
@_option("undo")
@_option("json", "as_json")
@_option("completion", type=click.Choice(SHELLS))
@_option("man", "show_man")
@_option("version", "show_version")
@_option("help", "show_help")
@click.pass_context
def command_line(
    ctx: click.Context,
    script: str | None,
    python: str | None,
    backend: str | None,
    x11: str | None,
    share: str | None,
    stats: bool,
    doctor: bool,
    setup: bool,
    yes: bool,
    dry_run: bool,
    undo: bool,
    as_json: bool,
    completion: str | None,
    show_man: bool,
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
    if show_man or completion is not None:
        from xsshpy.answers import print_completion, show_manual

        if completion is not None:
            print_completion(completion)
        else:
            show_manual(os.environ)
        return None
    options = LongOptions(
        script, python, backend, x11, stats, doctor, as_json, share, setup, yes, dry_run, undo
    )
    return read_invocation(ctx.obj, options)


def ask_click(words: Words) -> Invocation | None:
    """Return what the user asked for, or None where the answer has been printed.

    Raises UsageError with the whole text to show.
    """
    try:
        invocation: Invocation | None = command_line.main(
            words.long_options, prog_name="xssh", standalone_mode=False, obj=words
        )
    except click.ClickException as error:
        raise usage_error(error.format_message()) from None
    return invocation
