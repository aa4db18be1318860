"""X11 through xssh and a real sshd: what goes across, what must not, and what fails in good order.

Where ssh has a way of its own (how long it waits for windows, what a session is like without
X11), ssh itself is asked.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.processes import Completed, run, run_ssh, run_xssh, wait_until, xssh_command
from tests.support.sessions import started, started_xssh
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal
from tests.support.tools import require_tool
from tests.support.windows import Screen
from tests.support.xvfb import FAMILY_LOCAL, Xvfb, pack_authority_entry

HIDDEN = {"MIT-SHM", "DRI3", "XFree86-Bigfont"}
UNTRUSTED = ["-X", "-o", "ForwardX11Trusted=no"]
TRUST = {"trusted": ["-Y"], "untrusted": UNTRUSTED}
WITHOUT_X11 = 'echo "display=[$DISPLAY] backend=[$MPLBACKEND]"; exit 3'
"""A command that tells that there is no X11, with a status that must come through."""

REFUSED = "X11 connection rejected because of wrong authentication"
PYTHON = shlex.quote(sys.executable)


class Remote:
    """A server and the ways to it: ``xssh(command)``, ``ssh(command)``."""

    def __init__(
        self, server: SshServer, home: ClientHome, xvfb: Xvfb, way: str = "native"
    ) -> None:
        self.server = server
        self.home = home
        self.xvfb = xvfb
        self.way = way
        self.environment = self.environment_with(xvfb)
        # sshd's xauth tells on stderr that it makes the file, where there is none.
        (server.home / ".Xauthority").touch(mode=0o600)
        home.add(server)

    def environment_with(self, xvfb: Xvfb) -> dict[str, str]:
        """Return the client's environment with this X server."""
        return self.home.environment(xvfb, XSSH_X11=self.way)

    def argv(self, command: str, options: Sequence[str] = ()) -> list[str]:
        return [*self.home.arguments, *options, "server", command]

    def xssh(self, command: str, *options: str, env: Mapping[str, str] | None = None) -> Completed:
        return run_xssh(self.argv(command, options), env=env or self.environment)

    def ssh(self, command: str, *options: str, env: Mapping[str, str] | None = None) -> Completed:
        return run_ssh(self.argv(command, options), env=env or self.environment)

    def script(self, text: str) -> str:
        """Put a Python script on the server; return the command that runs it."""
        name = f"script-{time.monotonic_ns()}.py"
        (self.server.home / name).write_text(text)
        return f"{PYTHON} {name}"

    def with_display(self, display: str, authority: str = "") -> dict[str, str]:
        """Return the client's environment with another DISPLAY, and perhaps other cookies."""
        more = {"XAUTHORITY": authority} if authority else {}
        return {**self.environment, "DISPLAY": display, **more}


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """How X11 is carried: by x11 channels, unless a test asks for both."""
    return str(getattr(request, "param", "native"))


both_ways = pytest.mark.parametrize("way", ["native", "agent"], indirect=True)


@pytest.fixture
def remote(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, xvfb: Xvfb, way: str
) -> Remote:
    return Remote(make_sshd(), client_home, xvfb, way)


@pytest.fixture
def screen(xvfb: Xvfb) -> Iterator[Screen]:
    with Screen.of(xvfb) as opened:
        yield opened


def extensions(shown: bytes) -> set[str]:
    """Return the extensions that xdpyinfo lists."""
    block = re.search(r"number of extensions: +(\d+)\n((?:    \S.*\n)+)", shown.decode())
    assert block is not None, shown
    names = {line.strip() for line in block[2].splitlines()}
    assert len(names) == int(block[1])
    return names


def local_environment(remote: Remote, trust: str) -> dict[str, str]:
    """Return the environment of a client of the X server itself, of the same trust."""
    if trust == "trusted":
        return remote.environment
    authority = str(remote.home.path / "untrusted-authority")
    argv = [require_tool("xauth"), "-q", "-f", authority, "generate", remote.xvfb.display, "."]
    made = run([*argv, "untrusted", "timeout", "30"], env=remote.environment)
    assert made.status == 0, made.stderr
    return {**remote.environment, "XAUTHORITY": authority}


