"""``ssh -G``: what it is asked, how it is run, what its answer is.

It resolves the configuration with the user's own options; ``xsshpy.settings`` reads what it prints.
"""

from __future__ import annotations

import os

from xsshpy.errors import SettingsError
from xsshpy.openssh import find_openssh, openssh_environment
from xsshpy.settings import (
    HASH_KEYWORD,
    Invocation,
    Settings,
    alias_of,
    check_invocation,
    parse_keywords,
    parse_settings,
)
from xsshpy.tokens import home_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SSH_CONFIG_DEADLINE = 60.0
"""Seconds that ``ssh -G`` may take: ``Match exec`` runs the user's own commands."""

_LONG_COMMAND = 32 << 10
_NO_TERMINAL_NOTICE = "Pseudo-terminal will not be allocated because stdin is not a terminal."


def needs_hash(out: str) -> bool:
    """Say whether ssh has to expand %C: whether the jump host is in it depends on the release."""
    return "%C" in out and bool(parse_keywords(out).get("proxyjump"))


def hash_arguments(invocation: Invocation) -> list[str]:
    """Return the arguments with which ``ssh -G`` shows what %C is."""
    asked = invocation.with_options((("S", "%C"),), without="SOf")
    return ssh_g_arguments(asked)


def hash_line(out: str) -> str:
    """Return what it showed, as a line of ours to be read with the rest."""
    values = parse_keywords(out).get("controlpath", ())
    return f"\n{HASH_KEYWORD} {values[0]}\n" if values else ""


async def run_ssh_g(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run ``ssh -G …`` and return exit status, stdout and stderr.

    Raises FileNotFoundError without ssh, and TimeoutError after the deadline.
    """
    # It takes 50 ms to import: help and usage errors do without, and need this module's types.
    import asyncio
    import contextlib
    import signal

    path = find_openssh(os.environ)
    if path is None:
        raise FileNotFoundError("ssh")
    # Shielded: a start that is broken off half way collects the child's status, and asyncio, which
    # then misses it, says so aloud. Process.kill() may do the same.
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            path,
            "-G",
            *arguments,
            env=openssh_environment(path, os.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    )
    try:
        process = await asyncio.shield(starting)
        out, err = await asyncio.wait_for(process.communicate(), SSH_CONFIG_DEADLINE)
    except BaseException as error:
        process = await starting
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, asyncio.TimeoutError):  # not the built-in one before Python 3.11
            raise TimeoutError from None
        raise
    status = process.returncode if process.returncode is not None else -1
    return status, out.decode(errors="surrogateescape"), err.decode(errors="replace")


def ssh_g_arguments(invocation: Invocation) -> list[str]:
    """Return what ``ssh -G`` gets: the user's own options, the destination, the command.

    What it has to say is ours to log: -E and -y stay here.
    """
    words = invocation.with_options((), without="Ey").ssh_arguments()
    if invocation.command:
        # Only `Match command` looks at it.
        is_long = len(invocation.command) >= _LONG_COMMAND
        words.append("command" if is_long else invocation.command)
    elif invocation.script is not None and invocation.count("f"):
        words.append("command")  # ssh goes to the background with one only
    return words


def files_with_defaults(invocation: Invocation, match: str, *defaults: str) -> str:
    """Return a file for ``-F`` that reads the user's files, and then these lines.

    The first value obtained wins: who finds these values knows that the files have no others.
    """
    chosen = invocation.value_of("F")
    if chosen is None:
        files = [os.path.join(home_directory(), ".ssh", "config"), "/etc/ssh/ssh_config"]
    else:
        files = [] if chosen == "none" else [os.path.abspath(chosen)]
    lines = [f'Include "{path}"' for path in files if os.path.exists(path)]
    return "\n".join([*lines, match, *defaults, ""])


def count_passes(said: str) -> int:
    """Return how often ssh read its files, from what it said with -v.

    What counts in the last reading alone (Match final) may be said in it.
    """
    return 2 if "re-parsing configuration" in said else 1


async def read_settings(
    invocation: Invocation, environ: Mapping[str, str]
) -> tuple[Settings, tuple[str, ...]]:
    """Let OpenSSH resolve the configuration; return it and the lines that OpenSSH said besides.

    Raises SettingsError with OpenSSH's own message where it refuses, and FileNotFoundError where
    there is no ``ssh`` (the caller then has another reader).
    """
    check_invocation(invocation)
    try:
        status, out, err = await run_ssh_g(ssh_g_arguments(invocation))
    except TimeoutError:
        raise slow_configuration(invocation) from None
    said = require_success(status, err)
    if needs_hash(out):
        _, answer, _ = await run_ssh_g(hash_arguments(invocation))
        out += hash_line(answer)
    return parse_settings(out, alias_of(invocation.destination), environ), said


def slow_configuration(invocation: Invocation) -> SettingsError:
    """Return the error for an ``ssh -G`` that does not come to an end."""
    import shlex

    return SettingsError(
        f"xssh: `ssh -G` did not answer within {SSH_CONFIG_DEADLINE:.0f} seconds",
        remedy=f"run `ssh -G {shlex.quote(invocation.destination)}` by hand; "
        "a `Match exec` command may hang",
    )


def require_success(status: int, err: str) -> tuple[str, ...]:
    """Return what ``ssh -G`` said besides. Raises SettingsError, in its words, where it refuses."""
    said = tuple(line for line in err.splitlines() if line and line != _NO_TERMINAL_NOTICE)
    if status != 0:
        raise SettingsError("\n".join(said) or f"xssh: `ssh -G` ended with status {status}")
    return said
