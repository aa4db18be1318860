"""What is said about host keys, in OpenSSH's own words (sshconnect.c), and how loudly.

Every text is one log message: it may have several lines, and the last has no newline. Programs
match on these words, so they are not to be improved.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from xsshpy.console import LogLevel
from xsshpy.ssh.keyblob import HostCertificate, HostKey
from xsshpy.ssh.known_hosts import Entry
from xsshpy.values import dataclass

VERIFICATION_FAILED: Final = "Host key verification failed."
ASK_AGAIN: Final = "Please type 'yes', 'no' or the fingerprint: "
ASK_AGAIN_PLAIN: Final = "Please type 'yes' or 'no': "
QUESTION: Final = "Are you sure you want to continue connecting (yes/no/[fingerprint])? "
QUESTION_PLAIN: Final = "Are you sure you want to continue connecting (yes/no)? "
NO_OTHER_NAMES: Final = "This key is not known by any other names."

_NEVER: Final = (1 << 64) - 1
_MAX_OTHER_NAMES: Final = 8
_RULE: Final = "@" * 59


@dataclass(frozen=True)
class Line:
    """One message, as ``Console.log`` takes it: not yet sanitised, no ``debug1: ``, no newline."""

    level: LogLevel
    text: str


def error_line(text: str) -> Line:
    """Make a line for what LogLevel=ERROR still shows."""
    return Line(LogLevel.ERROR, text)


def info_line(text: str) -> Line:
    """Make a line that is shown by default."""
    return Line(LogLevel.INFO, text)


def debug_line(text: str, level: LogLevel = LogLevel.DEBUG1) -> Line:
    """Make a line that -v shows, or -vv or -vvv."""
    return Line(level, text)


def presented_key_lines(key: HostKey | HostCertificate, hash_name: str) -> tuple[Line, ...]:
    """Say at -v what the server showed; a certificate with what it claims."""
    name = f"{key.algorithm} {key.plain.fingerprint(hash_name)}"
    if isinstance(key, HostKey):
        return (debug_line(f"Server host key: {name}"),)
    return (
        debug_line(
            f"Server host certificate: {name}, serial {key.serial} "
            f'ID "{key.key_id}" CA {key.ca.algorithm} {key.ca.fingerprint(hash_name)} '
            f"valid {_describe_validity(key.valid_after, key.valid_before)}"
        ),
        *(
            debug_line(f"Server host certificate hostname: {principal}", LogLevel.DEBUG2)
            for principal in key.principals
        ),
    )


def _describe_validity(after: int, before: int) -> str:
    if after == 0 and before == _NEVER:
        return "forever"
    if after == 0:
        return f"before {_local_time(before)}"
    if before == _NEVER:
        return f"after {_local_time(after)}"
    return f"from {_local_time(after)} to {_local_time(before)}"


def _local_time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def describe_question(
    host: str,
    address: str,
    key: HostKey,
    fingerprint: str,
    others: Sequence[Entry],
    home: str,
    picture: str = "",
) -> str:
    """Return the question about a new key, up to and with its last space.

    The words are those of OpenSSH up to 10.0; 10.1 has ``is: SHA256:…`` and no full stop.
    ``others`` are the lines where the key stands under other names; a path below ``home`` is
    shortened to ``~/``. ``picture`` is the fingerprint drawn, where VisualHostKey asks for it.
    """
    return "\n".join(
        [
            f"The authenticity of host '{host} ({address})' can't be established.",
            f"{key.display_name} key fingerprint is {fingerprint}.",
            *([picture] if picture else []),
            *_other_names(others, home),
            QUESTION,
        ]
    )


def _other_names(others: Sequence[Entry], home: str) -> list[str]:
    if not others:
        return [NO_OTHER_NAMES]
    lines = ["This host key is known by the following other names/addresses:"]
    for entry in others[:_MAX_OTHER_NAMES]:
        lines.append(f"    {shorten_home(entry.path, home)}:{entry.line}: {entry.hosts}")
    if len(others) > _MAX_OTHER_NAMES:
        lines.append(f"    ({len(others) - _MAX_OTHER_NAMES} additional names omitted)")
    return lines


def shorten_home(path: str, home: str) -> str:
    """Return a path below ``home`` with ``~`` for it; any other as it is."""
    base = home if home.endswith("/") else home + "/"
    return "~/" + path[len(base) :] if home and path.startswith(base) else path


def changed_key_lines(
    key: HostKey, fingerprint: str, host: str, found: Entry, recorded_in: str
) -> tuple[Line, ...]:
    """Say that the key is not the one in ``found``; ``recorded_in`` is the file to mend."""
    return (
        *_banner("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @"),
        error_line("IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!"),
        error_line("Someone could be eavesdropping on you right now (man-in-the-middle attack)!"),
        error_line("It is also possible that a host key has just been changed."),
        error_line(
            f"The fingerprint for the {key.display_name} key sent by the remote host is\n"
            f"{fingerprint}."
        ),
        error_line("Please contact your system administrator."),
        error_line(f"Add correct host key in {recorded_in} to get rid of this message."),
        error_line(f"Offending {found.key.display_name} key in {found.path}:{found.line}"),
        *_removal_lines(found.path, host),
    )


def spoofing_lines(
    key: HostKey, host: str, address: str, what: str, offending: Entry | None
) -> tuple[Line, ...]:
    """Say that the host's and its address's records disagree; ``what`` became of the latter."""
    lines = [
        *_banner("@       WARNING: POSSIBLE DNS SPOOFING DETECTED!          @"),
        error_line(f"The {key.display_name} host key for {host} has changed,"),
        error_line(f"and the key for the corresponding IP address {address}"),
        error_line(f"{what}. This could either mean that"),
        error_line("DNS SPOOFING is happening or the IP address for the host"),
        error_line("and its host key have changed at the same time."),
    ]
    if offending is not None:
        lines.append(error_line(f"Offending key for IP in {offending.path}:{offending.line}"))
        lines.extend(_removal_lines(offending.path, address))
    return tuple(lines)


def revoked_key_lines(key: HostKey | HostCertificate, host: str) -> tuple[Line, ...]:
    """Say that the key, or the CA of the certificate, is marked as revoked."""
    return (
        *_banner("@       WARNING: REVOKED HOST KEY DETECTED!               @"),
        error_line(f"The {key.display_name} host key for {host} is marked as revoked."),
        error_line("This could mean that a stolen key is being used to"),
        error_line("impersonate this host."),
    )


def address_warning(
    key: HostKey, host: str, address: str, offending: Entry, matching: Entry | None
) -> str:
    """Say that the host's key is not the one on record for its address."""
    text = (
        f"Warning: the {key.display_name} host key for '{host}' differs from the key for the IP "
        f"address '{address}'\nOffending key for IP in {offending.path}:{offending.line}"
    )
    if matching is not None:
        text += f"\nMatching host key in {matching.path}:{matching.line}"
    return text


def _banner(text: str) -> tuple[Line, ...]:
    return (error_line(_RULE), error_line(text), error_line(_RULE))


def _removal_lines(path: str, host: str) -> tuple[Line, ...]:
    command = f"ssh-keygen -f {_quote(path)} -R {_quote(host)}"
    return (error_line("  remove with:"), error_line(f"  {command}"))


def _quote(word: str) -> str:
    # As Debian's ssh, which patched this line in, since 9.8: it is there to be pasted.
    return "'" + word.replace("'", "'\"'\"'") + "'"
