"""What a master decides: which forward is meant, who shares, for how long, who gets in."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsshpy.console import Console
from xsshpy.errors import UsageError
from xsshpy.mux.context import MasterContext
from xsshpy.mux.control import decide_command, decide_sharing_time, read_control
from xsshpy.mux.link import Link
from xsshpy.mux.master import Master
from xsshpy.mux.messages import PATH_PORT, MuxProtocolError, NewSession, OpenForward, Reply
from xsshpy.mux.passenger import Signals
from xsshpy.mux.passenger_forwards import InvalidForwardError, read_forward
from xsshpy.mux.passenger_sessions import SessionRide
from xsshpy.mux.proxy import carry_proxy
from xsshpy.mux.sharing import aim, digest, why_not
from xsshpy.mux.sockets import listen
from xsshpy.settings import Invocation, Settings
from xsshpy.ssh.forward_spec import (
    Forward,
    ForwardKind,
    TcpEndpoint,
    UnixEndpoint,
    describe_forward,
)
from xsshpy.values import replace

NUMBERS = st.sampled_from([0, 1, 2, 3, 4, 22, 65535, 65536, PATH_PORT, 0xFFFFFFFF])


@pytest.mark.parametrize(
    ("message", "forward", "text"),
    [
        (
            OpenForward(1, 1, b"", 80, b"host", 8080),
            Forward(ForwardKind.LOCAL, TcpEndpoint(None, 80), TcpEndpoint("host", 8080)),
            "local forward LOCALHOST:80 -> host:8080",
        ),
        (
            OpenForward(1, 1, b"/here", PATH_PORT, b"/there", PATH_PORT),
            Forward(ForwardKind.LOCAL, UnixEndpoint("/here"), UnixEndpoint("/there")),
            "local forward /here:-2 -> /there:-2",
        ),
        (
            OpenForward(1, 2, b"*", 0, b"host", 1),
            Forward(ForwardKind.REMOTE, TcpEndpoint("*", 0), TcpEndpoint("host", 1)),
            "remote forward *:0 -> host:1",
        ),
        (
            OpenForward(1, 2, b"", 1080, b"socks", 0),
            Forward(ForwardKind.REMOTE_DYNAMIC, TcpEndpoint(None, 1080), None),
            "remote forward LOCALHOST:1080 -> socks:0",
        ),
        (
            OpenForward(1, 3, b"", 1080, b"socks", 0),
            Forward(ForwardKind.DYNAMIC, TcpEndpoint(None, 1080), None),
            "dynamic forward LOCALHOST:1080 -> *",
        ),
    ],
)
def test_a_forward_is_understood_and_named_as_ssh_does(
    message: OpenForward, forward: Forward, text: str
) -> None:
    assert read_forward(message) == forward
    assert describe_forward(forward, gateway_ports=False) == text


@given(NUMBERS, st.binary(max_size=3), NUMBERS, st.binary(max_size=3), NUMBERS)
def test_any_forward_is_understood_or_refused(
    kind: int, listen: bytes, listen_port: int, target: bytes, target_port: int
) -> None:
    try:
        read_forward(OpenForward(1, kind, listen, listen_port, target, target_port))
    except (MuxProtocolError, InvalidForwardError):
        return
    assert kind in (1, 2, 3)
    assert all(port <= 65535 or port == PATH_PORT for port in (listen_port, target_port))


@pytest.mark.parametrize(
    ("option", "environ", "seconds"),
    [
        (None, {}, 600),
        (None, {"XSSH_SHARE": ""}, 600),
        (None, {"XSSH_SHARE": "no"}, 0),
        (None, {"CI": "false"}, 600),
        (None, {"CI": "true"}, 0),
        (None, {"CI": "1", "XSSH_SHARE": "yes"}, 600),
        ("5m", {"CI": "true"}, 300),
        (None, {"XSSH_SHARE": "yes"}, 600),
        ("no", {"XSSH_SHARE": "yes"}, 0),
        ("1h30m", {"XSSH_SHARE": "no"}, 5400),
        ("YES", {}, 600),
        ("45", {}, 45),
    ],
)
def test_how_long_a_connection_is_shared(
    option: str | None, environ: dict[str, str], seconds: int
) -> None:
    assert decide_sharing_time(option, environ) == seconds


@pytest.mark.parametrize("text", ["maybe", "-1", "1y", " "])
def test_a_time_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="neither yes nor no nor a time"):
        decide_sharing_time(text, {})


def _settings(**keywords: str) -> Settings:
    words = {name: (value,) for name, value in keywords.items()}
    return Settings("h", "host", "user", 22, {"controlmaster": ("false",), **words})


@pytest.mark.parametrize(
    "options",
    [(("S", "none"),), (("M", None),), (("o", "ControlPath none"),), (("o", " controlmaster=no"),)],
)
def test_the_users_own_word_on_sharing(options: tuple[tuple[str, str | None], ...]) -> None:
    assert not why_not(Invocation("h"), _settings())
    assert why_not(Invocation("h", ssh_options=options), _settings())


def test_what_would_outlive_the_run_is_not_shared() -> None:
    for keyword in ("localforward", "remoteforward", "dynamicforward"):
        assert why_not(Invocation("h"), _settings(**{keyword: "1 [a]:2"}))
    assert why_not(Invocation("h"), _settings(tunnel="point-to-point"))
    assert why_not(Invocation("h", script="x.py"), _settings())
    assert why_not(Invocation("h"), _settings(controlpath="/mine"))
    assert why_not(Invocation("h", ssh_options=(("W", "a:1"),)), _settings())
    assert why_not(Invocation("h"), replace(_settings(), log_level="DEBUG1"))
    assert not why_not(Invocation("h", share="yes"), replace(_settings(), log_level="DEBUG1"))


def test_any_setting_but_a_sessions_own_makes_another_connection() -> None:
    plain = digest(Invocation("h"), _settings(), {})
    assert digest(Invocation("h", command="ls"), _settings(requesttty="yes"), {}) == plain
    others = [
        digest(Invocation("h"), _settings(anythingnew="yes"), {}),
        digest(Invocation("h"), _settings(batchmode="yes"), {}),
        digest(Invocation("h", x11="native"), _settings(), {}),
        digest(Invocation("h"), _settings(), {"SSH_AUTH_SOCK": "/a"}),
        digest(Invocation("h"), _settings(), {"DISPLAY": ":0"}),
        digest(Invocation("h"), Settings("h", "host", "other", 22, {}), {}),
    ]
    assert [other[:12] == plain[:12] for other in others] == [True] * 5 + [False]
    assert len({plain, *others}) == 1 + len(others)


def test_what_makes_a_master() -> None:
    control = read_control({"controlmaster": ("auto",), "controlpath": ("/p",)})
    assert control.makes_master and not control.makes_lasting_master
    lasting = {"controlmaster": ("true",), "controlpath": ("/p",), "controlpersist": ("yes",)}
    assert read_control(lasting).makes_lasting_master
    assert not read_control({**lasting, "controlpath": ("none",)}).makes_master
    assert not read_control({**lasting, "controlmaster": ("false",)}).makes_master


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a question that only it refuses")
def test_a_peer_of_whom_the_system_has_no_word_stays_outside_alone(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.BytesIO()
    parts = SimpleNamespace(soundness=None, console=Console(stderr=said))
    path = str(short_directory / "m")

    async def knock() -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            return await asyncio.wait_for(reader.read(4), 5)
        finally:
            writer.close()

    async def use() -> None:
        master = Master(listen(path), cast("MasterContext", parts), lambda: None)
        with monkeypatch.context() as patched:  # Linux is asked as macOS is, and refuses
            patched.delattr("_socket.SO_PEERCRED")
            patched.setattr(sys, "platform", "darwin")
            assert (await knock(), await knock()) == (b"", b"")
        assert await knock()
        await master.close()

    asyncio.run(use())
    words = b"channel_post_mux_listener: getpeereid failed: "
    assert [line.startswith(words) for line in said.getvalue().splitlines()] == [True, True]


def test_a_master_ends_though_a_session_waits_for_a_reader_on_its_way_out(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xsshpy.mux.master._CLOSING_PATIENCE", 0.05)
    parts = SimpleNamespace(soundness=None, console=Console(stderr=io.BytesIO()))
    waits: list[str] = []

    async def carry() -> None:
        try:
            waits.append("server")
            await asyncio.Event().wait()
        finally:
            waits.append("reader")
            await asyncio.Event().wait()

    async def use() -> None:
        listener = listen(str(short_directory / "m"))
        master = Master(listener, cast("MasterContext", parts), lambda: None)
        task = master.spawn(carry())
        await asyncio.sleep(0)
        await asyncio.wait_for(master.close(), 20)
        assert task.cancelled()

    asyncio.run(use())
    assert waits == ["server", "reader"]


@pytest.mark.parametrize("mode", ["messages", "proxy"])
def test_a_peer_that_takes_nothing_is_waited_for_in_proxy_mode_alone(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr("xsshpy.mux.link.PATIENCE", 0.1)
    monkeypatch.setattr("xsshpy.mux.proxy.ChannelProxy", _FloodingProxy)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    connection = SimpleNamespace(watch_writing=lambda _: None, unwatch_writing=lambda _: None)
    session = SimpleNamespace(connection=connection)
    context = cast("MasterContext", SimpleNamespace(session=session, forwarder=None))

    async def use() -> int:
        loop, link = asyncio.get_running_loop(), Link(ours)
        if mode == "proxy":
            carrying = asyncio.create_task(carry_proxy(context, link))
            theirs.send(b"\0\0")  # a packet that is not whole
        else:
            link.post_bytes(bytes(_FLOOD))
            carrying = asyncio.create_task(asyncio.sleep(0))
        await asyncio.sleep(0.4)  # stopped, for longer than is waited
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while taken < _FLOOD and (data := await loop.sock_recv(theirs, 1 << 20)):
                taken += len(data)
        theirs.close()
        with contextlib.suppress(MuxProtocolError):
            await asyncio.wait_for(carrying, 20)
        await link.close()
        return taken

    assert (asyncio.run(use()) == _FLOOD) == (mode == "proxy")


_FLOOD = 1 << 20


class _FloodingProxy:
    """Has as much for its client at once as the client's windows allow."""

    def __init__(self, *arguments: object) -> None:
        *_, send, _ = arguments
        cast("Callable[[bytes], None]", send)(bytes(_FLOOD))

    def close(self) -> None:
        """Nothing is open."""


