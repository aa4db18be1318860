"""One command line run by ssh and by xssh, and everything that could tell them apart.

A :class:`Case` is a line in a table: the words, the configuration, the input, the kind of server.
Both programs run one after the other in the same HOME, made anew for each, against the same
server, whose HOME is made anew too. Compared are status, stdout, stderr, the files on both sides
afterwards, and what the server was asked for and did, from its log.

Text of a case may hold ``@name@`` for what is known only when it runs: see ``Bench.places``.
"""

from __future__ import annotations

import difflib
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from tests.support.beside import alike
from tests.support.clients import ClientHome
from tests.support.processes import Completed, run, wait_until, xssh_command
from tests.support.sshd import KeyRing, ServerOptions, SshServer, free_port, generate_key
from tests.support.terminals import Terminal
from tests.support.tools import require_tool
from tests.support.xvfb import Xvfb

Step = tuple[str, str]
Normaliser = Callable[[str], str]
PROGRAMS = {"ssh": ["ssh"], "xssh": xssh_command()}
_DEADLINE = 40.0
_FREE_PORTS = ("free", "free2")
_QUESTIONS = ("password: ", r"\? ")
"""What the program itself asks; all else that is waited for comes from the other side."""


# How words on stderr are compared. What each leaves out is a difference that is meant.


def exact(text: str) -> str:
    """Every line; only the remedies below an error are xssh's own."""
    return alike(re.sub(r"^  try: .*\n", "", text, flags=re.MULTILINE))


