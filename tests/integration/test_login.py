"""Logging in: what is offered, asked, said and sent, held against the ssh of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.agents import Agent
from tests.support.asyncserver import AsyncServer, Policy, Round
from tests.support.beside import Beside, Step, write_askpass
from tests.support.clients import ClientHome
from tests.support.processes import run_xssh, wait_until
from tests.support.sshd import KeyRing, SshServer, generate_key
from tests.support.terminals import Terminal
from tests.support.tools import require_tool

MakeLogin = Callable[..., Beside]
ASKED = "password: "
CHANGE = [("old ", "p\n"), ("new ", "q\n"), ("Retype", "q\n")]
CODE = Round((("Code: ", False),), ("123",))


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Client keys of every kind; the passphrase is ``secret``; ``ca`` certifies some for demo."""
    directory = tmp_path_factory.mktemp("client-keys")
    kinds = {"ed": "ed25519", "rsa": "rsa", "ec": "ecdsa", "other": "ed25519", "ca": "ed25519"}
    for name, kind in kinds.items():
        generate_key(directory / name, kind)
    generate_key(directory / "locked", "ed25519", "secret")
    generate_key(directory / "pem", "rsa")
    keygen = require_tool("ssh-keygen")
    to_pem = [keygen, "-q", "-p", "-m", "PEM", "-P", "", "-N", "secret", "-f", directory / "pem"]
    subprocess.run(to_pem, check=True, stdout=subprocess.DEVNULL)
    for name in ("ed", "rsa", "locked"):
        certify(directory, name)
    return directory


def certify(directory: Path, name: str, *options: str) -> None:
    words = ["-I", "me", "-n", "demo", "-V", "-5m:+1h", *options, directory / f"{name}.pub"]
    subprocess.run(["ssh-keygen", "-q", "-s", directory / "ca", *words], check=True)


@pytest.fixture
def make_login(
    client_home: ClientHome, key_ring: KeyRing, spawn_in_pty: Callable[..., Terminal]
) -> Iterator[MakeLogin]:
    """Start a server of one's own rules: the fields of Policy, and ``extra`` for ssh_config."""
    require_tool("ssh")
    servers: list[AsyncServer] = []

    def make(extra: str = "", **policy: object) -> Beside:
        host_key = key_ring.host_keys["ed25519"]
        server = AsyncServer(Policy(**policy), host_key, key_ring.client_key)  # type: ignore[arg-type]
        servers.append(server)
        return Beside(client_home, server, spawn_in_pty, extra=extra)

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def keyed(make_login: MakeLogin, keys: Path) -> Beside:
    """A server that takes only the key ``other``; the configuration names no key."""
    login = make_login(keys=(keys / "other.pub",), most_tries=50)
    login.forget_keys()
    return login


@pytest.fixture
def agent(short_directory: Path) -> Iterator[str]:
    """An empty agent; its socket."""
    with Agent(short_directory / "agent") as running:
        yield running.path


def add_to_agent(agent: str, *paths: Path) -> None:
    run_env = {**os.environ, "SSH_AUTH_SOCK": agent}
    for path in paths:
        subprocess.run(["ssh-add", "-q", str(path)], env=run_env, check=True)


def identities(keys: Path, *names: str) -> list[str]:
    return [word for name in names for word in ("-i", str(keys / name))]


# Which keys, in which order


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ("rsa ed ec other", []),
        ("other other", []),
        ("ec", ["-oIdentityFile=/nonexistent"]),
        ("rsa ec other", ["-oPubkeyAcceptedAlgorithms=ssh-ed25519"]),
        ("rsa ec other", ["-oPubkeyAcceptedAlgorithms=rsa-sha2-256"]),
        ("rsa ed other", ["-oPubkeyAcceptedAlgorithms=-*-cert-v01@openssh.com"]),
        ("other", ["-oPubkeyAcceptedAlgorithms=sk-ssh-ed25519@openssh.com"]),
        ("other", ["-oPubkeyAuthentication=no"]),
        ("other", ["-oPreferredAuthentications=password,unheard-of"]),
        ("locked pem other", ["-oBatchMode=yes"]),
        ("locked pem other", []),
        ("ec other", ["-oCertificateFile={keys}/ed-cert.pub"]),
        ("ed", ["-oCertificateFile={keys}/rsa-cert.pub"]),
        ("ec other", ["-oCertificateFile=/nonexistent"]),
    ],
)
def test_keys_are_offered_as_ssh_offers_them(
    keyed: Beside, keys: Path, names: str, options: list[str]
) -> None:
    words = [option.format(keys=keys) for option in options]
    keyed.both(*identities(keys, *names.split()), *words, "server", "hi")


