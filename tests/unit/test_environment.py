"""Variables for the remote command: what is sent, and the words that set one in every shell."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tools import require_tool
from xsshpy.ssh.environment import (
    choose_variables,
    decide_backend,
    is_protocol_command,
    login_shell_command,
    set_in_shell,
    wrap_command,
)

SHELLS = ("bash", "zsh", "dash", "fish", "csh", "tcsh", "rbash")


def run_in(shell: str, command: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as sshd does: by the login shell, with nothing exported but the usual."""
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "LOGNAME": "nobody"}
    return subprocess.run(
        [require_tool(shell), "-c", command],
        env={**env, "SHELL": require_tool(shell)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=20,
        check=False,
    )


# Words before the command


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("sh -c 'echo $MPLBACKEND'", 0, "TkAgg\n"),
        ("echo $MPLBACKEND; exit 3", 3, "TkAgg\n"),
        ("false", 1, ""),
        ("echo a | cat; echo 'b  c' \"d\"", 0, "a\nb  c d\n"),
        ('test -n "$MPLBACKEND" && echo set', 0, "set\n"),
        ("# nothing", 0, ""),
        ("env | grep -c '^MPLBACKEND=TkAgg$'", 0, "1\n"),
    ],
)
def test_the_variable_is_set_in_silence(
    tmp_path: Path, shell: str, command: str, status: int, output: str
) -> None:
    done = run_in(shell, wrap_command(command, {"MPLBACKEND": "TkAgg"}), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (status, output, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "dash", "rbash"])
def test_a_shell_variable_by_the_name_of_shell_does_no_harm(tmp_path: Path, shell: str) -> None:
    done = run_in(
        shell, f"shell=; {wrap_command('echo $MPLBACKEND', {'MPLBACKEND': 'Agg'})}", tmp_path
    )
    assert (done.stdout, done.stderr) == ("Agg\n", "")


@pytest.mark.parametrize("shell", ["zsh", "fish", "csh", "tcsh"])
def test_the_start_files_still_count(tmp_path: Path, shell: str) -> None:
    """The user's own words run in the shell that read them; the other shells' -c reads none."""
    (tmp_path / ".zshenv").write_text("alias greet='echo hello'\n")
    (tmp_path / ".cshrc").write_text("alias greet 'echo hello'\n")
    (tmp_path / ".tcshrc").write_text("alias greet 'echo hello'\n")
    config = tmp_path / ".config" / "fish"
    config.mkdir(parents=True)
    (config / "config.fish").write_text("function greet; echo hello; end\n")
    done = run_in(shell, wrap_command("greet", {"MPLBACKEND": "TkAgg"}), tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done


@pytest.mark.parametrize("shell", SHELLS)
def test_a_login_shell_with_the_variable_is_entered(tmp_path: Path, shell: str) -> None:
    (tmp_path / ".hushlogin").touch()
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LOGNAME": "nobody"}
    path = require_tool(shell)
    done = subprocess.run(
        [path, "-c", login_shell_command({"MPLBACKEND": "QtAgg"})],
        env={**env, "SHELL": path},
        input="echo b=$MPLBACKEND\nexit 5\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "b=QtAgg\n" in done.stdout
    assert done.returncode == 5, done
    assert "restricted" not in done.stderr and "not found" not in done.stderr


@pytest.mark.parametrize(
    "value", ["", "a b", "a;b", "$x", "`x`", "a'b", 'a"b', "a\nb", "ü", "a\\b"]
)
def test_what_a_shell_would_read_is_never_put_there(value: str) -> None:
    with pytest.raises(ValueError, match="must be plain"):
        set_in_shell("MPLBACKEND", value)


# Commands of other programs


@pytest.mark.parametrize(
    "command",
    [
        "rsync --server -logDtpre.iLsfxCIvu . /x",
        "/usr/local/bin/rsync --server --sender -a . /x",
        "sudo rsync --server .",
        "cd /x && rsync --server .",
        "git-upload-pack '/srv/a.git'",
        "git upload-pack '/srv/a.git'",
        "git-receive-pack 'a.git'",
        "git-upload-archive 'a'",
        "git-lfs-authenticate a download",
        "git-lfs-transfer a upload",
        "scp -t /x",
        "scp -v -r -p -d -f -- /x",
        "scp -prt .",
        "/usr/lib/openssh/sftp-server",
        "internal-sftp",
        "borg serve --append-only",
        "borg-1.2 --umask=077 serve",
        "hg -R /srv/x serve --stdio",
        "hg serve --stdio",
        "svnserve -t",
        "svnserve -r /x -t",
        "cvs server",
        "bzr serve --inet --directory=/",
        "bup server",
        "unison -server",
        "rdiff-backup --server",
        "rdiff-backup -v5 server",
        "rclone serve restic --stdio x",
        "mosh-server new -s",
        "env A=b 'mosh-server' new",
        "bash -c 'rsync --server .'",
        "git-annex-shell 'configlist' '/~/x'",
        "docker system dial-stdio",
        "docker --host unix:///x system dial-stdio",
        "nix-store --serve --write",
        "nix-daemon --stdio",
        "virt-ssh-helper 'qemu:///system'",
    ],
)
def test_commands_that_a_program_speaks_over(command: str) -> None:
    assert is_protocol_command(command)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "python3 plot.py",
        "rsync -a x y",
        "rsync --server-ish",
        "myrsync --server",
        "git log",
        "git-upload-packs x",
        "scp a b:",
        "scp -r a b",
        "sftp host",
        "vi /opt/sftp",
        "ls /opt/sftp/plots",
        "borg create ::x .",
        "borg list server",
        "hg log",
        "hg serve",
        "svnserve -d",
        "cvs update",
        "cvs serverless",
        "rclone serve http x",
        "echo mosh-servers",
        "python3 serve.py",
        "docker system df",
        "nix-store --query x",
    ],
)
def test_commands_of_people(command: str) -> None:
    assert not is_protocol_command(command)


