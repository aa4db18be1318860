"""X clients through the agent: what they see is what they would see without it, whatever they do.

Over a line without delay and over a long one, trusted and untrusted; and no early answer is wrong.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.agenthost import TRUST, AgentHost
from tests.support.processes import run
from tests.support.sessions import started
from tests.support.tools import require_tool
from tests.support.windows import Screen
from tests.support.xvfb import Xvfb

SUPPORT = Path(__file__).parents[1] / "support"
XCLIENT = f"{shlex.quote(sys.executable)} {shlex.quote(str(SUPPORT / 'xclient.py'))}"
PYTHON = shlex.quote(sys.executable)

WATCHED = re.compile(
    rb"current input event mask: .*\n|^ +((PropertyChange|SubstructureNotify)(Mask)? *)+\n",
    re.MULTILINE,
)
"""What tells that someone watches the root window, as the agent's local end does."""

VARYING = re.compile(
    rb"^(name of display|number of extensions|focus): .*\n|^    (MIT-SHM|DRI3|XFree86-Bigfont)\n",
    re.MULTILINE,
)


# The tools that show what there is --------------------------------------------------------------

TOOLS = {
    "xdpyinfo": "xdpyinfo",
    "xprop": "xprop -root",
    "xwininfo": "xwininfo -root -tree -all",
    "xlsatoms": "xlsatoms -range 1-200",
    "xrandr": "xrandr -q",
    "setxkbmap": "setxkbmap -query",
    "xset": "xset q",
    "xlsclients": "xlsclients",
    "xdpyinfo extensions": "xdpyinfo -ext XINERAMA -ext RENDER -ext XInputExtension",
}


def plain(shown: bytes) -> bytes:
    """Leave out what must differ: the display's name, the focus, what is hidden."""
    shown = WATCHED.sub(b"", shown)
    return VARYING.sub(b"", shown)


TRIPS = pytest.mark.parametrize("trip", [0.0, 0.05, 0.15], ids=lambda t: f"{t * 1000:.0f}ms")
"""How long a round trip takes (seconds)."""


@TRIPS
@pytest.mark.parametrize("trust", TRUST)
def test_tools_show_the_same(
    trust: str, trip: float, host: AgentHost, xvfb: Xvfb, short_directory: Path
) -> None:
    """All at the same time, through the agent and directly."""
    for tool in {command.split()[0] for command in TOOLS.values()}:
        require_tool(tool)
    authority = xvfb.authority
    if trust == "untrusted":
        authority = xvfb.write_untrusted_authority(short_directory / "untrusted")
    direct = {**host.environment, "XAUTHORITY": authority}
    window = [require_tool("xterm"), "-T", "seen", "-e", "cat"]
    with started(window, host.environment, host.home.path), Screen.of(xvfb) as screen:
        screen.find_window("seen")
        shown = [run(shlex.split(command), env=direct) for command in TOOLS.values()]
        # A tool may make atoms when it runs for the first time; that one is not compared.
        shown = [run(shlex.split(command), env=direct) for command in TOOLS.values()]
        places = range(len(TOOLS))
        words = [
            f"{{ {command} >out{at}; echo $? >status{at}; }} & "
            for at, command in enumerate(TOOLS.values())
        ]
        with host.distance(trip / 2) as options:
            done = host.run("".join(words) + "wait", *options, *TRUST[trust])
    home = host.server.home
    for at, name, expected in zip(places, TOOLS, shown, strict=True):
        assert plain((home / f"out{at}").read_bytes()) == plain(expected.stdout), name
        assert int((home / f"status{at}").read_text()) == expected.status, name
        assert expected.status == 0 or trust == "untrusted", name
    done.require_flawless()


# Bare clients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trust", TRUST)
@pytest.mark.parametrize("order", ["l", "B"])
def test_bare_clients(order: str, trust: str, host: AgentHost) -> None:
    client = f"{XCLIENT} {order}"
    whats = ["burst 5000", "trap 20", "images 30", "crowd 30"]
    if trust == "trusted":  # the others may not change the root window's properties
        whats.append("grab 20")
    done = host.run(" && ".join(f"{client} {what}" for what in whats), *TRUST[trust])
    assert (done.status, done.stdout, done.stderr) == (0, b"right\n" * len(whats), "")
    done.require_flawless()


