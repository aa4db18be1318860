"""The commands that look around on the other host, and their answers.

Pure but for reading this package's own files. A command reads the same in sh, bash, zsh, fish, csh
and tcsh: words in single quotes without a quote, a backslash or an exclamation mark inside. Each
answer is a line of its own that begins with a nonce, so what start files print is passed over, and
counted.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from importlib import resources

from xsshpy.values import dataclass

_PREFIX = "xssh-doctor"
_MOST_ANSWERS = 500

_SURROUNDINGS = """
s() { echo "xssh-doctor $n $*"; }
n=$0
echo
s files $(ulimit -n)
s shell $SHELL
s system $(uname -s)
s home $HOME
s host $(uname -n)
test -d "$HOME" || s nohome $HOME
for f in /etc/os-release /usr/lib/os-release; do
  if test -r $f; then grep -E "^ID(_LIKE)?=" $f | while read -r l; do s release $l; done; break; fi
done
for p in xauth /usr/X11R6/bin/xauth /usr/bin/X11/xauth /opt/X11/bin/xauth; do
  if command -v $p >/dev/null 2>&1; then s xauth $(command -v $p); break; fi
done
for p in python3 python; do
  if command -v $p >/dev/null 2>&1; then s python $p; break; fi
done
for f in $HOME/.ssh/rc /etc/ssh/sshrc; do test -f $f && s rc $f; done
for f in $HOME/.Xauthority-c $HOME/.Xauthority-l; do test -e $f && s lock $f; done
if test -e $HOME/.Xauthority && test ! -w $HOME/.Xauthority; then s readonly $HOME/.Xauthority; fi
t=$HOME/.xssh-doctor-$n
LC_ALL=C
export LC_ALL
if e=$( (umask 077; : > $t) 2>&1 ); then
  if e=$( (head -c 8192 /dev/zero > $t) 2>&1 ); then s writable yes
  else s writable full; s write $e; fi
else s writable no; s write $e; fi
rm -f $t 2>/dev/null
for f in /.dockerenv /run/.containerenv; do test -e $f && s container $f; done
command -v srun >/dev/null 2>&1 && s slurm $(command -v srun)
test -n "$DISPLAY" && s display $DISPLAY
test "$(cat /proc/sys/net/ipv6/conf/lo/disable_ipv6 2>/dev/null)" = 1 && s noipv6 yes
a=".bashrc .bash_profile .profile .bash_login .zshenv .zprofile .zshrc .zlogin .cshrc .tcshrc"
b=".login .config/fish/config.fish .ssh/environment /etc/environment"
e="(MPLBACKEND|QT_QPA_PLATFORM|[^A-Z_]DISPLAY)"
cd 2>/dev/null && for f in $a $b; do
  test -r $f && grep -nE "$e" /dev/null $f
done | head -n 20 | while read -r l; do set -f; s start $l; done
if command -v tmux >/dev/null 2>&1; then
  d=$(tmux show-environment -g DISPLAY 2>/dev/null) && s tmux $d
