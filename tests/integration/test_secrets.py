"""Where a secret may not show: a table of ways to use one, and of all that others could look at.

Looked at are the arguments and the environment of every process that a run starts, here and on the
server, what it says at -vvv, its log file, what the doctor prints, and every file it leaves. A
secret is looked for as it is, in hexadecimal and in base64, and so is each wrong guess: it may be
the right word elsewhere.
"""

from __future__ import annotations

import base64
import os
import shlex
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.agenthost import AgentHost
from tests.support.asyncserver import AsyncServer, Policy, Round
from tests.support.clients import ClientHome
from tests.support.processes import find_descendants, run, wait_until, xssh_command
from tests.support.sshd import KeyRing, generate_key
from tests.support.terminals import Terminal
from tests.support.xvfb import Xvfb

PASSWORD, NEW, ANSWER, PHRASE, GUESS = (
    f"{word}-7f_Qz31xK" for word in ("pass", "newer", "code", "phrase", "guess")
)
ASKED = (PASSWORD, NEW, ANSWER, PHRASE, GUESS)
NETCAT = Path(__file__).parent.parent / "support" / "netcat.py"
KEYED = "key"
"""In place of a policy's keys: the one that has a passphrase."""

BREAKS = """
import asyncssh.connection as c
def fail(self, *arguments, **named):
    raise RuntimeError("in the middle of it")
c.SSHConnection.send_userauth_packet = fail
c.SSHClientConnection.send_userauth_request = fail
"""
"""An error that nobody expects, with the answer at hand."""


def list_forms(secret: bytes) -> set[bytes]:
    """Return how a secret may look; base64 wherever in a longer text it begins."""
    forms = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + secret).rstrip(b"=")
        forms.add(text[4 if shift else 0 : -2])
    return forms


class Watch:
    """Everything that could be seen, by where."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness
        self.seen: dict[str, set[bytes]] = {}

    def add(self, where: str, content: bytes) -> None:
        if content:
            self.seen.setdefault(where, set()).add(content)

    def look_at_processes(self) -> None:
        for process in find_descendants(os.getpid()):
            for name in ("cmdline", "environ"):
                try:
                    content = Path(f"/proc/{process.pid}/{name}").read_bytes()
                except OSError:
                    continue
                self.add(f"{name} of {process.command}", content)

    def look_at_files(self, *folders: Path) -> None:
        for folder in folders:
            for path in folder.rglob("*"):
                if path.is_file():
                    self.add(str(path), path.read_bytes())

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look at processes again and again."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.005):
                self.look_at_processes()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self.add("a program that was run", self.witness.read_bytes())

    def find(self, *secrets: bytes | str) -> list[str]:
        """Return where any of the secrets can be seen."""
        raw = [each.encode() if isinstance(each, str) else each for each in secrets]
        forms = [form for each in raw for form in list_forms(each)]
        return sorted(
            {
                f"{where}: {form!r}"
                for where, contents in self.seen.items()
                for form in forms
                if any(form in content for content in contents)
            }
        )


@pytest.fixture
def watch(short_directory: Path) -> Watch:
    if not os.path.isdir("/proc/self"):
        pytest.skip("needs /proc")
    witness = short_directory / "witness"
    witness.touch()
    return Watch(witness)


def write_program(path: Path, witness: Path, then: str) -> Path:
    """Write a program that writes down its arguments and its environment first."""
    path.write_text(
        f"#!/bin/sh\n{{ env; tr '\\0' '\\n' </proc/$$/environ; printf '%s\\n' \"$0\" \"$@\"; }} "
        f">>{shlex.quote(str(witness))}\n{then}\n"
    )
    path.chmod(0o755)
    return path


@dataclass(frozen=True)
class Way:
    """A server's policy, what is answered in turn, and how the run ends."""

    policy: dict[str, object]
    answers: Sequence[str]
    status: int = 7
    words: tuple[str, ...] = ()
    before: str = ""
    reaches: tuple[str, ...] = ()
    """What the server has to have got: otherwise nothing is shown by this way."""
    more: dict[str, str] = field(default_factory=dict)


