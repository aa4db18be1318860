"""MPLBACKEND, motd and the command line on the other side where a display was granted, and not."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.integration._pairs import PROGRAMS, Pair
from tests.support.clients import ClientHome
from tests.support.processes import Completed, run
from tests.support.sshd import SHELLS, SshServer
from tests.support.terminals import Terminal
from tests.support.xvfb import Xvfb

MakeServer = Callable[..., SshServer]

# Each is typed as one word; every shell has its own way with it, and xssh must not add another.
COMMANDS = [
    "printf '%s|' 'a b' \"c d\" e\\ f; echo 'it'\"'\"'s' `echo b` '$HOME' \"\\$\" '#' '~' ~",
    "echo a; echo b && echo c || echo d | tr a-z A-Z; cd / ; pwd; echo x > /dev/null; exit 7",
    "no-such-program-at-all",
    "# only a comment",
    "echo first\necho second 'žluťoučký 🎉' '!'",
    " true && sh -c 'echo inner \"$0\" $1' x 'y z' ",
]


def display_pair(server: SshServer, home: ClientHome, extra: str = "ForwardX11Trusted yes") -> Pair:
    # xauth says so on stderr when it makes this file.
    (server.home / ".Xauthority").touch(mode=0o600)
    home.add(server, extra=extra)
    return Pair(server, home)


def both_with_display(pair: Pair, words: list[str], xvfb: Xvfb) -> tuple[Completed, Completed]:
    """Run ssh -Y and xssh with a display; return ssh's result and xssh's."""
    environment = pair.home.environment(xvfb)
    expected = pair.run("ssh", ["-Y", *words], env=environment)
    return expected, pair.run("xssh", words, env=environment)


@pytest.mark.parametrize("shell", SHELLS)
def test_command_means_the_same_with_a_backend_before_it(
    shell: str, make_sshd: MakeServer, client_home: ClientHome, xvfb: Xvfb
) -> None:
    server = make_sshd(shell=shell)
    pair = display_pair(server, client_home)
    for command in COMMANDS:
        expected, found = both_with_display(pair, ["server", command], xvfb)
        if shell == "fish":  # it shows the whole line with a mistake in it
            expected, found = expected._replace(stderr=""), found._replace(stderr="")
        assert found == expected, (command, found, expected)
    show = "sh -c 'echo \"$MPLBACKEND ${DISPLAY:+set}\"'"
    expected, found = both_with_display(pair, ["server", show], xvfb)
    assert (expected.stdout, found.stdout) == (b" set\n", b"TkAgg set\n")


@pytest.mark.parametrize("shell", SHELLS)
def test_login_shell_has_the_backend_and_the_greeting(
    shell: str,
    make_sshd: MakeServer,
    client_home: ClientHome,
    xvfb: Xvfb,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    server = make_sshd(shell=shell, config="PrintMotd yes\nPrintLastLog yes")
    for name in (".zshrc", ".zprofile"):
        (server.home / name).touch()
    (server.home / ".login").write_text("setenv LOGIN_FILE read\n")
    for name in (".profile", ".bash_profile", ".zlogin"):
        (server.home / name).write_text("export LOGIN_FILE=read\n")
    fish = server.home / ".config" / "fish"
    fish.mkdir(parents=True)
    (fish / "config.fish").write_text("status is-login; and set -gx LOGIN_FILE read\n")
    pair = display_pair(server, client_home)
    greetings = {}
    for program in PROGRAMS:
        words = ["-Y", "server"] if program == "ssh" else ["server"]
        terminal = spawn_in_pty(pair.argv(program, words), env=pair.home.environment(xvfb))
        terminal.write("sh -c 'echo [$LOGIN_FILE:$MPLBACKEND:${DISPLAY:+set}:$SHELL]E\"\"ND'\r")
        shown = terminal.read_until(r"\]END", timeout=20)
        terminal.write("exit 3\r")
        assert terminal.wait() == 3
        assert terminal.is_restored
        backend = "TkAgg" if program == "xssh" else ""
        assert f"[read:{backend}:set:{server.options.shell}]END" in shown
        greetings[program] = motd_in(shown)
        terminal.close()
    assert greetings["xssh"] == greetings["ssh"]


def motd_in(shown: str) -> list[str]:
    """Return the lines of this machine's motd that were shown, in order."""
    lines = []
    for path in ("/etc/motd", "/run/motd", "/usr/lib/motd"):
        if os.path.exists(path):
            with open(path, errors="replace") as file:
                lines += [line.strip() for line in file if line.strip()]
    return [line.strip() for line in shown.splitlines() if line.strip() in lines]


