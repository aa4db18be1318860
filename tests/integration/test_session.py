"""A command on the other side, and how it ends: xssh held against this machine's ssh."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.integration._pairs import PROGRAMS, Pair, first_line
from tests.support.agents import Agent
from tests.support.processes import end_popen, run, run_xssh, xssh_command
from tests.support.sshd import generate_key

# --- The command line ---------------------------------------------------------------------------


def test_ciphers_and_macs_are_those_asked_for(pair: Pair) -> None:
    words = ["-c", "aes192-ctr", "-m", "hmac-sha2-256", "server", "true"]
    assert pair.run("xssh", words).status == 0
    assert "cipher: aes192-ctr MAC: hmac-sha2-256" in pair.server.log()


def test_compression_is_used_only_when_asked_for(pair: Pair) -> None:
    assert pair.run("xssh", ["server", "true"]).status == 0
    assert "compression: zlib" not in pair.server.log()
    assert pair.run("xssh", ["-C", "server", "true"]).status == 0
    assert "compression: zlib@openssh.com" in pair.server.log()


def test_identity_file_of_the_command_line(pair: Pair, short_directory: Path) -> None:
    key = generate_key(short_directory / "other key")
    words = ["-o", "IdentityFile=none", "-i", str(key), "server", "echo in"]
    expected, found = pair.run("ssh", words), pair.run("xssh", words)
    assert found.stdout == expected.stdout
    pair.server.authorized_keys.write_text("")
    pair.server.authorize(key)
    pair.both(["-i", str(key), "server", "echo in"])
    expected, found = (pair.run(name, ["server", "echo in"]) for name in PROGRAMS)
    assert first_line(found) == first_line(expected)
    assert found.status == 255


def test_verbose_says_debug_on_stderr_only(pair: Pair) -> None:
    for option, prefix in (("-v", "debug1: "), ("-vvv", "debug1: ")):
        done = pair.run("xssh", [option, "server", "echo out"])
        assert (done.status, done.stdout) == (0, b"out\n")
        assert any(line.startswith(prefix) for line in done.stderr.splitlines())
    assert pair.run("xssh", ["-q", "-v", "server", "true"]).stderr


def test_agent_is_forwarded_only_when_asked_for(pair: Pair, short_directory: Path) -> None:
    with Agent(short_directory / "agent") as agent:
        env = {**pair.environment, "SSH_AUTH_SOCK": agent.path}
        agent.add(pair.server.client_key)
        ask = 'test -S "$SSH_AUTH_SOCK" && ssh-add -l | wc -l'
        assert pair.both(["-A", "server", ask], env=env).stdout.strip() == b"1"
        assert pair.both(["-A", "-a", "server", ask], env=env).stdout == b""
        assert pair.both(["server", ask], env=env).stdout == b""
        assert pair.both(["-o", "ForwardAgent=yes", "server", ask], env=env).stdout == b"1\n"


# --- What xssh says by itself -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-Z", "h"], "unknown option -- Z"),
        (["-vZ", "h"], "unknown option -- Z"),
        (["-p"], "option requires an argument -- p"),
        (["h", "-o"], "option requires an argument -- o"),
        ([], "no host"),
        (["--"], "no host"),
        (["-v"], "no host"),
        (["--nonsense", "h"], "--nonsense"),
        (["--python", "python3", "h"], "--script"),
        (["--backend", "a;b", "h"], "--backend"),
        (["--script"], "--script"),
        (["--script=", "h"], "--script"),
    ],
)
def test_usage_error_names_what_is_wrong(
    words: list[str], says: str, client_environment: dict[str, str]
) -> None:
    done = run_xssh(words, env=client_environment)
    assert (done.status, done.stdout) == (255, b"")
    assert done.stderr.startswith("xssh: ")
    assert says in done.stderr
    assert "\n  try: " in done.stderr


def test_options_of_a_command_are_its_own(pair: Pair) -> None:
    pair.both(["server", "echo", "-Z", "--help", "--version", "--script", "x", "-L"])
    pair.both(["server", "--", "echo", "--help"])


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["-Z", "h"], [], ["--bad", "h"]])
def test_answers_without_a_connection_load_nothing_slow(
    words: list[str], client_environment: dict[str, str]
) -> None:
    start = xssh_command()
    argv = [start[0], "-X", "importtime", *start[1:], *words]
    done = run(argv, env=client_environment)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "xsshpy.arguments" in loaded
    assert not loaded & {"asyncssh", "cryptography", "asyncio", "Xlib", "ssl"}


def test_version_and_help_go_to_stdout(client_environment: dict[str, str]) -> None:
    from xsshpy import __version__

    assert run_xssh(["--version"], env=client_environment) == (
        0,
        f"xssh {__version__}\n".encode(),
        "",
    )
    done = run_xssh(["--help"], env=client_environment)
    assert (done.status, done.stderr) == (0, "")
    for text in (b"--script", b"--backend", b"--python", b"-J HOSTS", b"ssh's options"):
        assert text in done.stdout


# --- How a command ends -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_our_own_death_by_a_signal(pair: Pair, number: signal.Signals) -> None:
    ends = {}
    for program in PROGRAMS:
        process = pair.start(program, ["server", "echo ready; exec cat"])
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
            ends[program] = (process.returncode, out, err.replace(b"\r\n", b"\n"))
        finally:
            end_popen(process)
    assert ends["xssh"] == ends["ssh"]
    pair.server.wait_until_idle()


def test_signal_while_connecting(pair: Pair) -> None:
    for program in PROGRAMS:
        pair.server.suspend()
        process = pair.start(program, ["server", "true"])
        try:
            time.sleep(0.7)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=10)
        finally:
            end_popen(process)
            pair.server.resume()
        assert (process.returncode, out, err) == (-signal.SIGTERM, b"", b"")


def test_remote_program_that_lingers(pair: Pair) -> None:
    """A background job that holds stdout keeps the session open, one that does not lets it go."""
    pair.both(["server", "sleep 0.5 & echo done"])
    before = time.monotonic()
    done = pair.run("xssh", ["server", "sleep 60 >/dev/null 2>&1 </dev/null & echo $!"])
    os.kill(int(done.stdout), signal.SIGKILL)
    assert time.monotonic() - before < 20