# What clients see -------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("trust", TRUST)
def test_xdpyinfo_sees_the_same_server_without_what_cannot_work(trust: str, remote: Remote) -> None:
    direct = run([require_tool("xdpyinfo")], env=local_environment(remote, trust))
    through = remote.xssh("xdpyinfo", *TRUST[trust])
    assert (through.status, through.stderr) == (0, "")
    if trust == "trusted":
        assert extensions(direct.stdout) >= {"MIT-SHM", "DRI3"} & extensions(direct.stdout)
        assert "MIT-SHM" in extensions(direct.stdout)
    assert extensions(through.stdout) == extensions(direct.stdout) - HIDDEN
    varying = rb"(?m)^(name of display|number of extensions|focus): .*\n|^    \S+\n"
    rest, wanted = (re.sub(varying, b"", shown) for shown in (through.stdout, direct.stdout))
    assert without_watch(rest) == without_watch(wanted)


def without_watch(shown: bytes) -> bytes:
    """Leave out what tells that someone watches the root window; the agent's local end does."""
    return re.sub(
        rb"current input event mask: .*\n|^ +((PropertyChange|SubstructureNotify)(Mask)? *)+\n",
        b"",
        shown,
        flags=re.M,
    )


@both_ways
@pytest.mark.parametrize(
    "command", ["xprop -root", "xwininfo -root -tree -all", "xwininfo -name seen -all", "xlsatoms"]
)
def test_window_tools_say_the_same(command: str, remote: Remote, screen: Screen) -> None:
    words = shlex.split(command)
    argv = [require_tool(words[0]), *words[1:]]
    window = [require_tool("xterm"), "-T", "seen", "-e", "cat"]
    with started(window, remote.environment, remote.home.path):
        screen.find_window("seen")
        run(argv, env=remote.environment)  # a tool may make atoms when it runs for the first time
        through = remote.xssh(command, "-Y")
        direct = run(argv, env=remote.environment)
    assert direct.status == 0
    assert through._replace(stdout=without_watch(through.stdout)) == direct._replace(
        stdout=without_watch(direct.stdout)
    )


LOOK = """\
import sys
from Xlib import X
from Xlib.display import Display
display = Display()
print("XTEST" in display.list_extensions())
window = display.create_resource_object("window", int(sys.argv[1]))
try:
    print(len(window.get_image(0, 0, 4, 4, X.ZPixmap, 0xFFFFFFFF).data))
except Exception as error:
    print(type(error).__name__)
"""


@both_ways
def test_untrusted_clients_cannot_look_at_trusted_windows(remote: Remote, screen: Screen) -> None:
    window = [require_tool("xterm"), "-T", "private", "-e", "cat"]
    with started(window, remote.environment, remote.home.path):
        number = screen.find_window("private").id
        ask = f"{remote.script(LOOK)} {number}"
        trusted, untrusted = remote.xssh(ask, "-Y"), remote.xssh(ask, *UNTRUSTED)
        # ssh's own -X is the measure
        oracle = remote.ssh(ask, *UNTRUSTED)
    assert (trusted.stdout, trusted.stderr) == (b"True\n64\n", "")
    assert re.fullmatch(rb"False\nBad(Access|Window)\n", untrusted.stdout), untrusted
    assert untrusted == oracle


@both_ways
def test_many_clients_at_a_time(remote: Remote) -> None:
    command = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do xprop -root >out$i & done; wait; cat out*"
    through = remote.xssh(f"{command} | sort | uniq -c", "-Y")
    assert through.status == 0
    counts = {line.split()[0] for line in through.stdout.splitlines()}
    assert counts == {b"12"}, through


# Cookies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", TRUST)
def test_only_a_random_cookie_goes_to_the_server(trust: str, remote: Remote) -> None:
    command = 'xdpyinfo >/dev/null && xauth -q list "$DISPLAY"'
    lists = [remote.xssh(command, *TRUST[trust]) for _ in range(2)]
    cookies = []
    for done in lists:
        assert done.status == 0, done.stderr
        name, cookie = done.stdout.decode().split()[-2:]
        assert name == "MIT-MAGIC-COOKIE-1"
        assert re.fullmatch("[0-9a-f]{32}", cookie)
        cookies.append(bytes.fromhex(cookie))
    assert len({*cookies, remote.xvfb.cookie}) == 3
    assert remote.xvfb.cookie not in (remote.server.home / ".Xauthority").read_bytes()
    # What went across is worth nothing at the X server.
    for cookie in cookies:
        environment = remote.with_display(remote.xvfb.display, authority_with(remote, cookie))
        assert run([require_tool("xdpyinfo")], env=environment).status != 0