def test_hushlogin_keeps_the_greeting_away(
    sshd: SshServer, client_home: ClientHome, xvfb: Xvfb, spawn_in_pty: Callable[..., Terminal]
) -> None:
    (sshd.home / ".hushlogin").touch()
    (sshd.home / ".bash_profile").write_text("PS1='$ '\n")
    (sshd.home / ".inputrc").write_text("set enable-bracketed-paste off\n")
    pair = display_pair(sshd, client_home)
    terminal = spawn_in_pty(pair.argv("xssh", ["server"]), env=client_home.environment(xvfb))
    assert terminal.read_until(r"\$ $") == "$ "
    terminal.write("shopt login_shell; echo $0 $MPLBACKEND; ps -o args= -p $$; exit\r")
    shown = terminal.read_until("logout")
    assert "login_shell    \ton" in shown
    assert "TkAgg" in shown


def test_login_shell_without_a_terminal_has_the_backend(
    sshd: SshServer, client_home: ClientHome, xvfb: Xvfb
) -> None:
    pair = display_pair(sshd, client_home)
    done = pair.run(
        "xssh",
        ["-T", "server"],
        stdin=b'echo "$MPLBACKEND ${DISPLAY:+set}"; exit 4\n',
        env=client_home.environment(xvfb),
    )
    assert (done.status, done.stdout) == (4, b"TkAgg set\n")  # and no motd, as without a display


# --- Byte for byte ------------------------------------------------------------------------------

RECORD = "ForceCommand printf '%s' \"$SSH_ORIGINAL_COMMAND\" | od -An -v -tx1 | tr -d ' \\n'"
ODD_COMMANDS = ["echo  'a'\t\"b\" ;", " x ", "é🎉\n\\$`!", "exec  \\", "'"]
PROTOCOL_COMMANDS = [
    "rsync --server -vlogDtpre.iLsfxCIvu . dir/",
    "git-upload-pack '/srv/a b.git'",
    "git receive-pack '/x.git'",
    "scp -t /tmp/x",
    "scp -r -p -f '/a b'",
    "/usr/lib/openssh/sftp-server",
    "borg serve --append-only",
    "borg --info serve",
    "hg -R repo serve --stdio",
    "svnserve -t",
    "mosh-server new -s",
]


def original(done: Completed) -> str:
    return bytes.fromhex(done.stdout.decode()).decode()


def test_command_is_untouched_without_a_display(
    make_sshd: MakeServer, client_home: ClientHome
) -> None:
    pair = display_pair(make_sshd(config=RECORD), client_home)
    for command in ODD_COMMANDS:
        done = pair.run("xssh", ["server", command])
        assert original(done) == command
    assert original(pair.run("xssh", ["server"])) == ""


def test_command_is_untouched_where_the_server_refuses_x11(
    make_sshd: MakeServer, client_home: ClientHome, xvfb: Xvfb
) -> None:
    pair = display_pair(make_sshd(config=RECORD, x11=False), client_home)
    environment = client_home.environment(xvfb)
    for command in (*ODD_COMMANDS[:2], PROTOCOL_COMMANDS[0]):
        assert original(pair.run("xssh", ["server", command], env=environment)) == command
    assert original(pair.run("xssh", ["server"], env=environment)) == ""


def test_protocol_command_is_untouched_even_with_a_display(
    make_sshd: MakeServer, client_home: ClientHome, xvfb: Xvfb
) -> None:
    pair = display_pair(make_sshd(config=RECORD), client_home)
    environment = client_home.environment(xvfb)
    for command in PROTOCOL_COMMANDS:
        done = pair.run("xssh", ["server", command], env=environment)
        assert original(done) == command
    done = pair.run("xssh", ["server", "echo", "a"], env=environment)
    assert original(done).endswith("; echo a")
    assert "MPLBACKEND" in original(done)