@TRIPS
@pytest.mark.parametrize("trust", TRUST)
def test_bare_clients_side_by_side(trust: str, trip: float, host: AgentHost) -> None:
    """In both byte orders, with one that traps errors: what one does is no other's business."""
    (host.server.home / "traps.py").write_text(XLIB_TRAPS)
    whats = ["burst 3000", "trap 2", "images 3", "crowd 10", "garbage 6"]
    if trust == "trusted":
        whats.append("grab 2")
    commands = [f"{XCLIENT} {order} {what}" for order in "lB" for what in whats]
    commands.append(f"{PYTHON} traps.py")
    with host.distance(trip / 2) as options:
        command = " & ".join(commands) + " & wait"
        done = host.run(command, *options, *TRUST[trust])
    expected = [b"right"] * (len(commands) - 1) + [b"trapped"]
    assert (done.status, sorted(done.stdout.splitlines())) == (0, expected), done.stderr
    done.require_flawless()


@pytest.mark.parametrize("order", ["l", "B"])
def test_nonsense_ends_its_own_connection(order: str, host: AgentHost) -> None:
    """Who speaks sense beside it, before and after, is served."""
    client = f"{XCLIENT} {order}"
    command = f"{client} burst 3000 & {client} garbage 60 && {client} trap 3; wait"
    done = host.run(command)
    assert (done.status, done.stdout) == (0, b"right\n" * 3), done
    assert "broke the protocol" not in done.details
    done.require_flawless()


def test_two_hundred_thousand_requests(host: AgentHost) -> None:
    done = host.run(f"{XCLIENT} l burst 210000", "--stats")
    assert (done.status, done.stdout) == (0, b"right\n")
    done.require_flawless()
    assert re.search(r"\n +1 +2100\d\d ", done.details), done.details


XLIB_TRAPS = """\
import sys
from Xlib import X, error
from Xlib.display import Display
display = Display()
trapped = error.CatchError(error.BadWindow)
for number in range(8):
    ghost = display.create_resource_object("window", 0x7000000 + number)
    ghost.map(onerror=trapped)
    display.intern_atom("WM_NAME", True)
    display.sync()
    if trapped.get_error() is None:
        sys.exit("number {} was not trapped".format(number))
    trapped.reset()
print("trapped", flush=True)
"""


def test_x11perf_runs_to_its_end(host: AgentHost) -> None:
    require_tool("x11perf")
    tests = "-noop -putimage100 -getimage100 -rect100 -ftext -scroll100 -prop"
    done = host.run(f"x11perf -time 1 -repeat 1 -reps 20 {tests}")
    assert done.status == 0, done
    assert done.stdout.count(b" reps @ ") == 7, done
    done.require_flawless()


# Screens and trust ------------------------------------------------------------------------------


@pytest.mark.parametrize("screen", [0, 1])
def test_two_screens(screen: int, host: AgentHost, make_xvfb: Callable[..., Xvfb]) -> None:
    arguments = ("-screen", "1", "640x480x24", "-extension", "XINERAMA")
    server = make_xvfb(arguments=arguments)
    environment = {**server.environment(), "DISPLAY": f"{server.display}.{screen}"}
    command = "echo $DISPLAY; xdpyinfo; xwininfo -root; xprop -root"
    done = host.run(command, env=environment)
    local = {**host.environment, **environment}
    direct = run(["sh", "-c", command], env=local)
    done.require_flawless()
    assert re.match(rb"localhost:\d+\.%d\n" % screen, done.stdout)
    assert plain(done.stdout.partition(b"\n")[2]) == plain(direct.stdout.partition(b"\n")[2])


def test_windows_on_two_screens(host: AgentHost, make_xvfb: Callable[..., Xvfb]) -> None:
    """At once, one on each; both look as they do without any forwarding."""
    server = make_xvfb(arguments=("-screen", "1", "800x600x24", "-extension", "XINERAMA"))
    environment = {**host.environment, **server.environment()}
    words = "xterm -T screen{} -geometry {}x5 +bc -e sh -c 'echo this is {}; exec cat'"
    command = "".join(
        f"DISPLAY=${{DISPLAY%.*}}.{each} {words.format(each, 30 + each, each)} & "
        for each in (0, 1)
    )
    seen = []
    local = {**environment, "DISPLAY": f"{server.display}.0"}
    for start in (
        started(["sh", "-c", command + "wait"], local, host.home.path),
        host.start(command + "wait", env=server.environment()),
    ):
        with start as session:
            pictures = []
            for each in (0, 1):
                with Screen(f"{server.display}.{each}", server.authority) as screen:
                    window = screen.find_window(f"screen{each}")
                    wanted = seen[0][each] if seen else None
                    pictures.append(screen.settled_picture(window, colours=2, wanted=wanted))
                    screen.close_window(window)
            seen.append(pictures)
            done = host.wait(session)
    assert seen[0] == seen[1]
    assert seen[0][0] != seen[0][1]
    done.require_flawless()