fi
ps -u $(id -u) -o pid=,args= 2>/dev/null | grep -E "^ *[0-9]+ SCREEN|code-serve[r]" |
while read -r p c; do
  case $c in SCREEN*) w=screen;; *) w=VSCode;; esac
  d=$(tr "[:cntrl:]" "@" < /proc/$p/environ | grep -oE "(^|@)DISPLAY=localhost:[0-9.]*")
  test -n "$d" && s stale $w ${d#*=}
done 2>/dev/null
for f in /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf; do
  test -r $f && grep -iE "^ *(X11Forwarding|DisableForwarding|AddressFamily|MaxSessions) " $f |
  while read -r l; do s sshd $f: $l; done
done
s end
""".strip()

_DISPLAY = """
s() { echo "xssh-doctor $n $*"; }
n=$0
echo
s display $DISPLAY
s node ${SLURMD_NODENAME:-$(uname -n)}
s user $(id -u)
f=${XAUTHORITY:-$HOME/.Xauthority}
s authority $f
s net $(readlink /proc/self/ns/net 2>/dev/null)
h=${DISPLAY%:*}
case $h in
""|localhost|unix|*/*) ;; *)
command -v getent >/dev/null && { getent hosts "$h" || s noaddress $h; };; esac
if c=$(xauth -i -f "$f" list "${DISPLAY#localhost}" 2>/dev/null </dev/null); then
  test -n "$c" && s cookie yes
else
  if command -v xauth >/dev/null 2>&1; then
    s xauth $(xauth -i -f "$f" list "${DISPLAY#localhost}" 2>&1 </dev/null | head -n 1)
  elif test -s "$f"; then s cookie yes; fi
fi
case ${SHELL##*/} in
bash|zsh|dash|ash|sh|ksh|fish)
"$SHELL" -l -c env </dev/null 2>/dev/null | grep -E "^(DISPLAY|HOME)=" |
while read -r l; do s login $l; done;;
esac
s end
""".strip()


@dataclass(frozen=True)
class Answers:
    """What a command answered, in order, and the lines that others printed before it."""

    lines: tuple[str, ...]
    noise: tuple[str, ...]

    def all_of(self, name: str) -> tuple[str, ...]:
        """Return every value of one name."""
        values = (line.partition(" ") for line in self.lines)
        return tuple(value.strip() for found, _, value in values if found == name)

    def first_of(self, name: str) -> str:
        """Return the first value of one name, or an empty string."""
        return next(iter(self.all_of(name)), "")

    @property
    def has_ended(self) -> bool:
        """Whether the command came to its end."""
        return "end" in self.lines


def surroundings_command(nonce: str) -> str:
    """Return the command that tells what is there; ``nonce`` is of letters and digits."""
    return f"sh -c '{_one_line(_SURROUNDINGS)}' {nonce}"


def display_command(nonce: str) -> str:
    """Return the command that tells which display programs see, and those of a login shell.

    And where: ``node``, ``user`` (a number), ``authority`` (their Xauthority file), ``net`` (their
    network's namespace), ``cookie`` where that file has one for the display, and ``noaddress``
    where its host is a name without one.
    """
    return f"sh -c '{_one_line(_DISPLAY)}' {nonce}"


def _one_line(script: str) -> str:
    """Return a script on one line: csh takes no line end between quotes."""
    joined = re.compile(r"(\bdo|\bthen|\belse|\bin|;;|\||\bfish\)|\*\))?\n\s*")
    return joined.sub(lambda found: f"{found[1]} " if found[1] else "; ", script)


def python_command(interpreter: str, module: str, nonce: str, *arguments: str) -> str:
    """Return the command that runs a module of ``xsshpy.remote`` by an interpreter.

    ``interpreter`` and ``arguments`` are words for the remote shell, as the user typed them.
    """
    source = resources.files("xsshpy.remote").joinpath(f"{module}.py").read_bytes()
    packed = base64.b64encode(zlib.compress(source, 9)).decode("ascii")
    # The script's own directory is not on this path; a name there must not stand in for a module.
    boot = (
        "import sys;sys.path[:]=[p for p in sys.path if p];"
        f'import base64,zlib;exec(zlib.decompress(base64.b64decode("{packed}")))'
    )
    return " ".join([interpreter, "-c", f"'{boot}'", nonce, *arguments])


def read_answers(
    out: bytes, nonce: str, who: str = _PREFIX, *, most: int = _MOST_ANSWERS
) -> Answers:
    """Return the answers among what a command printed, the first ``most``; ``who`` begins each."""
    prefix = f"{who} {nonce} "
    answers: list[str] = []
    noise: list[str] = []
    for line in out.decode("utf-8", "replace").splitlines():
        if line.startswith(prefix):
            answers.append(line[len(prefix) :].strip())
        elif line.strip() and not answers:
            noise.append(line)
    return Answers(tuple(answers[:most]), tuple(noise[:20]))


def read_object(out: bytes, nonce: str) -> dict[str, object] | None:
    """Return the JSON object that a module of ``xsshpy.remote`` printed; None without one."""
    for line in read_answers(out, nonce).lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


@dataclass(frozen=True)
class Program:
    """What the user wants to run: ``interpreter`` are the words up to a Python, as typed, empty
    where the command names none; ``script`` is the file behind them."""

    interpreter: str
    script: str


_PYTHON = re.compile(r"(?:^|/)(?:python|pypy)[0-9.]*$")


def read_program(command: str) -> Program:
    """Find the Python in a command such as ``env A=1 ~/venv/bin/python -u train.py --fast``."""
    words = command.split()
    for position, word in enumerate(words):
        if _PYTHON.search(word):
            rest = words[position + 1 :]
            script = next((each for each in rest if not each.startswith("-")), "")
            is_file = script.endswith(".py") and "-c" not in rest and "-m" not in rest
            return Program(" ".join(words[: position + 1]), script if is_file else "")
    return Program("", "")