def test_a_missing_key_is_passed_over_with_a_word(keyed: Beside, keys: Path) -> None:
    done = keyed.both("-oIdentityFile=/nonexistent", *identities(keys, "other"), "server", "hi")
    assert done.stdout == b"hi\n"
    assert "no such identity: /nonexistent: No such file or directory" in done.stderr


def test_a_key_that_others_can_read_is_refused(keyed: Beside, keys: Path) -> None:
    opened = keyed.home.path / "open"
    shutil.copy(keys / "other", opened)
    opened.chmod(0o644)
    done = keyed.both("-i", str(opened), "server", "hi")
    assert done.status == 255 and "bad permissions" in done.stderr


@pytest.mark.parametrize("content", ["", "garbage\n", "cut", "loop", "directory"])
def test_what_is_no_key_is_passed_over(keyed: Beside, keys: Path, content: str) -> None:
    path = keyed.home.path / "key"
    if content == "loop":
        path.symlink_to(path)
    elif content == "directory":
        path.mkdir(mode=0o700)
    else:
        text = (keys / "ed").read_text()[:150] + "\n" if content == "cut" else content
        path.write_text(text)
        path.chmod(0o600)
    words = [f"-oIdentityFile={path}", *identities(keys, "other"), "server", "hi"]
    for program in ("ssh", "xssh"):
        done = keyed.run(program, *words)
        assert (done.status, done.stdout) == (7, b"hi\n"), done
        assert str(path) in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("private", ["ec", "ed"])
def test_the_public_file_is_believed_before_the_private_one(
    keyed: Beside, keys: Path, private: str
) -> None:
    path = keyed.home.path / "id"
    shutil.copy(keys / private, path)
    shutil.copy(keys / "other.pub", f"{path}.pub")
    done = keyed.both("-i", str(path), "server", "hi")
    assert "contents do not match public" in done.stderr


def test_stderr_of_a_login_by_key_is_empty(sshd: SshServer, client_home: ClientHome) -> None:
    client_home.add(sshd)
    argv = [*client_home.arguments, "-x", "server", "echo hi"]
    assert run_xssh(argv, env=client_home.environment()) == (0, b"hi\n", "")


@pytest.mark.parametrize("kind", ["rsa", "ec", "ed"])
def test_sshd_takes_each_kind_of_key(
    sshd: SshServer,
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    keys: Path,
    kind: str,
) -> None:
    sshd.authorize(keys / kind)
    login = Beside(client_home, sshd, spawn_in_pty)
    login.forget_keys()
    done = login.both(*identities(keys, kind), "server", "echo hi")
    assert done == (0, b"hi\n", "")


# Certificates


@pytest.mark.parametrize("kind", ["rsa", "ed"])
@pytest.mark.parametrize("where", ["beside", "named", "agent"])
def test_sshd_takes_a_certificate(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    keys: Path,
    agent: str,
    kind: str,
    where: str,
) -> None:
    server = make_sshd(config=f"TrustedUserCAKeys {keys / 'ca.pub'}")
    login = Beside(client_home, server, spawn_in_pty)
    login.forget_keys()
    words = identities(keys, kind)
    if where != "beside":
        private = client_home.path / "private"
        shutil.copy(keys / kind, private)
        words = ["-i", str(private), f"-oCertificateFile={keys / kind}-cert.pub"]
        if where == "agent":
            add_to_agent(agent, private)
            private.unlink()
            words = [f"-oIdentityAgent={agent}", *words[2:]]
    done = login.both(*words, "server", "echo hi")
    assert done == (0, b"hi\n", "")
    assert re.search("Accepted publickey for demo .*-CERT SHA256:.* ID me", server.log())


def test_the_key_of_a_certificate_is_unlocked(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    keys: Path,
) -> None:
    server = make_sshd(config=f"TrustedUserCAKeys {keys / 'ca.pub'}")
    login = Beside(client_home, server, spawn_in_pty)
    login.forget_keys()
    words = [*identities(keys, "locked"), "server", "echo hi"]
    login.converse_both(words, [("Enter passphrase for key '.*locked': ", "secret\n")])


