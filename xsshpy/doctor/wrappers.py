"""What stands between the session and the program: sudo, srun, docker and the like. Pure.

Such a program may run elsewhere, as somebody else, or without the session's variables. What it sees
is asked for, behind the same words; this says what that means.
"""

from __future__ import annotations

import re

from xsshpy.doctor.findings import Opinion, broken, well
from xsshpy.doctor.probes import Answers

_REMEDIES = {
    "srun": "srun --x11, and log in with --x11 native if Slurm wants sshd's own display",
    "salloc": "salloc --x11",
    "sudo": 'sudo DISPLAY="$DISPLAY" XAUTHORITY="${XAUTHORITY:-$HOME/.Xauthority}" before it',
    "doas": 'doas env DISPLAY="$DISPLAY" XAUTHORITY="${XAUTHORITY:-$HOME/.Xauthority}" before it',
    "su": "su without -, and XAUTHORITY set to the session's file",
    "docker": "--network host -e DISPLAY -e XAUTHORITY -v $XAUTHORITY:$XAUTHORITY for docker run",
    "podman": "--network host -e DISPLAY -e XAUTHORITY -v $XAUTHORITY:$XAUTHORITY for podman run",
    "apptainer": "apptainer without --cleanenv and --containall",
    "singularity": "singularity without --cleanenv and --containall",
    "ssh": "xssh -J this host to that one",
}
_HARMLESS = ("env", "nice", "time", "timeout", "stdbuf", "nohup", "exec", "taskset", "uv", "conda")


def find_wrapper(interpreter: str) -> tuple[str, str]:
    """Return the words before the Python of ``interpreter``, and the name of what they call.

    Both are empty where nothing stands there that could change what the Python sees.
    """
    words = interpreter.split()[:-1]
    for word in words:
        name = word.rpartition("/")[2]
        if name in _REMEDIES:
            return " ".join(words), name
    unknown = [word for word in words if not re.match(r"-|\w+=", word)]
    if not unknown or unknown[0].rpartition("/")[2] in _HARMLESS:
        return "", ""
    return " ".join(words), unknown[0].rpartition("/")[2]


def judge_wrapper(name: str, session: Answers, inside: Answers) -> Opinion:
    """Compare what the session sees of its display with what the wrapped program does."""
    display = session.first_of("display")
    found, node = inside.first_of("display"), inside.first_of("node")
    remedy = _REMEDIES.get(name, "see what it does with DISPLAY and XAUTHORITY")
    if not inside.has_ended:
        return broken(f"{name} runs nothing like a shell command here", remedy=f"without {name}")
    elsewhere = node != session.first_of("node")
    where = f"{name} runs programs on {node}" if elsewhere else f"{name} runs programs here"
    if not found:
        return broken(f"{where}, without DISPLAY", remedy=remedy)
    if elsewhere and found == display:
        return broken(f"{where}, where {found} is not this session's display", remedy=remedy)
    nets = {inside.first_of("net"), session.first_of("net")} - {""}
    if len(nets) > 1 and display.rpartition(":")[0]:
        return broken(
            f"{name} runs programs in a network of its own, where {found} is not the session's",
            remedy=remedy if "network" in remedy else f"let {name} keep the host's network",
        )
    if not inside.first_of("cookie"):
        user = inside.first_of("user")
        other = f" as user {user}" if user != session.first_of("user") else ""
        return broken(
            f"{where}{other}, without the display's cookie: {inside.first_of('authority')}",
            remedy=remedy,
        )
    return well(f"{where}, with DISPLAY {found}")


def explain_no_window(reason: str, display: str, words: list[str]) -> Opinion:
    """Say why a program with that display opened no window; ``reason`` and ``words`` are its."""
    host = display.rpartition(":")[0]
    if "gaierror" in reason and host == "localhost":
        return broken(
            f"localhost has no address there, so {display} can't be reached: {reason}",
            remedy="add the line `127.0.0.1 localhost` to /etc/hosts on the server",
        )
    if "gaierror" in reason and host:
        return broken(
            f"the server has no address for its own name {host}, so {display} can't be reached",
            remedy="X11UseLocalhost yes in sshd_config on the server, or its name in /etc/hosts",
        )
    return broken(f"no window came: {reason}", *words, remedy="xssh -v says what X11 did")