def test_command_is_untouched_where_the_server_takes_the_variable(
    make_sshd: MakeServer, client_home: ClientHome, xvfb: Xvfb
) -> None:
    record = RECORD.replace("printf '%s'", "printf '%s|%s' \"$MPLBACKEND\"")
    pair = display_pair(make_sshd(config=record, accept_env="MPLBACKEND"), client_home)
    environment = client_home.environment(xvfb)
    for command in (ODD_COMMANDS[0], ""):
        done = pair.run("xssh", ["server", *([command] if command else [])], env=environment)
        assert original(done) == f"TkAgg|{command}"


def test_tools_that_start_ssh_work_through_xssh(
    sshd: SshServer, client_home: ClientHome, xvfb: Xvfb
) -> None:
    """scp and sftp with xssh in ssh's place, as users configure them: -S."""
    program = client_home.path / "xssh"
    words = " ".join(f"'{word}'" for word in PROGRAMS["xssh"][:-1])
    program.write_text(f'#!/bin/sh\nexec {words} "$CODE" "$@"\n')
    program.chmod(0o755)
    pair = display_pair(sshd, client_home)
    environment = client_home.environment(xvfb, CODE=PROGRAMS["xssh"][-1])
    source = client_home.path / "data"
    source.write_bytes(os.urandom(300000))
    for options in (["-O"], []):
        argv = [
            "scp",
            *options,
            "-q",
            "-S",
            str(program),
            *pair.home.arguments,
            str(source),
            "server:copy",
        ]
        done = run(argv, env=environment)
        assert done.status in (0, 255), done
        if options:
            assert done == (0, b"", "")
            assert (sshd.home / "copy").read_bytes() == source.read_bytes()


# --- Which backend ------------------------------------------------------------------------------

SHOW = "sh -c 'echo \"[$MPLBACKEND]\"'"


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        ([], {}, "TkAgg"),
        (["--backend", "QtAgg"], {}, "QtAgg"),
        (["--backend=module://a.b"], {}, "module://a.b"),
        (["--backend", "none"], {}, ""),
        (["--backend", "None"], {}, ""),
        ([], {"XSSH_BACKEND": "GTK3Agg"}, "GTK3Agg"),
        ([], {"XSSH_BACKEND": "none"}, ""),
        ([], {"XSSH_BACKEND": ""}, "TkAgg"),
        (["--backend", "QtAgg"], {"XSSH_BACKEND": "GTK3Agg"}, "QtAgg"),
        ([], {"MPLBACKEND": "Agg"}, "TkAgg"),
        (["-oSetEnv=MPLBACKEND=WebAgg"], {}, "WebAgg"),
        (["-oSendEnv=MPL*"], {"MPLBACKEND": "QtAgg"}, "QtAgg"),
        (["-oSendEnv=MPL*", "--backend", "TkCairo"], {"MPLBACKEND": "QtAgg"}, "QtAgg"),
        (["-x"], {}, ""),
    ],
)
def test_backend_that_arrives(
    sshd: SshServer,
    client_home: ClientHome,
    xvfb: Xvfb,
    words: list[str],
    variables: dict[str, str],
    expected: str,
) -> None:
    pair = display_pair(sshd, client_home)
    environment = client_home.environment(xvfb, **variables)
    done = pair.run("xssh", [*words, "server", SHOW], env=environment)
    assert (done.status, done.stdout, done.stderr) == (0, f"[{expected}]\n".encode(), "")


@pytest.mark.parametrize("value", ["a b", "$(touch owned)", "x;y", "é", "'", "module://x y"])
def test_backend_that_a_shell_could_read_is_refused(
    client_environment: dict[str, str], value: str
) -> None:
    for words, more in (
        (["--backend", value, "host", "true"], {}),
        (["host", "true"], {"XSSH_BACKEND": value}),
    ):
        done = run([*PROGRAMS["xssh"], *words], env={**client_environment, **more})
        assert (done.status, done.stdout) == (255, b"")
        assert "not the name of a matplotlib backend" in done.stderr


def test_server_that_has_a_backend_of_its_own_keeps_it_without_a_display(
    make_sshd: MakeServer, client_home: ClientHome
) -> None:
    server = make_sshd(environment={"MPLBACKEND": "svg"})
    pair = display_pair(server, client_home)
    assert pair.run("xssh", ["server", SHOW]).stdout == b"[svg]\n"