@given(st.text(max_size=2000))
def test_any_text_is_judged(command: str) -> None:
    is_protocol_command(command)


def test_a_long_command_is_judged_at_once() -> None:
    """No word list makes the expression try again and again."""
    for start in ("borg x", "scp -a", "svnserve x", "docker x", "nix-store x"):
        program, word = start.split()
        text = f"{program} " + f"{word} " * 20_000
        assert not is_protocol_command(text)


# Which variables, and MPLBACKEND among them

ENVIRON = {"LANG": "C", "LC_ALL": "x", "LC_TIME": "y", "SECRET": "z", "lc_a": "w"}


@pytest.mark.parametrize(
    ("send", "pairs", "chosen"),
    [
        ([], [], {}),
        (["LANG"], [], {"LANG": "C"}),
        (["LC_*"], [], {"LC_ALL": "x", "LC_TIME": "y"}),
        (["LC_????"], [], {"LC_TIME": "y"}),
        (["[L]ANG", "lang"], [], {}),  # brackets stand for themselves
        (["NONE", "LANG", "L*G"], [], {"LANG": "C"}),
        ([], [("A", "1"), ("A", "2")], {"A": "1"}),
        (["LANG"], [("LANG", "own")], {"LANG": "own"}),
        ([], [("A", "b=c d")], {"A": "b=c d"}),
    ],
)
def test_send_env_and_set_env(
    send: list[str], pairs: list[tuple[str, str]], chosen: dict[str, str]
) -> None:
    assert choose_variables(send, pairs, ENVIRON) == chosen


@pytest.mark.parametrize(
    ("chosen", "option", "backend"),
    [
        ({}, None, "TkAgg"),
        ({}, "", "TkAgg"),
        ({}, "QtAgg", "QtAgg"),
        ({}, "none", None),
        ({}, "None", None),
        ({"MPLBACKEND": "Agg"}, None, "Agg"),
        ({"MPLBACKEND": "Agg"}, "QtAgg", "Agg"),
        ({"MPLBACKEND": "module://a.b"}, "none", "module://a.b"),
        ({"MPLBACKEND": "a b"}, "QtAgg", None),
        ({"MPLBACKEND": "$(x)"}, None, None),
        ({"MPLBACKEND": "a\n"}, None, None),
        ({"MPLBACKEND": ""}, None, None),
        ({"OTHER": "x"}, None, "TkAgg"),
    ],
)
def test_the_backend(chosen: dict[str, str], option: str | None, backend: str | None) -> None:
    assert decide_backend(chosen, option) == backend


@pytest.mark.parametrize(
    "piece", ["borg ", "rclone serve ", "docker x ", "bup  ", "cvs\n", "scp -a ", "git", "a ", "  "]
)
def test_protocols_are_looked_for_in_linear_time(piece: str) -> None:
    """A megabyte takes no more than a moment, whatever it is made of."""
    command = "x" + piece * (1_000_000 // len(piece))
    started = time.perf_counter()
    is_protocol_command(command)
    assert time.perf_counter() - started < 2


def test_a_protocol_command_behind_much_else() -> None:
    assert is_protocol_command("true " * 100_000 + "; rsync --server .")
    assert not is_protocol_command("git status; " * 60)
    assert is_protocol_command("git status; " * 60 + "git-upload-pack x")
