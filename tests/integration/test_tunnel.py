"""-w, Tunnel and TunnelDevice beside ssh: real devices, and packets that go through them.

Everything happens in a network of its own (``unshare -n``): sshd is started by ProxyCommand in
there, and the client's device is moved into a second one, so that packets have to take the tunnel.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS, Pair, plain
from tests.support.beside import alike
from tests.support.clients import ClientHome
from tests.support.processes import run, wait_until
from tests.support.sessions import Session, started
from tests.support.sshd import SshServer
from tests.support.terminals import Terminal
from tests.support.tools import need_tool
from xsshpy.ssh.tunnel import ETHERNET, POINT_TO_POINT, TunnelRequest, parse_tunnel

both_programs = pytest.mark.parametrize("program", PROGRAMS)


def why_not() -> str:
    """Say why there can be no tunnels here; nothing if there can."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        return "tunnel devices need root and /dev/net/tun"
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            return f"no {tool} here"
    argv = ["unshare", "-n", "ip", "tuntap", "add", "dev", "tun0", "mode", "tun"]
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.stderr.strip() or ("no network namespaces here" if done.returncode else "")


@pytest.fixture
def network(make_sshd: Callable[..., SshServer], client_home: ClientHome) -> Pair:
    """Return a pair whose ``server`` is an sshd of the network that the client runs in."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    server = make_sshd(config="PermitTunnel yes")
    return joined(server, client_home)


def joined(server: SshServer, home: ClientHome) -> Pair:
    variables = [f"{name}={value}" for name, value in server._environment.items()]
    config = server.directory / "sshd_config"
    log = server.directory / "sshd.log"
    sshd = ["env", *variables, need_tool("sshd"), "-i", "-f", str(config), "-E", str(log)]
    home.add(server, extra=f"ForwardX11 no\nProxyCommand {shlex.join(sshd)}")
    return Pair(server, home)


def alone(pair: Pair, program: str, *words: str) -> list[str]:
    return ["unshare", "-n", *pair.argv(program, words)]


# In the server's network: the other side of the tunnel gets a network of its own, where a client
# asks for 2 MB from a server here, both ways.
EXCHANGE = r"""
unshare -n sleep 60 & far=$!
trap 'kill $far' EXIT
until [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
ip addr add 10.99.0.2/24 dev {there} && ip link set {there} up
ip link set {here} netns $far || exit 1
nsenter -t $far -n sh -c 'ip addr add 10.99.0.1/24 dev {here}; ip link set {here} up'
python3 - <<'END' & server=$!
import socket
listener = socket.create_server(("10.99.0.2", 9))
print("listens", flush=True)
connection, address = listener.accept()
data = connection.makefile("rb").read()
connection.sendall(data[::-1])
connection.close()
END
sleep 0.2
nsenter -t $far -n python3 - <<'END'
import os, socket, time
data = os.urandom(2 << 20)
for attempt in range(50):
    try:
        caller = socket.create_connection(("10.99.0.2", 9), timeout=10)
        break
    except OSError as error:
        time.sleep(0.1)
caller.settimeout(20)
caller.sendall(data)
caller.shutdown(socket.SHUT_WR)
print("same" if caller.makefile("rb").read() == data[::-1] else "differs", "at 10.99.0.2")
END
kill $server 2>/dev/null
"""


@both_programs
@pytest.mark.parametrize("kind", ["point-to-point", "ethernet"])
def test_tunnel_carries_packets(network: Pair, program: str, kind: str) -> None:
    """TCP through it, whole."""
    name = "tap" if kind == "ethernet" else "tun"
    command = EXCHANGE.format(here=f"{name}5", there=f"{name}6")
    argv = alone(network, program, f"-oTunnel={kind}", "-w", "5:6", "server", command)
    with started(argv, network.environment, network.home.path) as session:
        session.wait_for_output("10.99.0.2", timeout=60)
        assert "same" in session.stdout


def devices(session: Session) -> list[str]:
    session.wait_for_output("end")
    return [line.split(":")[1].strip() for line in session.stdout.splitlines() if ": t" in line]


@pytest.mark.parametrize(
    ("words", "here"),
    [
        (["-w", "7:8"], "tun7"),
        (["-w", "3"], "tun3"),
        (["-w", "any"], "tun0"),
        (["-oTunnel=yes", "-oTunnelDevice=any:4"], "tun0"),
        (["-oTunnel=ethernet", "-oTunnelDevice=2:any"], "tap2"),
    ],
    ids=str,
)
def test_tunnel_devices_have_the_names_that_ssh_gives(
    network: Pair, words: list[str], here: str, tmp_path: Path
) -> None:
    """Those named by number, others by the kernel; LocalCommand gets the one here as %T.

    As with ssh the tunnel outlives the command.
    """
    found = {}
    for program in PROGRAMS:
        note = tmp_path / program
        local = ["-oPermitLocalCommand=yes", f"-oLocalCommand=echo %T > {note}"]
        argv = alone(network, program, *local, *words, "server", "ip -o link; echo end")
        with started(argv, network.environment, network.home.path) as session:
            found[program] = devices(session)
            with pytest.raises(AssertionError, match="still runs"):
                session.wait(0.3)
            assert session.stderr == ""
        assert note.read_text() == f"{here}\n"
    assert found["xssh"] == found["ssh"]
    assert len(found["ssh"]) == 2


@pytest.mark.parametrize("extra", [[], ["-oExitOnForwardFailure=yes"]], ids=str)
@pytest.mark.parametrize("allowed", ["no", "ethernet", "yes"])
def test_tunnel_that_the_server_refuses(
    make_sshd: Callable[..., SshServer], client_home: ClientHome, allowed: str, extra: list[str]
) -> None:
    """By its settings, or as the device there is taken: by the client in this case."""
    if why_not():
        pytest.skip(why_not())
    server = make_sshd(config=f"PermitTunnel {allowed}")
    pair = joined(server, client_home)
    words = [*extra, "-w", "5:5", "server", "echo hi; exit 3"]
    expected = plain(run(alone(pair, "ssh", *words), env=pair.environment))
    found = plain(run(alone(pair, "xssh", *words), env=pair.environment))
    assert found == expected
    assert "Tunnel forwarding failed\n" in expected.stderr
    assert expected.status == (255 if extra else 3)


@both_programs
@pytest.mark.parametrize("extra", [[], ["-oExitOnForwardFailure=yes"]], ids=str)
def test_tunnel_without_a_device_here(pair: Pair, program: str, extra: list[str]) -> None:
    """Where we may not, or there are none: said in ssh's words."""
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("no setpriv, or not root")
    argv = pair.argv(program, [*extra, "-w", "5:6", "server", "echo hi"])
    poor = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", *argv]
    done = plain(run(poor, env=pair.environment))
    said = [line for line in done.stderr.splitlines() if not line.startswith("  try")]
    assert said == ["Tunnel device open failed.", "Could not request tunnel forwarding."]
    assert (done.status, done.stdout) == ((255, b"") if extra else (0, b"hi\n"))


def test_tunnel_in_the_list_of_connections(
    network: Pair, spawn_in_pty: Callable[..., Terminal]
) -> None:
    shown = {}
    for program in PROGRAMS:
        argv = alone(network, program, "-tt", "-w", "5:6", "server", "echo ready; cat")
        terminal = spawn_in_pty(argv, env=network.environment)
        terminal.read_until("ready\r\n")
        wait_until(lambda: terminal.is_raw)  # noqa: B023
        terminal.write("\r~#")
        text = terminal.read_until("#0 .*#1 .*\n")
        shown[program] = alike(text[text.index("#0 tun") :]).partition(" fd ")[0]
        terminal.write("~.")
        terminal.wait()
    assert shown["xssh"] == shown["ssh"]


def test_tunnel_keywords() -> None:
    """As ``ssh -G`` prints them."""
    assert parse_tunnel({}) is None
    assert parse_tunnel({"tunnel": ("false",), "tunneldevice": ("1:2",)}) is None
    request = parse_tunnel({"tunnel": ("point-to-point",), "tunneldevice": ("any:3",)})
    assert request == TunnelRequest(POINT_TO_POINT, None, 3)
    request = parse_tunnel({"tunnel": ("ethernet",), "tunneldevice": ("0:any",)})
    assert request == TunnelRequest(ETHERNET, 0, None)