# The agent


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ("ec rsa ed other", []),
        ("ec rsa ed other", ["-i", "{keys}/ed"]),
        ("ec ed other", ["-i", "{keys}/ed", "-oIdentitiesOnly=yes"]),
        ("ec other", ["-i", "{keys}/other.pub", "-oIdentitiesOnly=yes"]),
        ("ed other", ["-oPubkeyAcceptedAlgorithms=ssh-ed25519"]),
        ("other", ["-oIdentityAgent=none"]),
        ("other", ["-oIdentityAgent=/nonexistent", "-i", "{keys}/other"]),
        ("other", ["-oIdentityAgent=$NOWHERE"]),
    ],
)
def test_the_agents_keys_are_offered_as_ssh_offers_them(
    keyed: Beside, keys: Path, agent: str, held: str, words: list[str]
) -> None:
    add_to_agent(agent, *(keys / name for name in held.split()))
    keyed.variables["SSH_AUTH_SOCK"] = agent
    keyed.both(*(word.format(keys=keys) for word in words), "server", "hi")


@pytest.mark.parametrize("value", ["{agent}", "$MY_AGENT", "${{MY_AGENT}}", "SSH_AUTH_SOCK"])
def test_identity_agent_names_the_socket(keyed: Beside, keys: Path, agent: str, value: str) -> None:
    add_to_agent(agent, keys / "other")
    keyed.variables["MY_AGENT"] = agent
    if value == "SSH_AUTH_SOCK":
        keyed.variables["SSH_AUTH_SOCK"] = agent
    done = keyed.both(f"-oIdentityAgent={value.format(agent=agent)}", "server", "hi")
    assert done.stdout == b"hi\n"


def test_an_agent_that_hangs_up_is_passed_over(
    keyed: Beside, keys: Path, short_directory: Path
) -> None:
    path = short_directory / "dead"
    path.touch()
    keyed.variables["SSH_AUTH_SOCK"] = str(path)
    assert keyed.both(*identities(keys, "other"), "server", "hi").stdout == b"hi\n"


# Passphrases


@pytest.mark.parametrize("key", ["locked", "pem"])
@pytest.mark.parametrize("answers", [["secret"], ["wrong", "secret"], ["wrong"] * 3, [""]])
def test_a_passphrase_is_asked_for_on_the_terminal(
    make_login: MakeLogin, keys: Path, key: str, answers: list[str]
) -> None:
    login = make_login(keys=(keys / f"{key}.pub",))
    login.forget_keys()
    steps = [(f"Enter passphrase for key '{keys / key}': ", f"{answer}\n") for answer in answers]
    terminal = login.converse_both([*identities(keys, key), "server", "hi"], steps)
    assert terminal.process.returncode == (7 if answers[-1] == "secret" else 255)


def test_no_passphrase_is_asked_for_a_key_that_is_not_wanted(keyed: Beside, keys: Path) -> None:
    terminal = keyed.converse_both([*identities(keys, "locked", "other"), "server", "hi"], [])
    assert b"passphrase" not in terminal.output


# Passwords


@pytest.mark.parametrize("wrong", [0, 1, 2, 3])
def test_a_password_has_three_tries(make_login: MakeLogin, wrong: int) -> None:
    login = make_login(steps=(("password",),), password="right")
    steps = [(ASKED, "wrong\n")] * wrong + ([(ASKED, "right\n")] if wrong < 3 else [])
    terminal = login.converse_both(["server", "hi"], steps)
    assert terminal.process.returncode == (255 if wrong == 3 else 7)
    if wrong == 3:
        assert b"demo@127.0.0.1: Permission denied (password).\r\n" in terminal.output


@pytest.mark.parametrize(
    "words",
    [
        ["-oNumberOfPasswordPrompts=1"],
        ["-oHostKeyAlias=nickname", "-oUserKnownHostsFile=/dev/null", "-oStrictHostKeyChecking=no"],
        ["-l", "someone-with-a-name-of-more-than-thirty-letters"],
    ],
)
def test_the_prompt_is_that_of_ssh(make_login: MakeLogin, words: list[str]) -> None:
    login = make_login(steps=(("password", "keyboard-interactive"),), rounds=(CODE,))
    for method in ("password", "keyboard-interactive"):
        number = 1 if "-oNumberOfPasswordPrompts=1" in words else 3
        options = [f"-oPreferredAuthentications={method}", *words]
        login.converse_both([*options, "server", "hi"], [("(word|Code): ", "x\n")] * number)