def authority_with(remote: Remote, cookie: bytes) -> str:
    """Return an Xauthority file with this cookie for the X server."""
    host, number = socket.gethostname().encode(), str(remote.xvfb.number).encode()
    entry = pack_authority_entry(FAMILY_LOCAL, host, number, b"MIT-MAGIC-COOKIE-1", cookie)
    file = remote.home.path / "other-authority"
    file.write_bytes(entry)
    file.chmod(0o600)
    return str(file)


@both_ways
@pytest.mark.parametrize("trust", TRUST)
@pytest.mark.parametrize(
    "how", ["xauth -q add $DISPLAY . 00112233445566778899aabbccddeeff", "XAUTHORITY=/nonexistent"]
)
def test_a_remote_client_without_the_cookie_is_refused(
    how: str, trust: str, remote: Remote
) -> None:
    command = f"xdpyinfo >/dev/null; {how}; export XAUTHORITY; xdpyinfo; echo status=$?"
    done = remote.xssh(command, *TRUST[trust])
    assert (done.status, done.stdout) == (0, b"status=1\n")
    # The client prints one line, and xssh, in ssh's words, the other.
    assert done.stderr.count(REFUSED) == 2, done.stderr
    assert f"{REFUSED}.\n" in done.stderr.replace("\r", "")


@both_ways
def test_after_forward_x11_timeout_no_new_client_comes_in(remote: Remote) -> None:
    stays = remote.script(
        "import time\n"
        "from Xlib.display import Display\n"
        "display = Display()\n"
        "print('first is in', flush=True)\n"
        "time.sleep(4.5)\n"
        "display.screen().root.query_pointer()\n"
        "print('first is still in', flush=True)\n"
    )
    command = f"{stays} & sleep 3.7; xdpyinfo >/dev/null; echo second=$?; wait"
    done = remote.xssh(command, *UNTRUSTED, "-o", "ForwardX11Timeout=3")
    assert done.stdout.decode().splitlines() == [
        "first is in",
        "second=1",
        "first is still in",
    ], done
    assert "Rejected X11 connection after ForwardX11Timeout expired" in done.stderr
    trusted = remote.xssh(
        "sleep 1.5; xdpyinfo >/dev/null; echo $?", "-Y", "-o", "ForwardX11Timeout=1"
    )
    assert (trusted.stdout, trusted.stderr) == (b"0\n", "")


# A server without SECURITY ----------------------------------------------------------------------


@pytest.fixture
def insecure(make_xvfb: Callable[..., Xvfb]) -> Xvfb:
    return make_xvfb(arguments=("-extension", "SECURITY"))


@both_ways
def test_explicit_untrusted_is_refused_where_it_cannot_be(insecure: Xvfb, remote: Remote) -> None:
    done = remote.xssh(WITHOUT_X11, *UNTRUSTED, env=remote.environment_with(insecure))
    assert (done.status, done.stdout) == (3, b"display=[] backend=[]\n")
    (line,) = done.stderr.splitlines()
    assert "the X server has no SECURITY extension; try: -Y " in line


def test_the_default_goes_on_as_trusted_where_untrusted_cannot_be(
    insecure: Xvfb, remote: Remote
) -> None:
    environment = remote.environment_with(insecure)
    command = "xdpyinfo | grep -c 'number of extensions'"
    done = remote.xssh(command, "-o", "ForwardX11Trusted=no", env=environment)
    assert (done.status, done.stdout) == (0, b"1\n")
    (line,) = done.stderr.splitlines()
    assert "forwarding as trusted" in line
    assert "no SECURITY extension" in line


# Forms of DISPLAY -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [":{}", ":{}.0", "unix:{}", "unix:{}.0", "{folder}/org.xquartz:{}", "unix:{folder}/x:{}.0"],
)
def test_display_forms(form: str, remote: Remote, short_directory: Path) -> None:
    number = remote.xvfb.number
    folder = short_directory / "com.apple.launchd.vBvjOSxZuK"
    folder.mkdir()
    for name in ("org.xquartz", "x"):
        os.symlink(remote.xvfb.socket_path, folder / f"{name}:{number}")
    environment = remote.with_display(form.format(number, folder=folder))
    done = remote.xssh("xdpyinfo | grep 'vendor string'", env=environment)
    assert done.status == 0, done.stderr
    assert done.stderr == ""
    (remaining,) = {path.name for path in folder.iterdir()} - {f"x:{number}"}
    assert remaining == f"org.xquartz:{number}"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "tcp/localhost"])
