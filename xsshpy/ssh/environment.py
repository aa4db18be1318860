"""Which variables travel as ``env`` requests, and which inside the command line. Pure.

sshd drops an ``env`` request (RFC 4254 §6.4) whose name no AcceptEnv line allows, and by default
that is every name. A variable that must arrive is therefore set by the remote shell itself, in
words that bash, zsh, dash, fish (3.0 and later), csh and tcsh all read alike and carry out in
silence. The user's command follows on the same line untouched, in the same shell: what its start
files defined stays defined, and no second round of quoting touches it.

Clients that speak a protocol over a command's stdio (rsync, git, scp) name that command in the
server's logs, forced commands and restricted keys: theirs is never changed by a byte.
"""

from __future__ import annotations

from xsshpy.patterns import matches_any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BACKEND_VARIABLE = "MPLBACKEND"
DEFAULT_BACKEND = "TkAgg"
_PLAIN = r"[A-Za-z0-9_.:/+-]+"

_PROTOCOL_COMMANDS = r"""(?xs)(?:
          rsync\s+--server
        | git[ -](?:upload-pack|receive-pack|upload-archive|lfs-authenticate|lfs-transfer)
        | scp\s+(?:-\S+\s+)*-[a-zA-Z0-9]*[tf]
        | internal-sftp | sftp-server
        | borg(?:-[\w.]+)?\s+(?:.*\s)?serve
        | hg\s+(?:-R\s+\S+\s+)?serve\s+--stdio
        | svnserve\s+(?:\S+\s+)*-t
        | cvs\s+server
        | bzr\s+serve\s+--inet
        | bup\s+(?:\S+\s+)*server
        | unison\s+-server
        | rdiff-backup\s+(?:\S+\s+)*(?:--)?server
        | rclone\s+serve\s+.*--stdio
        | mosh-server
        | git-annex-shell
        | docker\s+(?:\S+\s+)*system\s+dial-stdio
        | nix-store\s+(?:\S+\s+)*--serve
        | nix-daemon\s+--stdio
        | virt-ssh-helper
    )(?=[\s'";&|]|$)"""
"""Commands that other programs start on the remote host to speak with over stdio. One that is
taken for such a command by mistake only does without MPLBACKEND."""

_PROGRAMS = (
    *("rsync", "git", "scp", "internal-sftp", "sftp-server", "borg", "hg", "svnserve", "cvs"),
    *("bzr", "bup", "unison", "rdiff-backup", "rclone", "mosh-server", "docker", "nix-store"),
    *("nix-daemon", "virt-ssh-helper"),
)
_BEGINNINGS = rf"""(?<![^\s;&|/'"])(?:{"|".join(_PROGRAMS)})"""
"""How each of them begins. Only there is the whole pattern tried, and only so far and so often:
from every place on, it would take hours for a command of a megabyte."""
_REACH = 4096
_MOST_PROGRAMS = 64


def is_protocol_command(command: str) -> bool:
    """Tell whether another program speaks its own protocol over this command's stdio.

    Takes time in proportion to the command's length. Among more than 64 programs that might, one
    is taken to.
    """
    if not any(program in command for program in _PROGRAMS):
        return False
    import re  # it takes 7 ms, of which a passenger that speaks for itself has no need

    for number, found in enumerate(re.finditer(_BEGINNINGS, command), 1):
        start = found.start()
        # Compiled when it is met: most commands hold no such word.
        pattern = re.compile(_PROTOCOL_COMMANDS)
        if number > _MOST_PROGRAMS or pattern.match(command, start, start + _REACH):
            return True
    return False


def choose_variables(
    send_env: Sequence[str], set_env: Sequence[tuple[str, str]], environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that SendEnv's patterns and SetEnv's pairs ask for.

    As in ssh, a SetEnv pair wins over a variable of the same name that SendEnv would copy, and
    among SetEnv pairs the first one.
    """
    chosen = {name: value for name, value in environ.items() if matches_any(name, send_env)}
    for name, value in reversed(set_env):
        chosen[name] = value
    return chosen


def decide_backend(chosen: Mapping[str, str], option: str | None) -> str | None:
    """Return the value of MPLBACKEND on the remote host, or None to leave it alone.

    What the user sends with SendEnv or SetEnv wins; then ``option`` (--backend or XSSH_BACKEND),
    where ``none`` leaves the variable alone; else TkAgg. A value that could mean something to a
    shell is only ever sent as an ``env`` request.
    """
    if BACKEND_VARIABLE in chosen:
        value = chosen[BACKEND_VARIABLE]
        return value if is_plain(value) else None
    if option is not None and option.lower() == "none":
        return None
    return option or DEFAULT_BACKEND


def is_plain(value: str) -> bool:
    """Tell whether a value means nothing but itself to any shell."""
    import re

    return bool(re.fullmatch(_PLAIN, value))


def require_plain(name: str, value: str) -> None:
    """Raise ValueError where a value may not stand in a command line."""
    if not is_plain(value):
        raise ValueError(f"{name}: a value for the command line must be plain")


def set_in_shell(name: str, value: str) -> str:
    """Return shell words that set and export a variable in every common login shell.

    csh and tcsh always have ``$shell``, the others never do unless it is exported; ``setenv`` is
    theirs alone, ``export`` everybody else's. Only harmless characters may be in the value.
    """
    require_plain(name, value)
    return f'test -n "$shell" && setenv {name} {value} || export {name}={value}'


def wrap_command(command: str, variables: Mapping[str, str]) -> str:
    """Return the command with variables set before it, in the same shell."""
    words = [set_in_shell(name, value) for name, value in variables.items()]
    return "; ".join([*words, command])


_LOGIN_SHELL = (
    # The last login: sshd has already entered this one, so `last` shows it first.
    'l() { LC_ALL=C last -F -w -n 3 "$LOGNAME" 2>/dev/null | '
    "while read -r u t h w m d c y rest; do "
    'case "$u $t" in "$LOGNAME ${SSH_TTY#/dev/}") continue;; "$LOGNAME pts/"*) '
    'echo "Last login: $w $m $d $c $y from $h"; break;; esac; done; }; '
    "m() { cat /run/motd.dynamic; "
    "for f in /etc/motd /run/motd /usr/lib/motd; do test -r $f && cat $f && break; done; "
    "cat /etc/motd.d/* /run/motd.d/* /usr/lib/motd.d/*; }; "
    'if test -e ~/.hushlogin || test -z "$SSH_TTY"; then :; else '
    "if grep -q pam_motd /etc/pam.d/sshd 2>/dev/null; then m 2>/dev/null; l; "
    "else l; m 2>/dev/null; fi; fi; "
    'exec "$SHELL" -l'
)


def login_shell_command(variables: Mapping[str, str]) -> str:
    """Return the command that becomes a login shell with variables set.

    sshd shows the message of the day and the last login for a ``shell`` request and not for
    ``exec``, so this shows them as sshd would (pam_motd's order where PAM shows them), unless
    ~/.hushlogin is there or there is no pty, and then becomes the user's own shell as a login
    shell. Between the single quotes stand only characters that every shell takes literally.
    """
    words = []
    for name, value in variables.items():
        require_plain(name, value)
        words.append(f"{name}={value}")
    return f"env {' '.join(words)} sh -c '{_LOGIN_SHELL}'"
