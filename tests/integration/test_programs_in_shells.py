"""xssh where shells and other starters put it: loops, many at once, odd environments, signals.

Each script runs with ssh and with xssh, which has a display; ``"$@"`` is the program with its
configuration. Status, stdout and messages have to be the same.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess

import pytest

from tests.integration._pairs import PROGRAMS, Pair, plain
from tests.support.clients import ClientHome
from tests.support.processes import Completed, end_popen, run
from tests.support.sshd import SshServer
from tests.support.tools import require_tool
from tests.support.warmstart import open_process
from tests.support.xvfb import Xvfb


@pytest.fixture
def display_pair(sshd: SshServer, client_home: ClientHome) -> Pair:
    """Return a pair in which X11 is as by default: on where there is a display."""
    # xauth says so on stderr when it makes this file.
    (sshd.home / ".Xauthority").touch(mode=0o600)
    client_home.add(sshd, extra="ForwardX11Trusted yes")
    client_home.add(sshd, "other", extra="ForwardX11Trusted yes")
    return Pair(sshd, client_home)


WAYS = (("ssh", False), ("xssh", True), ("xssh", False))


def compare(
    pair: Pair, xvfb: Xvfb, script: str, *, ways: int = 2, timeout: float = 40
) -> Completed:
    """Run the script with ssh and with xssh beside a display, the third way without one."""
    results = []
    for program, display in WAYS[:ways]:
        folder = pair.home.path / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        argv = ["bash", "-c", script, "bash", *pair.argv(program, [])]
        environment = pair.home.environment(xvfb if display else None, KEY=pair.server.client_key)
        results.append(plain(run(argv, env=environment, timeout=timeout, cwd=folder)))
    for found in results[1:]:
        assert found == results[0], f"\nxssh: {found}\nssh:  {results[0]}"
    assert "Traceback" not in results[0].stderr
    return results[0]


# --- Loops and many at once ---------------------------------------------------------------------

HOSTS = "printf 'server\\nother\\nserver\\n' >hosts; "


def test_a_loop_over_hosts(display_pair: Pair, xvfb: Xvfb) -> None:
    loop = HOSTS + 'while read -r h; do "$@" {} "$h" "echo from $h; cat"; done <hosts'
    done = compare(display_pair, xvfb, loop.format("-n"), ways=3)
    assert done.stdout == b"from server\nfrom other\nfrom server\n"
    # Without -n the first eats what is left of the hosts.
    done = compare(display_pair, xvfb, loop.format(""))
    assert done.stdout == b"from server\nother\nserver\n"


def test_xargs(display_pair: Pair, xvfb: Xvfb) -> None:
    script = 'seq 4 | xargs -P3 -I{} "$@" server "echo {}; exit 0" | sort; echo ${PIPESTATUS[1]}'
    compare(display_pair, xvfb, script)
    compare(display_pair, xvfb, 'seq 2 | xargs -n1 "$@" server exit; echo $?')


def test_six_at_once(display_pair: Pair, xvfb: Xvfb) -> None:
    script = (
        'for i in 0 1 2 3 4 5; do "$@" server "echo $i; exit $i" >o$i & p[$i]=$!; done; '
        "for i in ${!p[@]}; do wait ${p[$i]}; echo $?; done; cat o*"
    )
    compare(display_pair, xvfb, script, timeout=60)


def test_pipes_between_several(display_pair: Pair, xvfb: Xvfb) -> None:
    script = (
        '"$@" server "seq 100000" | "$@" other "sort -rn" | "$@" server "sed -n 2,4p" '
        "| md5sum; echo ${PIPESTATUS[@]}"
    )
    compare(display_pair, xvfb, script)


# --- What it is started with --------------------------------------------------------------------

SCRIPTS = {
    "nothing in the environment": (
        'env -i LD_PRELOAD="$LD_PRELOAD" NSS_WRAPPER_PASSWD="$NSS_WRAPPER_PASSWD"'
        ' NSS_WRAPPER_GROUP="$NSS_WRAPPER_GROUP" "$(type -P "$1")" "${@:2}" server "echo $?"'
    ),
    "no DISPLAY": 'env -u DISPLAY "$@" server "echo ok"',
    "an empty DISPLAY": 'DISPLAY= "$@" server "echo ok"',
    "no TERM": 'env -u TERM "$@" -tt server "echo [\\$TERM]"',
    "a long TERM": 'TERM=$(printf x%.0s {1..300}) "$@" -tt server "echo [\\$TERM]"',
    "another locale": 'LC_ALL=C "$@" server "echo žluťoučký"',
    "a locale that is not there": 'LC_ALL=xx_YY.KOI-7 LANG=nonsense "$@" server "echo žluťoučký"',
    "bytes in the command": '"$@" server "printf $(printf "\\xff\\xfe") | od -An -tx1"',
    "bytes in a variable": 'A=$(printf "\\xff") "$@" -oSendEnv=A server "echo ok"',
    "a folder that is gone": 'mkdir gone; cd gone; rmdir ../gone; "$@" server "echo ok"',
    "no HOME": 'env -u HOME "$@" server "echo ok"',
    "a HOME that is a file": 'HOME=/dev/null "$@" server "echo ok"',
    "an empty HOME": 'HOME= "$@" server "echo ok"',
    "no TMPDIR": 'TMPDIR=/nonexistent "$@" server "echo ok"',
    "no user names": 'env -u USER -u LOGNAME "$@" server "echo ok"',
    "no SHELL": 'env -u SHELL "$@" -oPermitLocalCommand=yes -oLocalCommand="echo %u" server :',
    "another SHELL": 'SHELL=/bin/false "$@" server "echo ok"',
    "a umask that allows nothing": 'umask 777; "$@" server "umask; echo ok"',
    "few descriptors": 'ulimit -n 64; "$@" server "ulimit -n >/dev/null; echo ok"',
    "very few descriptors": 'ulimit -n 24; "$@" server "echo ok"',
    "no core files": 'ulimit -c 0; "$@" server "ulimit -c >/dev/null; echo ok"',
    "more descriptors open": 'exec 5<hosts 6>out 20<&0; "$@" server "echo ok; ls /proc/\\$\\$/fd"',
    "command substitution": 'x=$("$@" server "printf a%s b"); echo "[$x]"',
    "process substitution": 'diff <("$@" server "seq 5") <("$@" server "seq 4"); echo $?',
    "an archive": 'tar -c -C / etc/hostname | "$@" server "tar -t; echo $?"',
    "an agent's shell": (
        'ssh-agent bash -c \'ssh-add -q "$KEY"; "$@" -A server "ssh-add -l | wc -l"; '
        'kill $SSH_AGENT_PID\' bash "$@"'
    ),
    "nohup": 'nohup "$@" server "echo ok; cat; exit 3" </dev/null 2>err; echo $?; cat err',
    "setsid": 'setsid -w "$@" server "echo ok; exit 3"; echo $?',
    "nice": 'nice -n 5 "$@" server "echo ok"',
    "a pipe that nobody reads": '"$@" server "seq 9; exit 3" | head -n 1; echo ${PIPESTATUS[0]}',
    "stdin that can't be read": '"$@" server "cat; echo ok; exit 3" 0>out; echo $?',
    "a random device": '"$@" server "head -c 100 | wc -c" </dev/urandom',
    "a full device as stdin": '"$@" server "head -c 3000000 | tr \\\\0 x | md5sum" </dev/full',
    "a FIFO": 'mkfifo f; (echo a; sleep 0.2; echo b) >f & "$@" server cat <f; wait',
    "here-strings": '"$@" server "cat; echo $?" <<<text',
    "stdin 0 closed": '"$@" server "cat; echo ok" <&-',
    "stdout 1 closed": '"$@" server "echo ok; exit 3" >&-; echo $?',
    "stderr 2 closed": '"$@" server "echo ok >&2; echo out; exit 3" 2>&-; echo $?',
    "all closed": '"$@" server "cat; exit 3" <&- >&- 2>&-; echo $?',
    "stdout and stderr one file": '"$@" server "echo a; sleep 0.1; echo b >&2" >o 2>&1; cat o',
    "appended": 'echo before >o; "$@" server "echo after" >>o; cat o',
    "read and write": 'printf "in\\n" >o; "$@" server "cat; echo out" <>o >&0; cat o',
    "exec": '(exec "$@" server "echo ok; exit 3"); echo $?',
    "eval": 'eval "$(printf "%q " "$@" server "echo \\$HOME \'a\'") >o"; echo $?; wc -w <o',
    "an empty word": '"$@" server ""; echo $?; "$@" server "" "" <<<"echo login"; echo $?',
    "many words": '"$@" server echo "a  b" c "" d',
    "a long command": '"$@" server "echo $(head -c 100000 /dev/zero | tr \\\\0 x) | wc -c"',
    "coproc": 'coproc "$@" server "read x; echo got $x"; echo w >&${COPROC[1]}; cat <&${COPROC[0]}',
    "trap": 'trap "echo int" INT; "$@" server "kill -INT \\$PPID; exit 3" >/dev/null 2>&1; echo $?',
    "status of a signal": '"$@" server "kill -9 \\$\\$"; echo $?; "$@" server "exit 300"; echo $?',
    "errexit": 'set -e; "$@" server "exit 4"; echo never',
    "ControlPersist known": '"$@" -o ControlPersist 2>&1 | grep -c "Bad configuration option"',
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script(display_pair: Pair, xvfb: Xvfb, name: str) -> None:
    compare(display_pair, xvfb, "touch hosts; " + SCRIPTS[name])


def test_stdin_and_stdout_that_are_one_socket(display_pair: Pair) -> None:
    """rsync and others start their ssh with the two ends of a socket pair."""
    results = []
    for program in PROGRAMS:
        mine, theirs = socket.socketpair()
        process = subprocess.Popen(
            display_pair.argv(program, ["server", "cat; echo end; exit 3"]),
            stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=display_pair.environment,
        )  # fmt: skip
        theirs.close()
        try:
            mine.sendall(b"x" * 100000)
            mine.shutdown(socket.SHUT_WR)
            got = b""
            while piece := mine.recv(65536):
                got += piece
            process.wait(15)
            assert process.stderr is not None
            results.append((got, process.returncode, process.stderr.read()))
        finally:
            mine.close()
            end_popen(process)
    assert results[1] == results[0]
    assert results[0][0] == b"x" * 100000 + b"end\n"


# --- Signals ------------------------------------------------------------------------------------

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGALRM", "SIGPIPE")


def test_a_signal_ends_it(display_pair: Pair, xvfb: Xvfb) -> None:
    """The session is under way when the signal comes; the status and all output are ssh's."""
    ends: dict[str, list[object]] = {}
    for program in PROGRAMS:
        started = [
            open_process(
                display_pair.argv(program, ["server", "echo up; exec cat"]), bufsize=0,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=display_pair.home.environment(xvfb),
            )
            for _ in SIGNALS
        ]  # fmt: skip
        try:
            for process, name in zip(started, SIGNALS, strict=True):
                assert process.stdout is not None
                assert process.stdout.readline() == b"up\n"
                process.send_signal(signal.Signals[name])
                if name == "SIGPIPE":  # ignored by both: it goes on
                    out, err = process.communicate(b"on", timeout=15)
                else:
                    process.wait(15)
                    out, err = process.communicate()
                result = (name, process.returncode, out, err.replace(b"\r", b""))
                ends.setdefault(program, []).append(result)
        finally:
            for process in started:
                end_popen(process)
    assert ends["xssh"] == ends["ssh"]
    display_pair.server.wait_until_idle()