def test_no_process_has_the_number_that_a_master_tells() -> None:
    before = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        with Signals(0xFFFFFFFF):
            signal.raise_signal(signal.SIGWINCH)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_HANDLED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGWINCH, signal.SIGCONT),
)


def test_what_only_ssh_asks_a_master_is_named() -> None:
    for order in ("channels", "conninfo"):
        with pytest.raises(UsageError, match=f"-O {order} is not supported") as caught:
            decide_command(order, None)
        assert "ssh -O" in caught.value.remedy
    with pytest.raises(UsageError, match="Invalid multiplex command"):
        decide_command("nonsense", None)


def test_an_order_is_for_no_socket_in_anothers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer than one's own, and for the same account: anybody can work the name out."""
    folders = [tmp_path / "ours", tmp_path / "theirs"]
    own, newer = (
        folder / f"{digest(Invocation('h'), _settings(), {})[:12]}-x" for folder in folders
    )
    for path, age in ((own, 1000), (newer, 2000)):
        path.parent.mkdir()
        path.touch()
        os.utime(path, (age, age))
    looked_at = os.lstat

    def look(path: str) -> object:
        found = looked_at(path)
        others = os.path.samefile(path, folders[1])
        return SimpleNamespace(st_uid=found.st_uid + others, st_mtime_ns=found.st_mtime_ns)

    monkeypatch.setattr("xsshpy.mux.sharing._folders", lambda environ: map(str, folders))
    monkeypatch.setattr("xsshpy.mux.sharing.os.lstat", look)
    aimed = aim(Invocation("h", ssh_options=(("O", "exit"),)), _settings(), {})
    assert read_control(aimed.keywords).path == str(own)


def test_a_passenger_that_leaves_while_its_display_is_looked_for_begins_no_session() -> None:
    async def use() -> None:
        found = asyncio.Event()

        async def enter(tell: object) -> None:
            await found.wait()

        x11 = SimpleNamespace(enter=enter, settle=lambda tell: None, leave=lambda tell: None)
        context = SimpleNamespace(
            console=Console(stderr=io.BytesIO()),
            forwarder=SimpleNamespace(reserve_number=lambda: 1, release_number=lambda number: None),
            is_automatic=True,
            session=None,  # nothing is asked of the server
            x11=x11,
        )
        told: list[Reply] = []
        ride = SessionRide(
            cast("MasterContext", context),
            NewSession(1, want_x11=True),
            [os.open(os.devnull, os.O_RDWR) for _ in range(3)],
            told.append,
            lambda: None,
        )
        riding = asyncio.create_task(ride.run())
        await asyncio.sleep(0)
        ride.leave()
        await asyncio.sleep(0.1)  # its descriptors are closed by now
        found.set()
        await asyncio.wait_for(riding, 20)
        assert not told

    asyncio.run(use())