def test_untrusted_clients_see_what_untrusted_clients_see(host: AgentHost) -> None:
    command = "xdpyinfo -queryExtensions | sed -n '/number of extensions/,/default screen/p'"
    seen = {}
    for way in ("native", "agent"):
        for name, options in TRUST.items():
            done = host.run(command, "--x11", way, *options)
            assert done.status == 0
            seen[way, name] = done.stdout
    assert seen["agent", "trusted"] == seen["native", "trusted"]
    assert seen["agent", "untrusted"] == seen["native", "untrusted"]
    assert seen["agent", "trusted"] != seen["agent", "untrusted"]


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["l", "B"])
def test_a_wrong_cookie_is_refused_in_words(order: str, host: AgentHost) -> None:
    done = host.run(f"{XCLIENT} {order} stranger; xdpyinfo >/dev/null")
    words = "X11 connection rejected because of wrong authentication"
    assert f"refused: xssh: {words}\n" in done.stderr
    assert f"\n{words}.\n" in f"\n{done.stderr}"
    assert done.status == 0
    done.require_flawless()


def test_too_many_clients_are_refused_in_words(
    host: AgentHost, make_xvfb: Callable[..., Xvfb]
) -> None:
    server = make_xvfb(arguments=("-maxclients", "512"))
    before = "import xsshpy.x11.agent_relay as r; r.CLIENT_LIMIT = 20\n"
    command = f"{XCLIENT} l crowd 20; {XCLIENT} B crowd 25; {XCLIENT} l crowd 10"
    done = host.run(command, env=server.environment(), before=before)
    assert done.stdout == b"right\nright\n"
    assert "too many are open" in done.stderr
    done.require_flawless()


def test_more_clients_than_the_agent_takes(host: AgentHost, make_xvfb: Callable[..., Xvfb]) -> None:
    server = make_xvfb(arguments=("-maxclients", "512"))
    done = host.run(f"{XCLIENT} l crowd 256; {XCLIENT} l crowd 257", env=server.environment())
    assert done.stdout == b"right\n"
    assert "refused: xssh: X11 connection rejected: too many are open\n" in done.stderr
    done.require_flawless()


def test_after_the_timeout_no_new_client(host: AgentHost) -> None:
    command = f"{XCLIENT} l stay 5 & sleep 3.2; {XCLIENT} l crowd 1; {XCLIENT} B crowd 1; wait"
    done = host.run(command, *TRUST["untrusted"], "-o", "ForwardX11Timeout=3")
    words = "xssh: X11 connection rejected after ForwardX11Timeout expired"
    assert done.stderr.count(f"refused: {words}\n") == 2, done
    assert "Rejected X11 connection after ForwardX11Timeout expired\n" in done.stderr
    # Who was in may stay.
    assert done.stdout == b"in\nlate\nright\n"
    done.require_flawless()


# The environment --------------------------------------------------------------------------------


READ_AUTHORITY = """\
import os, sys
from Xlib.xauth import Xauthority
name = os.environ["DISPLAY"]
number = name.rpartition(":")[2].partition(".")[0].encode()
authority = Xauthority(os.environ["XAUTHORITY"])
for family, address in ((0, bytes((127, 0, 0, 1))), (6, bytes(15) + b"\\x01")):
    kind, cookie = authority.get_best_auth(family, address, int(number))
    print(kind.decode(), len(cookie))
"""


def test_the_authority_file_is_one_that_others_read(host: AgentHost) -> None:
    require_tool("xauth")
    (host.server.home / "read.py").write_text(READ_AUTHORITY)
    keep = "env -i DISPLAY=$DISPLAY XAUTHORITY=$XAUTHORITY PATH=$PATH"
    command = (
        f"xauth -q list | wc -l; xauth -q list $DISPLAY | wc -l; {PYTHON} read.py; "
        # As sudo -E: another HOME, the same variables.
        f"{keep} HOME=/nonexistent xdpyinfo | grep -c 'vendor string'"
    )
    own = (host.server.home / ".Xauthority").read_bytes()
    done = host.run(command)
    assert (host.server.home / ".Xauthority").read_bytes() == own
    lines = done.stdout.decode().splitlines()
    assert int(lines[0]) == 3 and int(lines[1]) >= 1
    assert lines[2:] == ["MIT-MAGIC-COOKIE-1 16", "MIT-MAGIC-COOKIE-1 16", "1"]
    done.require_flawless()


def test_local_cookies_stay_here(host: AgentHost) -> None:
    done = host.run("xauth -q list; cat $XAUTHORITY | od -An -tx1 | tr -d ' \\n'")
    assert host.xvfb.cookie.hex().encode() not in done.stdout
    assert done.stdout