def test_timeout_with_its_own_group(display_pair: Pair, xvfb: Xvfb) -> None:
    require_tool("timeout")
    script = (
        "mkfifo f; exec 8<>f; for s in INT TERM HUP; do "
        '(timeout -s $s 2 "$@" server cat <&8; echo $s $?) & done; '
        "wait"
    )
    compare(display_pair, xvfb, f"({script}) 2>/dev/null | sort")
    display_pair.server.wait_until_idle()


def test_a_hang_up_that_is_ignored(display_pair: Pair, xvfb: Xvfb) -> None:
    script = (
        'mkfifo f; nohup "$@" server "echo up; sleep 0.3; echo survived" >f 2>/dev/null & '
        "exec 3<f; read -r x <&3; kill -HUP $!; cat <&3; wait $!; echo $x $?"
    )
    assert compare(display_pair, xvfb, script).stdout == b"survived\nup 0\n"


def test_children_are_none_of_its_business(display_pair: Pair, xvfb: Xvfb) -> None:
    """exec hands it children that it did not start."""
    script = '(sleep 0.1 & sleep 0.2 & exec "$@" server "sleep 0.5; echo ok"); echo $?'
    assert compare(display_pair, xvfb, script).stdout == b"ok\n0\n"


# --- script(1) ----------------------------------------------------------------------------------


def test_typescript(display_pair: Pair, xvfb: Xvfb) -> None:
    require_tool("script")
    script = (
        'printf "%q " "$@" -t server "tty | tr -d 0-9; stty size; exit 4" >run; '
        'script -qec "bash run" out </dev/null | tr -d "\\r"; '
        "echo ${PIPESTATUS[0]}; grep -c /dev/pts/ out"
    )
    done = compare(display_pair, xvfb, script)
    assert b"/dev/pts/" in done.stdout
    assert done.stdout.endswith(b"\n4\n1\n")