BY_PASSWORD: dict[str, object] = {"steps": (("password",),), "password": PASSWORD}
BY_QUESTIONS: dict[str, object] = {
    "steps": (("keyboard-interactive",),),
    "rounds": (Round((("Code: ", False), ("Name: ", True)), (ANSWER, NEW)),),
}
STAYING = ("-oControlMaster=yes", "-oControlPath=${TMPDIR}/control", "-oControlPersist=1")
WAYS = {
    "password": Way(BY_PASSWORD, [PASSWORD], reaches=(PASSWORD,)),
    "wrong passwords": Way(BY_PASSWORD, [GUESS] * 3, 255, reaches=(GUESS,)),
    "second password": Way(BY_PASSWORD, [GUESS, PASSWORD], reaches=(GUESS, PASSWORD)),
    "new password": Way(
        {**BY_PASSWORD, "expired": "It is old.", "new_password": NEW},
        [PASSWORD, PASSWORD, NEW, NEW],
        reaches=(PASSWORD, NEW),
    ),
    "answers": Way(BY_QUESTIONS, [ANSWER, NEW], reaches=(ANSWER, NEW)),
    "wrong answers": Way(BY_QUESTIONS, [GUESS, GUESS] * 3, 255, reaches=(GUESS,)),
    "passphrase": Way({"keys": KEYED}, [PHRASE]),
    "wrong passphrase": Way({"keys": KEYED}, [GUESS] * 3, 255),
    "passphrase, then password": Way(
        {**BY_PASSWORD, "keys": KEYED, "steps": (("publickey",), ("password",))},
        [PHRASE, PASSWORD],
        reaches=(PASSWORD,),
    ),
    "farewell": Way({**BY_PASSWORD, "farewell": "Not today."}, [PASSWORD], 255),
    "an error that nobody expects": Way(BY_PASSWORD, [PASSWORD], 255, before=BREAKS),
    "a master that stays": Way(BY_PASSWORD, [PASSWORD], words=STAYING, reaches=(PASSWORD,)),
    "doctor": Way(BY_PASSWORD, [PASSWORD] * 9, 1, ("--doctor", "--json"), reaches=(PASSWORD,)),
}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_key(tmp_path_factory.mktemp("locked") / "key", "ed25519", PHRASE)


class Place:
    """A server, and a configuration with every program that a run may start."""

    def __init__(
        self, way: Way, home: ClientHome, keys: KeyRing, locked: Path, directory: Path, watch: Watch
    ) -> None:
        policy = {
            **way.policy,
            **({"keys": (Path(f"{locked}.pub"),)} if "keys" in way.policy else {}),
        }
        host_key = keys.host_keys["ed25519"]
        self.server = AsyncServer(Policy(**policy), host_key, keys.client_key)  # type: ignore[arg-type]
        known = directory / "known"
        known.write_text(self.server.known_hosts_lines())
        witness = watch.witness
        proxy = write_program(
            directory / "proxy", witness, f'exec {sys.executable} {NETCAT} "$1" "$2"'
        )
        lister = write_program(directory / "lister", witness, f"cat {known}")
        local = write_program(directory / "local", witness, "")
        extra = (
            f"ProxyCommand {proxy} %h %p\nKnownHostsCommand {lister} %H\n"
            f"LocalCommand {local} %h\nPermitLocalCommand yes"
        )
        home.add(self.server, extra=extra)  # type: ignore[arg-type]
        text = home.config.read_text().replace(str(keys.client_key), str(locked))
        home.config.write_text(text)
        self.log = directory / "log"
        self.argv = [*xssh_command(way.before), *home.arguments, "-vvv", "-x", "-E", str(self.log)]
        self.argv += [*way.words, "server", "hi"]
        self.environment = home.environment()

    def answer(self, directory: Path, answers: Sequence[str], witness: Path) -> None:
        """Let an askpass program give the answers in turn."""
        for number, answer in enumerate(answers):
            (directory / f"answer{number}").write_text(f"{answer}\n")
        turn = directory / "turn"
        askpass = write_program(
            directory / "askpass",
            witness,
            f'echo >>{turn}; cat "{directory}/answer$(($(grep -c "" {turn}) - 1))"',
        )
        self.environment |= {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}