def usage(text: str) -> str:
    """A usage error: the complaint, without ssh's list of options and without xssh's name."""
    text = re.sub(r"^usage: ssh.*\Z", "", exact(text), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^xssh: ", "", text, flags=re.MULTILINE)


def first_line(text: str) -> str:
    """What went wrong, without what followed from it."""
    return text.partition("\n")[0]


def any_words(text: str) -> str:
    """Whether something was said at all."""
    return "something" if text.strip() else ""


def x11_refusal(text: str) -> str:
    """Without what xssh says besides where X11 can't be had."""
    return re.sub(r"(X11 forwarding request failed( on channel 0)?): .*", r"\1", exact(text))


@dataclass(frozen=True)
class Case:
    """One line of the table.

    ``words``: what follows the program's name, ``-F FILE`` and ``-x``; a string is split as a
    shell would.
    ``server``: the kind of server, by its name among the variants. ``config``: lines before the
    block of Host ``server``, so they win. ``files``: more files in ~/.ssh. ``known``: what
    known_hosts holds. ``stdin``: what comes through a pipe. ``shell``: a bash script that runs the
    program as ``"$@"``. ``terminal``: what to wait for and what to type, in a terminal. ``bare``:
    neither, so that ~/.ssh/config and the system's file are read. ``x11``: there is a display, and
    no ``-x``. ``stderr``: how messages are compared. ``status``: what
    both have to end with, so that a case can't agree on a failure of its own making.
    """

    name: str
    words: str | Sequence[str]
    server: str = "default"
    config: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    known: str = "@known@"
    stdin: bytes = b""
    shell: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    terminal: Sequence[Step] | None = None
    bare: bool = False
    x11: bool = False
    stderr: Normaliser = exact
    status: int = 0


def split_words(case: Case) -> Sequence[str]:
    """Return a case's words one by one."""
    return shlex.split(case.words) if isinstance(case.words, str) else case.words


@dataclass(frozen=True)
class Variant:
    """One kind of server: fields of ``ServerOptions``, and what its HOME holds at first."""

    options: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


class Servers:
    """Servers of each kind, started when first asked for; ends with ``stop()``.

    ``keys`` is a directory with more keys, by name: ``locked`` has the passphrase "secret",
    ``certified`` a certificate of ``authority``; ``rsa`` and these are let in, ``other`` is not.
    """

    def __init__(
        self,
        directory: Path,
        ring: KeyRing,
        variants: Mapping[str, Variant],
        started: Callable[[int], object],
    ) -> None:
        self.ring = ring
        self.keys = directory / "keys"
        self._directory = directory
        self._variants = variants
        self._started = started
        self._running: dict[str, SshServer] = {}
        self._make_keys()

    def _make_keys(self) -> None:
        self.keys.mkdir()
        for name in ("other", "authority", "certified"):
            generate_key(self.keys / name)
        generate_key(self.keys / "rsa", "rsa")
        generate_key(self.keys / "locked", passphrase="secret")
        argv = ["ssh-keygen", "-q", "-s", "authority", "-I", "me", "-n", "demo", "certified.pub"]
        run(argv, cwd=self.keys)

    def get(self, name: str) -> SshServer:
        """Return the server of a kind, with a HOME as it was at first."""
        if name not in self._running:
            given = dict(self._variants[name].options)
            shell = str(given.get("shell", "bash"))
            given["shell"] = shell if shell.startswith("/") else require_tool(shell)
            options = ServerOptions(**given)  # type: ignore[arg-type]
            place = self._directory / re.sub(r"\W+", "-", name)
            server = SshServer(place, self.ring, options)
            for key in ("rsa", "locked"):
                server.authorize(self.keys / key, options.key_options)
            server.authorize(self.keys / "authority", "cert-authority")
            self._running[name] = server
            self._started(server.process.pid)
        server = self._running[name]
        empty(server.home)
        _write_files(server.home, self._variants[name].files)
        return server

    def stop(self) -> None:
        """End all of them."""
        for server in self._running.values():
            server.stop()


def empty(directory: Path) -> None:
    """Remove all that is in a directory."""
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _write_files(directory: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(text)
        path.chmod(0o700 if text.startswith("#!") else 0o600)


@dataclass(frozen=True)
class Outcome:
    """Everything by which a run can be told from another."""

    status: int
    stdout: bytes
    stderr: str
    local_files: Mapping[str, str]
    remote_files: Mapping[str, str]
    requests: Sequence[str]


_REQUESTS = re.compile(
    r"^(?:debug1: )?("
    r"server_input_channel_req: channel \d+ request (?!window-change|eow@|signal|env)\S+ reply \d"
    r"|server_input_global_request: rtype \S*(?:tcpip|streamlocal)\S* want_reply \d"
    r"|server_input_channel_open: ctype (?!session)\S+"
    r"|Starting session: .*? for \S+ from"
    r"|subsystem request for .*"
    r"|(?:Accepted|Failed) (?!none)\S+ for (?:invalid user )?.* from"
    r"|Invalid user .* from"
    r")",
    re.MULTILINE,
)


def read_requests(log: str) -> list[str]:
    """Return what an sshd's log (at DEBUG1) says it was asked for, and did, in no order."""
    found = [match.group(1) for match in _REQUESTS.finditer(log)]
    plain = (re.sub(r"(port|channel) \d+|pts/\d+", r"\1 N", line) for line in found)
    return sorted(plain)


def read_files(root: Path) -> dict[str, str]:
    """Return each file below a directory: its mode, and what is in it."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            found[str(path.relative_to(root))] = stat.filemode(mode)
            continue
        text = path.read_bytes().replace(b"\r\n", b"\n").decode(errors="backslashreplace")
        if path.name.startswith(".Xauthority"):
            text = ""  # cookies are random
        text = exact(re.sub(r"\|1\|\S+", "|1|…", text))  # so is the salt of a hashed name
        found[str(path.relative_to(root))] = f"{stat.filemode(mode)} {text}"
    return found


def describe_differences(
    ours: Outcome, theirs: Outcome, names: tuple[str, str] = ("xssh", "ssh")
) -> str:
    """Return a text that shows where xssh's outcome is not ssh's; empty where it is the same."""
    parts = []
    for each in fields(Outcome):
        found, expected = (getattr(outcome, each.name) for outcome in (ours, theirs))
        if found != expected:
            lines = difflib.unified_diff(
                _lines(expected), _lines(found), names[1], names[0], lineterm="", n=2
            )
            parts.append(f"{each.name}:\n" + "\n".join(list(lines)[:60]))
    return "\n".join(parts)


def _lines(value: object) -> list[str]:
    if isinstance(value, bytes):
        if len(value) > 20000:
            return [f"{len(value)} bytes, from {value[:60]!r} to {value[-60:]!r}"]
        return [repr(line) for line in value.splitlines(keepends=True)]
    if isinstance(value, str):
        return value.splitlines()
    if isinstance(value, Mapping):
        return [f"{name}: {text}" for name, text in value.items()]
    return [str(item) for item in value] if isinstance(value, Sequence) else [str(value)]


class Bench:
    """Where cases run: one HOME, made anew for each program; the servers are shared."""

    def __init__(self, home: ClientHome, servers: Servers, spawn: Callable[..., Terminal]) -> None:
        self._home = home
        self._servers = servers
        self._spawn = spawn
        self._ports: dict[str, str] = {}
        self.renew_ports()

    def renew_ports(self) -> None:
        """Have other free ports from now on."""
        self._ports = {name: str(free_port()) for name in _FREE_PORTS}

    def fill(self, text: str, server: SshServer) -> str:
        """Return a case's text with what ``@name@`` stands for."""
        return _filler(self.places(server))(text)

    def places(self, server: SshServer) -> dict[str, str]:
        """Return what ``@name@`` stands for.

        ``port`` is the server's, ``free`` and ``free2`` are nobody's. ``home`` is the client's
        HOME, ``ssh`` its .ssh, ``config`` its configuration; ``remote`` is the server's HOME.
        ``known`` are the host keys as known_hosts has them; ``ed25519``, ``rsa`` and ``ecdsa`` one
        each without a name; ``wrong`` is another server's. ``key`` is the path of the private key
        that is let in, ``keys`` the directory of the others (see ``Servers``).
        """
        publics = {
            kind: " ".join(Path(f"{path}.pub").read_text().split()[:2])
            for kind, path in self._servers.ring.host_keys.items()
        }
        return {
            **self._ports,
            **publics,
            "port": str(server.port),
            "home": str(self._home.path),
            "ssh": str(self._home.ssh),
            "config": str(self._home.config),
            "remote": str(server.home),
            "key": server.client_key,
            "keys": str(self._servers.keys),
            "known": server.known_hosts_lines(),
            "wrong": " ".join((self._servers.keys / "other.pub").read_text().split()[:2]),
        }

    def compare(self, case: Case, xvfb: Xvfb | None = None) -> None:
        """Run a case by both programs. AssertionError where they differ."""
        theirs, ours = (self._run(program, case, xvfb) for program in PROGRAMS)
        differences = describe_differences(ours, theirs)
        assert not differences, f"{case.name}: {case.words}\n{differences}"
        assert ours.status == case.status, f"both ended with {ours.status}:\n{ours}"

    def _run(self, program: str, case: Case, xvfb: Xvfb | None) -> Outcome:
        server = self._servers.get(case.server)
        fill = _filler(self.places(server))
        self._furnish(case, server, fill)
        begin = len(server.log())
        argv = [*PROGRAMS[program], *self._first_words(case), *map(fill, split_words(case))]
        if case.shell:
            argv = ["bash", "-c", fill(case.shell), "bash", *argv]
        given = {name: fill(text) for name, text in case.env.items()}
        # What is compared is how X11 is asked of the server, as ssh asks; the agent asks nothing.
        env = self._home.environment(xvfb, XSSH_X11="native", **given)
        if case.terminal is None:
            done = run(argv, stdin=case.stdin, env=env, cwd=self._home.path, timeout=_DEADLINE)
        else:
            done = self._converse(argv, env, [(fill(a), fill(b)) for a, b in case.terminal])
        self._settle(server)
        return Outcome(
            done.status,
            done.stdout,
            case.stderr(done.stderr.replace("\r", "")),
            read_files(self._home.path),
            read_files(server.home),
            read_requests(server.log()[begin:]),
        )

    def _first_words(self, case: Case) -> list[str]:
        """Return what goes before a case's own words."""
        if case.bare:
            return []
        return [*self._home.arguments, *([] if case.x11 else ["-x"])]

    def _settle(self, server: SshServer) -> None:
        """Wait until nothing of the run is left on the server."""
        server.wait_until_idle()

    def _converse(
        self, argv: list[str], env: Mapping[str, str], steps: Sequence[Step]
    ) -> Completed:
        """Run in a terminal. What it shows counts as stderr: messages stand among it."""
        terminal = self._spawn(argv, env=env, cwd=self._home.path)
        for wait, answer in steps:
            terminal.read_until(wait)
            if wait not in _QUESTIONS:
                # The first output may overtake it: a key pressed before is this terminal's.
                wait_until(lambda: terminal.is_raw, what="a terminal that hands over each key")
            terminal.write(answer)
        status = terminal.wait()
        assert terminal.is_restored
        shown = terminal.output.decode(errors="backslashreplace")
        terminal.close()
        return Completed(status, b"", shown)

    def _furnish(self, case: Case, server: SshServer, fill: Normaliser) -> None:
        """Make the client's HOME as it is before any run."""
        home = self._home
        empty(home.path)
        home.ssh.mkdir(mode=0o700)
        extra = "ForwardX11 no" if case.bare else ""
        block = server.config_text("server", known_hosts=home.known_hosts, extra=extra)
        config = f"{case.config}\n{block}"
        files = {"known_hosts": case.known, "config": config, **case.files}
        _write_files(home.ssh, {name: fill(text) for name, text in files.items()})


def _filler(places: Mapping[str, str]) -> Normaliser:
    names = re.compile("@(" + "|".join(places) + ")@")
    return lambda text: names.sub(lambda match: places[match.group(1)], text)