def test_an_empty_password_and_end_of_input_are_answers(make_login: MakeLogin) -> None:
    login = make_login(steps=(("password",),), password="right")
    login.converse_both(["server", "hi"], [(ASKED, "\n"), (ASKED, "\x04"), (ASKED, "right\n")])


def test_a_password_is_sent_as_its_bytes(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    secret = b"gr\xfcn\xff \xc3\xa4"
    hashed = subprocess.run(
        [require_tool("openssl"), "passwd", "-6", "-stdin"], input=secret + b"\n",
        capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    server = make_sshd(password_hash=hashed)
    login = Beside(client_home, server, spawn_in_pty)
    words = ["-oPubkeyAuthentication=no", "server", "echo in"]
    terminal = login.converse_both(words, [(ASKED, secret + b"\n")])
    assert b"in\r\n" in terminal.output


def test_prompts_leave_stdin_and_stdout_alone(make_login: MakeLogin) -> None:
    """With data piped in and out, the question and its answer still use the terminal."""
    login = make_login(steps=(("password",),), password="right")
    data = bytes(range(256)) * 2000
    given, taken = login.home.path / "given", login.home.path / "taken"
    given.write_bytes(data)
    script = f'"$@" < {given} > {taken} 2> {taken}.err'
    for program in ("ssh", "xssh"):
        argv = ["sh", "-c", script, "sh", *login.argv(program, ["server", "cat"])]
        terminal = login._spawn(argv, env=login.environment())
        terminal.read_until("demo@127.0.0.1's password: ")
        wait_until(lambda seen=terminal: not seen.echo, what="echo to be off")
        terminal.write("right\n")
        assert terminal.wait() == 0
        assert taken.read_bytes() == data
        assert Path(f"{taken}.err").read_text() == ""


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
@pytest.mark.parametrize(("key", "signal"), [("\x03", -2), ("\x1c", -3)])
def test_a_signal_at_a_prompt_ends_the_run_and_restores_the_echo(
    make_login: MakeLogin, method: str, key: str, signal: int
) -> None:
    login = make_login(steps=((method,),), rounds=(CODE,))
    for program in ("ssh", "xssh"):
        terminal = login.converse(program, ["server", "hi"], [], status=False)
        terminal.read_until(": ")
        wait_until(lambda seen=terminal: not seen.echo, what="echo to be off")
        time.sleep(0.1)
        terminal.write(key)
        assert terminal.wait() == signal
        assert terminal.is_restored


@pytest.mark.parametrize(
    "steps",
    [
        CHANGE,
        [("old ", "p\n"), ("new ", "q\n"), ("Retype", "r\n"), ("new ", "q\n"), ("Retype", "q\n")],
        [("old ", "x\n"), *CHANGE[1:], *CHANGE],
    ],
)
def test_an_expired_password_is_changed(make_login: MakeLogin, steps: list[Step]) -> None:
    login = make_login(
        steps=(("password",),), password="p", expired="Expired\x1b[2J", new_password="q"
    )
    full = [(f"{wait}.*{ASKED}", answer) for wait, answer in steps]
    terminal = login.converse_both(["server", "hi"], [(ASKED, "p\n"), *full])
    assert terminal.process.returncode == 7
    assert b"\x1b" not in terminal.output


def test_a_password_that_is_not_changed_is_no_login(make_login: MakeLogin) -> None:
    login = make_login(steps=(("password",),), password="p", expired="Expired")
    steps = [(ASKED, "p\n"), (ASKED, "p\n"), ("new password: ", "\x04")]
    terminal = login.converse("xssh", ["server", "hi"], steps)
    assert terminal.process.returncode == 255
    assert b"Permission denied (password)." in terminal.output


# Keyboard-interactive, and several steps


def test_several_rounds_and_prompts(make_login: MakeLogin) -> None:
    rounds = (
        Round((("Password: ", False), ("Name: ", True)), ("a", "b"), "Title", "Do\x1b[31m this\n"),
        Round(instruction="Nearly there"),
        CODE,
    )
    login = make_login(steps=(("keyboard-interactive",),), rounds=rounds)
    steps = [(r"Password: ", "a\n"), ("Name: ", "b\n"), ("Code: ", "123\n")]
    terminal = login.converse_both(["server", "hi"], steps)
    assert terminal.process.returncode == 7
    assert b"Name: b" in terminal.output, "an echoed answer is shown"
    assert b"Password: a" not in terminal.output
    assert b"\x1b" not in terminal.output
    wrong = [(r"Password: ", "a\n"), ("Name: ", "c\n")]
    assert login.converse_both(["server", "hi"], wrong * 3).process.returncode == 255


def test_a_method_that_asks_nothing_is_tried_once(make_login: MakeLogin) -> None:
    login = make_login(
        steps=(("keyboard-interactive", "password"),), silent_interactive=True, password="right"
    )
    login.converse_both(["server", "hi"], [(ASKED, "right\n")])


@pytest.mark.parametrize(
    ("policy", "steps"),
    [
        ((("publickey",), ("keyboard-interactive",)), [("Code: ", "123\n")]),
        ((("publickey",), ("password",), ("keyboard-interactive",)),
         [(ASKED, "p\n"), ("Code: ", "123\n")]),
        ((("publickey",), ("keyboard-interactive", "password")),
         [("Code: ", "1\n")] * 3 + [(ASKED, "p\n")]),
        ((("publickey",), ("publickey", "password")), []),
        ((("password",), ("publickey",)), [(ASKED, "p\n")]),
    ],
)  # fmt: skip
def test_a_login_of_several_steps(
    make_login: MakeLogin,
    key_ring: KeyRing,
    policy: tuple[tuple[str, ...], ...],
    steps: list[Step],
) -> None:
    public = Path(f"{key_ring.client_key}.pub")
    login = make_login(steps=policy, keys=(public,), password="p", rounds=(CODE,))
    terminal = login.converse_both(["server", "hi"], steps)
    assert terminal.process.returncode == 7


def test_sshd_wants_two_methods(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    hashed = subprocess.run(
        [require_tool("openssl"), "passwd", "-6", "right"], capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    server = make_sshd(password_hash=hashed, config="AuthenticationMethods publickey,password")
    login = Beside(client_home, server, spawn_in_pty)
    login.converse_both(["server", "echo in"], [(ASKED, "wrong\n"), (ASKED, "right\n")])
    assert login.both("-oBatchMode=yes", "server", "echo in").status == 255


# What is allowed, and how it ends


@pytest.mark.parametrize(
    "words",
    [
        ["-oBatchMode=yes"],
        ["-oPasswordAuthentication=no"],
        ["-oPasswordAuthentication=no", "-oKbdInteractiveAuthentication=no"],
        ["-oPreferredAuthentications=keyboard-interactive"],
        ["-oPreferredAuthentications=password", "-oPasswordAuthentication=no"],
        ["-oPreferredAuthentications=publickey"],
        ["-oPreferredAuthentications=none"],
        ["-oPreferredAuthentications=,"],
    ],
)
def test_only_what_is_allowed_is_tried(make_login: MakeLogin, words: list[str]) -> None:
    methods = ("publickey", "password", "keyboard-interactive")
    login = make_login(steps=(methods,), silent_interactive=True)
    done = login.both("-oNumberOfPasswordPrompts=1", *words, "server", "hi")
    offered = "publickey,keyboard-interactive,password"
    assert done.status == 255
    assert f"demo@127.0.0.1: Permission denied ({offered})." in done.stderr
    assert "\n  try: " in done.stderr


@pytest.mark.parametrize("keyword", ["PasswordAuthentication", "KbdInteractiveAuthentication"])
def test_nobody_is_asked_where_it_may_not_be(make_login: MakeLogin, keyword: str) -> None:
    method = "password" if keyword.startswith("Pass") else "keyboard-interactive"
    login = make_login(steps=((method,),), rounds=(CODE,))
    login.converse_both([f"-o{keyword}=no", "server", "hi"], [])


def test_the_order_is_the_preferred_one(make_login: MakeLogin, key_ring: KeyRing) -> None:
    login = make_login(steps=(("publickey", "password"),), password="right", most_tries=9)
    words = ["-oPreferredAuthentications=password,publickey", "server", "hi"]
    login.converse_both(words, [(ASKED, "wrong\n")] * 3)


@pytest.mark.parametrize("banner", ["Hello\n", "no end of line", "\x1b[2J\x07\x9b5m\r\n", "\n" * 5])
def test_a_banner_is_shown_without_its_commands(
    make_login: MakeLogin, key_ring: KeyRing, banner: str
) -> None:
    login = make_login(keys=(Path(f"{key_ring.client_key}.pub"),), banner=banner)
    for program in ("ssh", "xssh"):
        done = login.run(program, "server", "hi")
        assert done.status == 7
        assert not set(done.stderr) & set("\x1b\x07\x9b")
    if "\x9b" not in banner:
        login.both("server", "hi")
        assert login.both("-q", "server", "hi").stderr == ""


def test_the_servers_farewell_is_quoted(make_login: MakeLogin) -> None:
    login = make_login(farewell="not \x1b[31myou")
    done = login.both("server", "hi")
    assert done.status == 255
    assert f"Received disconnect from 127.0.0.1 port {login.server.port}:14: not" in done.stderr


def test_too_many_keys(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    keys: Path,
) -> None:
    login = Beside(client_home, make_sshd(config="MaxAuthTries 2"), spawn_in_pty)
    login.forget_keys()
    done = login.both(*identities(keys, "ec", "other", "locked"), "server", "echo hi")
    assert done.status == 255
    assert "Too many authentication failures" in done.stderr
    assert "IdentitiesOnly" in done.stderr


def test_without_a_terminal_nobody_is_asked(make_login: MakeLogin) -> None:
    """ssh sends an empty password three times instead, which can lock an account."""
    login = make_login(steps=(("password",),), password="right")
    done = login.run("xssh", "server", "hi")
    assert done.status == 255
    assert done.stderr.startswith("demo@127.0.0.1: Permission denied (password).\n  try: ")
    assert login.server.passwords() == []  # type: ignore[union-attr]


# SSH_ASKPASS


@pytest.mark.parametrize(
    ("require", "display", "terminal"),
    [("force", "", True), ("prefer", ":9", True), ("prefer", "", False), ("force", "", False),
     ("", ":9", False)],
)  # fmt: skip
def test_askpass_answers(make_login: MakeLogin, require: str, display: str, terminal: bool) -> None:
    rounds = (Round((("Code: ", False), ("Name: ", True)), ("1 2", "me")),)
    login = make_login(steps=(("password",), ("keyboard-interactive",)), password="right",
                       rounds=rounds)  # fmt: skip
    if (require, display) == ("prefer", ""):
        display = ":9"
    for program in ("ssh", "xssh"):
        answers = ["wrong", "right", "1 2", "me"]
        askpass, record = write_askpass(login.home.path, answers)
        login.variables.update(
            SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE=require, DISPLAY=display
        )
        words = ["server", "hi"]
        if terminal:
            seen = login.converse(program, words, [])
            assert seen.process.returncode == 7
            assert ASKED.encode() not in seen.output
        else:
            assert login.run(program, *words).stdout == b"hi\n"
        asked = ["demo@127.0.0.1's password: "] * 2
        asked += ["(demo@127.0.0.1) Code: ", "(demo@127.0.0.1) Name: "]
        assert record.read_text().splitlines() == asked
        record.unlink()
        (login.home.path / "turn").unlink()


def test_askpass_is_not_asked_where_it_may_not_be(make_login: MakeLogin) -> None:
    login = make_login(steps=(("password",),), password="right")
    askpass, record = write_askpass(login.home.path, ["right"])
    login.variables.update(SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="never", DISPLAY=":9")
    login.converse_both(["server", "hi"], [(ASKED, "right\n")])
    assert login.run("xssh", "server", "hi").status == 255
    assert not record.exists()


def test_askpass_unlocks_a_key(make_login: MakeLogin, keys: Path) -> None:
    login = make_login(keys=(keys / "locked.pub",))
    login.forget_keys()
    askpass, record = write_askpass(login.home.path, ["wrong", "secret"])
    login.variables.update(SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    done = login.run("xssh", *identities(keys, "locked"), "server", "hi")
    assert (done.status, done.stdout, done.stderr) == (7, b"hi\n", "")
    question = f"Enter passphrase for key '{keys / 'locked'}': "
    assert record.read_text().splitlines() == [question] * 2


def test_an_askpass_that_is_not_there(make_login: MakeLogin) -> None:
    login = make_login(steps=(("password",),))
    login.variables.update(SSH_ASKPASS="/nonexistent/askpass", SSH_ASKPASS_REQUIRE="force")
    done = login.run("xssh", "server", "hi")
    assert done.status == 255
    assert "ssh_askpass: exec(/nonexistent/askpass): No such file or directory" in done.stderr
    assert "Permission denied (password)." in done.stderr