def test_display_over_tcp(host: str, make_xvfb: Callable[..., Xvfb], remote: Remote) -> None:
    server = make_xvfb(arguments=("-listen", "tcp"))
    environment = remote.with_display(f"{host}:{server.number}", server.authority)
    done = remote.xssh("xdpyinfo | grep -c 'vendor string'", env=environment)
    assert done == (0, b"1\n", "")


@both_ways
def test_the_screen_number_goes_along(make_xvfb: Callable[..., Xvfb], remote: Remote) -> None:
    server = make_xvfb(arguments=("-screen", "1", "640x480x24", "-extension", "XINERAMA"))
    environment = remote.with_display(f"{server.display}.1", server.authority)
    done = remote.xssh("echo $DISPLAY; xwininfo -root | grep geometry", env=environment)
    assert re.fullmatch(rb"localhost:\d+\.1\n  -geometry 640x480\+0\+0\n", done.stdout), done


# Displays that do not work ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("display", "reason", "remedy"),
    [
        ("", "DISPLAY is not set", "graphical session"),
        ("nonsense", "'nonsense' makes no sense", "set DISPLAY"),
        (":x", "':x' makes no sense", "set DISPLAY"),
        (":59999", "cannot open display :59999: no X server", "set DISPLAY"),
        ("localhost:9", "cannot open display localhost:9: no X server", "set DISPLAY"),
        ("/nonexistent/org.xquartz:0", "/nonexistent/org.xquartz:0 does not exist", "DISPLAY"),
    ],
)
def test_session_without_a_display(display: str, reason: str, remedy: str, remote: Remote) -> None:
    asked = [] if display else ["-Y"]
    done = remote.xssh(WITHOUT_X11, *asked, env=remote.with_display(display))
    assert (done.status, done.stdout) == (3, b"display=[] backend=[]\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("xssh: X11: ")
    why, _, what = line.partition("; try: ")
    assert reason in why
    assert remedy in what


def test_a_display_that_nobody_asked_for_is_not_missed_by_a_script(
    remote: Remote, spawn_in_pty: Callable[..., Terminal]
) -> None:
    """Where messages go to a program, the absence of DISPLAY is told at -v; a person is told."""
    environment = remote.with_display("")
    assert remote.xssh(WITHOUT_X11, env=environment).stderr == ""
    assert "DISPLAY is not set" in remote.xssh(WITHOUT_X11, "-v", env=environment).stderr
    terminal = spawn_in_pty([*xssh_command(), *remote.argv(WITHOUT_X11)], env=environment)
    terminal.wait()
    assert b"DISPLAY is not set; try: " in terminal.output


@both_ways
@pytest.mark.parametrize("kind", ["wrong", "none"])
def test_session_without_the_local_cookie(kind: str, remote: Remote) -> None:
    authority = authority_with(remote, os.urandom(16)) if kind == "wrong" else "/nonexistent"
    environment = remote.with_display(remote.xvfb.display, authority)
    done = remote.xssh(WITHOUT_X11, env=environment)
    assert (done.status, done.stdout) == (3, b"display=[] backend=[]\n")
    assert f"cannot open display {remote.xvfb.display}: the X server refuses: " in done.stderr
    assert "ookie" in done.stderr
    assert "; try: run xssh from " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def silent_display(short_directory: Path) -> Iterator[str]:
    """A display that takes connections and never answers."""
    path = str(short_directory / "silent:0")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(8)
        yield path
    os.unlink(path)


@both_ways
def test_session_with_a_display_that_hangs(silent_display: str, remote: Remote) -> None:
    begin = time.monotonic()
    done = remote.xssh("echo done; exit 3", env=remote.with_display(silent_display))
    assert (done.status, done.stdout) == (3, b"done\n")
    assert time.monotonic() - begin < 12


@both_ways
def test_client_waits_for_an_x_server_that_takes_its_time(
    make_xvfb: Callable[..., Xvfb], remote: Remote
) -> None:
    server = make_xvfb()
    server.suspend()
    argv = remote.argv("echo started; xdpyinfo | grep -c 'vendor string'")
    environment = remote.environment_with(server)
    with started_xssh(argv, environment, remote.home.path) as session:
        session.wait_for_output("started")
        assert session.runs
        server.resume()
        ended = session.wait()
        assert (ended.status, ended.stdout) == (0, b"started\n1\n")
        (line,) = ended.stderr.splitlines()
        assert f"display {server.display} has not answered yet" in line


def test_x11_switched_off(remote: Remote) -> None:
    environment = remote.with_display("nonsense")
    for options in (["-x"], ["-o", "ForwardX11=no"]):
        done = remote.xssh(WITHOUT_X11, *options, env=environment)
        assert done == (3, b"display=[] backend=[]\n", "")


# Servers that do not forward --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words", "remedy"),
    [
        ({"x11": False}, "the server does not allow it", "X11Forwarding yes"),
        (
            {"config": "XAuthLocation /nonexistent/xauth"},
            "No xauth program; cannot forward X11.",
            "install xauth",
        ),
        (
            {"key_options": "no-X11-forwarding"},
            "X11 forwarding disabled by key options.",
            "authorized_keys",
        ),
        ({"key_options": "restrict"}, "X11 forwarding disabled by key options.", "restrict"),
    ],
    ids=["X11Forwarding", "xauth", "key option", "restricted key"],
)
def test_server_that_forwards_no_x11(
    options: dict[str, object],
    words: str,
    remedy: str,
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    xvfb: Xvfb,
) -> None:
    remote = Remote(make_sshd(**options), client_home, xvfb)
    done = remote.xssh(WITHOUT_X11)
    assert (done.status, done.stdout) == (3, b"display=[] backend=[]\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"X11 forwarding request failed on channel 0: {words}")
    assert remedy in line.partition("; try: ")[2]
    oracle = remote.ssh(WITHOUT_X11, "-Y")
    assert (oracle.status, oracle.stdout) == (done.status, done.stdout)
    assert "X11 forwarding request failed on channel 0" in oracle.stderr


# Clients and servers that misbehave -------------------------------------------------------------

CONNECT = """\
import os, socket, sys, time
port = 6000 + int(os.environ["DISPLAY"].rpartition(":")[2].partition(".")[0])
client = socket.create_connection(("localhost", port))
client.settimeout(20)
def rest():
    data = b""
    while True:
        try:
            piece = client.recv(4096)
        except ConnectionError:
            return data
        if not piece:
            return data
        data += piece
"""


@both_ways
@pytest.mark.parametrize(
    "garbage",
    [
        "b'GET / HTTP/1.0\\r\\n\\r\\n' * 500",
        "bytes(100000)",
        "b'l\\0\\x0b\\0\\0\\0\\xff\\xff\\xff\\xff\\0\\0' + b'x' * 140000",
        "b'B\\0\\0\\x0b' + bytes(8)",
    ],
    ids=["http", "zeros", "long lengths", "no cookie"],
)
def test_client_that_sends_garbage(garbage: str, remote: Remote) -> None:
    code = (
        f"{CONNECT}\ntry:\n    client.sendall({garbage})\nexcept OSError:\n    pass\n"
        "rest()\nprint('closed', flush=True)\n"
    )
    command = f"{remote.script(code)}; xdpyinfo | grep -c 'vendor string'"
    done = remote.xssh(command, "-Y")
    assert (done.status, done.stdout) == (0, b"closed\n1\n")
    assert done.stderr == f"{REFUSED}.\n"


@both_ways
def test_client_that_breaks_the_protocol_ends_alone(remote: Remote) -> None:
    code = (
        "from Xlib.display import Display\n"
        "display, other = Display(), Display()\n"
        "display.display.socket.sendall(b'\\x01\\0\\0\\0' * 4)\n"  # BIG-REQUESTS not enabled
        "try:\n"
        "    while display.display.socket.recv(4096): pass\n"
        "except OSError: pass\n"
        "other.screen().root.query_pointer()\n"
        "print('the other lives', flush=True)\n"
    )
    done = remote.xssh(remote.script(code), "-Y")
    assert (done.status, done.stdout) == (0, b"the other lives\n"), done


@both_ways
@pytest.mark.parametrize("sent", ["b''", "b'l'", "b'l\\0\\x0b\\0\\0\\0\\x12\\0\\x10\\0\\0\\0MIT'"])
def test_client_that_never_finishes_its_setup(sent: str, remote: Remote) -> None:
    code = f"{CONNECT}\nclient.sendall({sent})\nprint('stuck', flush=True)\ntime.sleep(60)\n"
    command = (
        f"{remote.script(code)} & sleep 0.7; xdpyinfo | grep -c 'vendor string'; kill $!; wait"
    )
    done = remote.xssh(command, "-Y")
    assert (done.status, done.stdout, done.stderr) == (0, b"stuck\n1\n", "")


@both_ways
def test_x_server_that_vanishes(make_xvfb: Callable[..., Xvfb], remote: Remote) -> None:
    """The first that comes afterwards may still get a connection that was opened ahead."""
    server = make_xvfb()
    again = "xdpyinfo >/dev/null; echo status=$?; "
    command = f"xterm -T doomed -e cat; echo ended; {again * 2}exit 4"
    environment = remote.environment_with(server)
    with started_xssh(remote.argv(command), environment, remote.home.path) as session:
        with Screen.of(server) as screen:
            screen.find_window("doomed")
        server.kill()
        done = session.wait(10)
    assert (done.status, done.stdout) == (4, b"ended\nstatus=1\nstatus=1\n")
    notices = [line for line in done.stderr.splitlines() if "connection failed" in line]
    where = f"cannot open display {server.display}: no X server"
    expected = f"xssh: X11 connection failed: local X server: {where}"
    assert 1 <= len(notices) <= 2 and all(line.startswith(expected) for line in notices)
    assert "Traceback" not in done.stderr


# How long a session lasts -----------------------------------------------------------------------

WINDOW_BEHIND = "xterm -T behind -e cat </dev/null >/dev/null 2>&1 & sleep 0.1; echo away; exit 5"


@pytest.mark.parametrize("program", ["ssh", "xssh"])
def test_session_lasts_as_long_as_its_windows(program: str, remote: Remote, screen: Screen) -> None:
    start = ["ssh"] if program == "ssh" else xssh_command()
    argv = [*start, *remote.argv(WINDOW_BEHIND, ["-Y"])]
    with started(argv, remote.environment, remote.home.path) as session:
        session.wait_for_output("away")
        window = screen.find_window("behind")
        with pytest.raises(AssertionError, match="still runs"):
            session.wait(0.5)
        screen.close_window(window)
        done = session.wait(15)
    assert (done.status, done.stdout, done.stderr) == (5, b"away\n", "")


@pytest.mark.parametrize("program", ["ssh", "xssh"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_wait_for_windows(
    program: str, number: signal.Signals, remote: Remote, screen: Screen
) -> None:
    start = ["ssh"] if program == "ssh" else xssh_command()
    argv = [*start, *remote.argv(WINDOW_BEHIND, ["-Y"])]
    with started(argv, remote.environment, remote.home.path) as session:
        session.wait_for_output("away")
        window = screen.find_window("behind")
        session.signal(number)
        done = session.wait(5)
        screen.wait_until_gone(window)
    assert done.status == 255


@pytest.mark.parametrize("program", ["ssh", "xssh"])
def test_interrupt_ends_the_wait_for_windows_of_a_shell(
    program: str, remote: Remote, screen: Screen, spawn_in_pty: Callable[..., Terminal]
) -> None:
    start = ["ssh"] if program == "ssh" else xssh_command()
    argv = [*start, *remote.home.arguments, "-Y", "server"]
    terminal = spawn_in_pty(argv, env=remote.environment)
    terminal.write("echo ready-$((40+2))\n")
    terminal.read_until("ready-42")
    terminal.write("setsid xterm -T behind -e cat </dev/null >/dev/null 2>&1 &\n")
    window = screen.find_window("behind")
    assert terminal.is_raw
    terminal.write("exit\n")
    # The shell is gone: keys belong to this side again.
    wait_until(lambda: (terminal.read_for(0.05), terminal.is_restored)[1])
    assert terminal.process.poll() is None
    terminal.write("\x03")
    assert terminal.wait(5) == 255
    assert terminal.is_restored
    screen.wait_until_gone(window)


@pytest.mark.parametrize("trust", TRUST)
def test_escape_ends_shell_and_windows(
    trust: str, remote: Remote, screen: Screen, spawn_in_pty: Callable[..., Terminal]
) -> None:
    argv = [*xssh_command(), *remote.home.arguments, *TRUST[trust], "server"]
    terminal = spawn_in_pty(argv, env=remote.environment)
    terminal.write("xterm -T open -e cat &\n")
    window = screen.find_window("open")
    terminal.write("\r~.")
    assert terminal.wait(5) == 255
    assert terminal.is_restored
    screen.wait_until_gone(window)
    remote.server.wait_until_idle()


def test_nothing_is_left_on_the_server(remote: Remote) -> None:
    files = {path.name for path in remote.server.home.iterdir()}
    done = remote.xssh("xdpyinfo >/dev/null; echo $DISPLAY")
    port = 6000 + int(done.stdout.decode().rpartition(":")[2].split(".")[0])
    remote.server.wait_until_idle()
    assert {path.name for path in remote.server.home.iterdir()} == files

    def is_closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    wait_until(is_closed, what=f"port {port} to be closed")