@pytest.mark.parametrize("name", sorted(WAYS))
def test_no_secret_is_seen(
    client_home: ClientHome,
    key_ring: KeyRing,
    locked: Path,
    short_directory: Path,
    watch: Watch,
    name: str,
) -> None:
    way = WAYS[name]
    place = Place(way, client_home, key_ring, locked, short_directory, watch)
    try:
        place.answer(short_directory, way.answers, watch.witness)
        with watch.looking():
            done = run(place.argv, env=place.environment, timeout=60)
            control = client_home.temporary / "control"
            wait_until(lambda: not control.exists(), what="the master's end")
    finally:
        place.server.stop()
    said = place.log.read_text() if place.log.exists() else ""
    assert done.status == way.status, f"{done}\n{said[-3000:]}"
    assert all(each in repr(place.server.log) for each in way.reaches), place.server.log
    assert watch.witness.read_text().count("askpass") > 0
    assert ("ControlPersist timeout expired" in said) is (way.words == STAYING)
    watch.add("stdout", done.stdout)
    watch.add("stderr", done.stderr.encode())
    watch.add("log", said.encode())
    watch.look_at_files(client_home.path, client_home.runtime, client_home.temporary)
    assert not watch.find(*ASKED)


def test_nothing_that_is_typed_is_seen(
    client_home: ClientHome,
    key_ring: KeyRing,
    locked: Path,
    short_directory: Path,
    watch: Watch,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    way = Way({**BY_PASSWORD, "keys": KEYED, "steps": (("publickey",), ("password",))}, [])
    place = Place(way, client_home, key_ring, locked, short_directory, watch)
    try:
        with watch.looking():
            terminal = spawn_in_pty(place.argv, env=place.environment)
            for wait, text in (("phrase", PHRASE), ("password", GUESS), ("password", PASSWORD)):
                terminal.read_until(f"{wait}.*: ")
                terminal.write(f"{text}\n")
            assert terminal.wait() == 7
    finally:
        place.server.stop()
    watch.add("terminal", terminal.output)
    watch.add("log", place.log.read_bytes())
    watch.look_at_files(client_home.path, client_home.runtime, client_home.temporary)
    assert not watch.find(*ASKED)


# Cookies

COOKIES = {
    "agent": ("--x11=agent", "--stats"),
    "native": ("--x11=native", "--stats"),
    "untrusted": ("-X", "-oForwardX11Trusted=no", "--x11=native"),
}


@pytest.mark.parametrize("name", sorted(COOKIES))
def test_no_cookie_is_seen(
    host: AgentHost, xvfb: Xvfb, watch: Watch, short_directory: Path, name: str
) -> None:
    """The real one goes nowhere; the session's own is in one file, for its user alone."""
    log = short_directory / "log"
    command = (
        'xauth list "$DISPLAY"; xdpyinfo >/dev/null; stat -c "%a %n" "${XAUTHORITY:-.Xauthority}"'
    )
    with watch.looking():
        done = host.run(command, *COOKIES[name], "-vvv", "-E", str(log))
    assert done.status == 0, done
    lines = done.stdout.decode().splitlines()
    given = bytes.fromhex(lines[0].split()[-1])
    assert given != xvfb.cookie and lines[-1].startswith("600 ")
    watch.add("stderr", done.stderr.encode())
    watch.add("log", log.read_bytes())
    watch.add("sshd's log", host.server.log().encode())
    watch.look_at_files(host.home.path, host.home.runtime, host.home.temporary)
    assert not watch.find(given)
    watch.add("stdout", done.stdout)
    watch.look_at_files(host.server.home, host.temporary)
    assert not watch.find(xvfb.cookie)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
