"""git, rsync, scp, sftp and others with xssh in ssh's place: files, status, words on the wire.

Each runs with ssh and with xssh (``tests.support.programs``), which has a display: that must change
no byte of what these programs send.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.processes import run, wait_until
from tests.support.programs import Bench, Way, tree, write_program
from tests.support.sshd import SshServer, generate_key
from tests.support.tools import require_tool
from tests.support.xvfb import Xvfb

MakeServer = Callable[..., SshServer]
MEGABYTE = 1 << 20


@pytest.fixture
def bench(make_sshd: MakeServer, client_home: ClientHome, xvfb: Xvfb) -> Bench:
    """Return a recording server that lets GIT_PROTOCOL through."""
    return Bench(make_sshd, client_home, xvfb, accept_env="GIT_PROTOCOL")


def quiet(done: object) -> object:
    """Keep the status and stdout: progress reports on stderr tell of speed."""
    return done[:2]  # type: ignore[index]


# --- git ----------------------------------------------------------------------------------------

GIT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_COMMITTER_DATE": "1700000000 +0000", "GIT_TERMINAL_PROMPT": "0",
}  # fmt: skip


def git(way: Way, *words: str, **more: str) -> str:
    done = way.run(["git", *words], **GIT, **more)
    assert done.status == 0, (way.name, words, done)
    return done.stdout.decode()


@pytest.fixture
def repository(client_home: ClientHome) -> Path:
    """Return a bare repository of some MB to copy from."""
    require_tool("git")
    source, bare = client_home.path / "source", client_home.path / "source.git"
    environment = {**client_home.environment(), **GIT}

    def do(*words: str) -> None:
        done = run(["git", "-C", str(source), *words], env=environment)
        assert done.status == 0, done

    source.mkdir()
    do("init", "-q", "-b", "main")
    (source / "big").write_bytes(os.urandom(3 * MEGABYTE))
    (source / "small").write_text("one\n")
    do("add", ".")
    do("commit", "-q", "-m", "first")
    do("clone", "-q", "--bare", str(source), str(bare))
    return bare


def test_git_clone_fetch_and_push(bench: Bench, repository: Path) -> None:
    def work(way: Way) -> object:
        shutil.copytree(repository, bench.far / "a b.git")
        variables = {"GIT_SSH": way.ssh}
        git(way, "clone", "-q", "server:far/a b.git", "copy", **variables)
        copy = bench.work / "copy"
        digest = hashlib.sha256((copy / "big").read_bytes()).hexdigest()
        (copy / "new").write_bytes(b"new" * 100000)
        here = ["-C", "copy"]
        git(way, *here, "add", "new")
        git(way, *here, "commit", "-q", "-m", "second")
        git(way, *here, "push", "-q", "origin", "main", "main:other", **variables)
        git(way, *here, "fetch", "-q", "origin", **variables)
        return digest, git(way, *here, "ls-remote", "origin", **variables)

    bench.compare(work)
    # It was found out to be like OpenSSH: otherwise git would not have asked for protocol 2.
    assert any(command.startswith("version=2|git-upload-pack") for command in bench.commands())


@pytest.mark.parametrize("how", ["GIT_SSH_COMMAND", "core.sshCommand"])
def test_git_starts_it_with_options(bench: Bench, repository: Path, how: str) -> None:
    def work(way: Way) -> object:
        shutil.copytree(repository, bench.far / "x.git")
        options, variables = [], {"GIT_SSH_COMMAND": f"'{way.ssh}' -o ConnectTimeout=30"}
        if how == "core.sshCommand":
            options, variables = ["-c", f"core.sshCommand={way.ssh} -v -E log"], {}
        git(way, *options, "clone", "-q", "server:far/x.git", "copy", **variables)
        return tree(bench.work / "copy")["big"]

    bench.compare(work)
    assert bench.commands() == ["version=2|git-upload-pack 'far/x.git'"]


def test_git_by_url(bench: Bench, repository: Path) -> None:
    """git passes -p for the port, and -4 where it is told so."""

    def work(way: Way) -> object:
        shutil.copytree(repository, bench.far / "x.git")
        url = f"ssh://{bench.server.user}@server:{bench.server.port}/~/far/x.git"
        variables = {"GIT_SSH": way.ssh}
        git(way, "clone", "-q", "-4", "--depth=1", url, "copy", **variables)
        archive = way.run(
            ["git", "archive", f"--remote={url}", "--format=tar", "main", "small"],
            **GIT, **variables,
        )  # fmt: skip
        return git(way, "-C", "copy", "log", "--format=%H"), quiet(archive)

    bench.compare(work)


def test_git_tells_of_what_is_missing(bench: Bench, repository: Path) -> None:
    def work(way: Way) -> object:
        variables = {"GIT_SSH": way.ssh, **GIT}
        none = way.run(["git", "clone", "server:far/none.git", "copy"], **variables)
        refused = way.run(
            ["git", "clone", "ssh://127.0.0.1:1/none.git", "copy"],
            **{**variables, "GIT_SSH_COMMAND": f"{way.ssh} -o LogLevel=QUIET"},
        )
        return none, refused

    bench.compare(work)


def test_git_server_that_allows_nothing_else(
    make_sshd: MakeServer, client_home: ClientHome, repository: Path, xvfb: Xvfb
) -> None:
    shell = require_tool("git-shell")
    server = make_sshd(shell=shell)
    (server.home / ".hushlogin").touch()
    shutil.copytree(repository, server.home / "r.git")
    client_home.add(server)
    xssh = write_program(client_home.path / "bin" / "xssh", _xssh())
    results = []
    for program, display in (("ssh", None), (str(xssh), xvfb)):
        environment = client_home.environment(display, **GIT, GIT_SSH=program, LC_ALL="C")
        target = client_home.path / "copy"
        shutil.rmtree(target, ignore_errors=True)
        results.append(
            (
                run(["git", "clone", "-q", "server:r.git", str(target)], env=environment),
                (target / "small").read_text(),
                run([program, "-T", "server"], env=environment)[:2],
                run([program, "server", "rm -rf /nonexistent"], env=environment)[:2],
            )
        )
    assert results[1] == results[0]
    assert results[0][0] == (0, b"", "")


def _xssh() -> list[str]:
    from tests.support.processes import xssh_command

    return xssh_command()


# --- rsync --------------------------------------------------------------------------------------


def make_tree(folder: Path) -> None:
    (folder / "sub dir" / "deep").mkdir(parents=True)
    (folder / "big").write_bytes(bytes(range(256)) * (20 << 10))
    (folder / "sub dir" / "é'\"").write_bytes(b"\r\n\x00\xff" * 50)
    (folder / "sub dir" / "empty").touch()
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("run")


def test_rsync_both_ways(bench: Bench) -> None:
    require_tool("rsync")

    def work(way: Way) -> object:
        make_tree(bench.work / "out")
        (bench.far / "out").mkdir()
        (bench.far / "out" / "stale").touch()
        rsh = f"{way.ssh} -o ConnectTimeout=30 -x"
        up = way.run(["rsync", "-az", "--delete", "-e", rsh, "out/", "server:far/out/"])
        assert tree(bench.far / "out") == tree(bench.work / "out")
        (bench.far / "out" / "big").write_bytes(b"changed" * 100000)
        down = way.run(["rsync", "-rc", "-e", way.ssh, "server:far/out/", "in/"])
        again = way.run(["rsync", "-rcni", "-e", way.ssh, "server:far/out/", "in/"])
        assert (bench.work / "in" / "big").read_bytes() == b"changed" * 100000
        return up, down, again, tree(bench.work / "in")

    results = bench.compare(work)
    assert results[0][0] == (0, b"", "")  # type: ignore[index]


def test_rsync_with_a_port_and_another_program_before_it(bench: Bench) -> None:
    require_tool("rsync")

    def work(way: Way) -> object:
        make_tree(bench.work / "out")
        done = way.run(
            ["rsync", "-a", "-e", f"'{way.ssh}' -p {bench.server.port} -l '{bench.server.user}'",
             "--rsync-path=nice rsync", "out/", "server:far/"],
        )  # fmt: skip
        listing = way.run(["rsync", "server:far/run"], RSYNC_RSH=way.ssh)
        missing = way.run(["rsync", "-a", "server:far/none", "."], RSYNC_RSH=way.ssh)
        assert tree(bench.far) == tree(bench.work / "out")
        return done, re.sub(rb"\d\d:\d\d:\d\d", b"", listing.stdout), missing

    bench.compare(work)


# --- scp and sftp -------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["-s", "-O"])
def test_scp_both_ways(bench: Bench, protocol: str) -> None:
    def work(way: Way) -> object:
        make_tree(bench.work / "out")
        scp = ["scp", protocol, "-S", way.ssh, "-q"]
        up = way.run([*scp, "-r", "-p", "out", "server:far/copy"])
        down = way.run([*scp, "-C", "server:far/copy/big", "server:far/copy/sub dir/empty", "."])
        missing = way.run([*scp, "server:far/none", "."])
        assert (bench.work / "big").read_bytes() == (bench.far / "copy" / "big").read_bytes()
        # scp follows links
        assert (bench.far / "copy" / "link").read_text() == "#!/bin/sh\n"
        return up, down, missing, tree(bench.far), tree(bench.work)

    bench.compare(work)


@pytest.mark.parametrize("protocol", ["-s", "-O"])
def test_scp_from_host_to_host_through_here(bench: Bench, protocol: str) -> None:
    """-3 starts two of them at once."""

    def work(way: Way) -> object:
        (bench.far / "one").write_bytes(b"\x00\xff\r\n" * 200000)
        argv = ["scp", protocol, "-3", "-S", way.ssh, "-q", "-P", str(bench.server.port)]
        target = f"scp://{bench.server.user}@server:{bench.server.port}/far/two"
        return way.run([*argv, "server:far/one", target]), tree(bench.far)

    results = bench.compare(work)
    assert results[0][0] == (0, b"", "")  # type: ignore[index]
    assert (bench.far / "two").stat().st_size == 800000


def test_scp_from_host_to_host_by_the_first(bench: Bench) -> None:
    """-R: the first host starts its own scp, which here knows nobody called ``nowhere``."""

    def work(way: Way) -> object:
        (bench.far / "one").touch()
        done = way.run(["scp", "-R", "-q", "-S", way.ssh, "server:far/one", "nowhere.invalid:two"])
        return quiet(done)

    bench.compare(work)


def test_sftp_in_a_batch(bench: Bench) -> None:
    def work(way: Way) -> object:
        make_tree(bench.work / "out")
        batch = bench.work / "batch"
        batch.write_text(
            "cd far\nput -r out\nget out/big\nrename out/run out/ran\nls -1 out\n-rm none\n"
            "ln -s big out/two\nchmod 600 out/ran\ndf\nmkdir new\n"
        )
        argv = ["sftp", "-S", way.ssh, "-q", "-b", str(batch), "server"]
        done = way.run(argv)
        wrong = way.run(
            ["sftp", "-S", way.ssh, "-b", "-", "server"], stdin=b"cd nowhere\nmkdir never\n"
        )
        stdout = b"\n".join(line for line in done.stdout.splitlines() if b"%" not in line)
        return done.status, stdout, done.stderr, quiet(wrong), tree(bench.far), tree(bench.work)

    results = bench.compare(work)
    assert results[0][0] == 0  # type: ignore[index]


def test_sftp_by_hand_and_as_a_program(bench: Bench) -> None:
    """-s with the server's path, as sftp -s does, and with -B and -R of its own."""

    def work(way: Way) -> object:
        (bench.far / "x").write_bytes(b"y" * MEGABYTE)
        sftp = shutil.which("sftp-server") or "/usr/lib/openssh/sftp-server"
        argv = ["sftp", "-S", way.ssh, "-s", sftp, "-B", "65536", "-R", "3", "-P"]
        done = way.run([*argv, str(bench.server.port), "server:far/x", "z"])
        return done.status, (bench.work / "z").read_bytes()

    bench.compare(work)


def test_sshfs(bench: Bench) -> None:
    sshfs = shutil.which("sshfs")
    if sshfs is None or not os.path.exists("/dev/fuse"):
        pytest.skip("sshfs or /dev/fuse is not here")

    def work(way: Way) -> object:
        (bench.far / "file").write_text("content\n")
        mount = bench.work / "mount"
        mount.mkdir()
        done = way.run([sshfs, "-o", f"ssh_command={way.ssh}", "server:far", str(mount)])
        assert done.status == 0, done
        try:
            (mount / "new").write_bytes(b"z" * MEGABYTE)
            return (mount / "file").read_text(), (bench.far / "new").stat().st_size
        finally:
            subprocess.run(["fusermount", "-u", str(mount)], check=True)

    bench.compare(work)


# --- ssh by its own name ------------------------------------------------------------------------


def test_ssh_copy_id(bench: Bench) -> None:
    """It starts ``ssh`` from PATH, and so does xssh to read the configuration: not itself."""
    require_tool("ssh-copy-id")
    key = generate_key(bench.home.path / "new_key")
    accepted = bench.server.home / ".ssh" / "authorized_keys"

    def work(way: Way) -> object:
        shutil.rmtree(accepted.parent, ignore_errors=True)
        argv = ["ssh-copy-id", "-i", str(key), "-p", str(bench.server.port), "server"]
        path = bench.named_ssh(way)
        first = way.run(["ssh-copy-id", "-f", *argv[1:]], **path)
        assert key.with_name("new_key.pub").read_text() in accepted.read_text()
        return quiet(first), accepted.stat().st_mode, way.run(argv, **path)[:1]

    bench.compare(work)


def test_xssh_under_the_name_of_ssh(bench: Bench) -> None:
    """Whoever puts xssh before ssh on PATH, by its name, still has the configuration read."""

    def work(way: Way) -> object:
        path = bench.named_ssh(way)
        version = way.run(["ssh", "-V"], **path).stderr.splitlines()[-1].split(", ")[-1]
        return (
            way.run(["ssh", "-oSetEnv=A=1", "server", "echo far; exit 3"], **path)[:2],
            way.run(["ssh", "-G", "server"], **path),
            way.run(["ssh", "-Q", "cipher"], **path),
            version,
            way.run(["sh", "-c", "scp -q server:.Xauthority ./copy; echo $?"], **path),
        )

    theirs, ours = [work(way) for way in bench.each()]
    assert ours == theirs


def test_mosh_asks_for_its_server(bench: Bench) -> None:
    """With the words that mosh uses; what its server says must come back as it is."""
    server = bench.home.path / "mosh-server"
    server.write_text('#!/bin/sh\necho; echo "MOSH CONNECT 60001 key=/+" "$@"; tty -s\n')
    server.chmod(0o755)

    def work(way: Way) -> object:
        proxy = "ProxyCommand=bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & cat >&3; kill $!'"
        argv = [way.ssh, "-S", "none", "-o", proxy, "-n", "-tt", "server", "--"]
        return way.run([*argv, f"{server} new -c 256 -s -l LANG=en_US.UTF-8"])

    results = bench.compare(work)
    assert b"MOSH CONNECT 60001 key=/+ new" in results[0].stdout  # type: ignore[attr-defined]


# --- Through one host to another ----------------------------------------------------------------


def test_proxy_command_made_of_either(
    make_sshd: MakeServer, client_home: ClientHome, xvfb: Xvfb
) -> None:
    """``-W %h:%p`` of ssh and xssh, used by ssh and xssh; a MB passes, and none is left over."""
    first, second = make_sshd(), make_sshd(user="other")
    client_home.add(first, "first")
    client_home.add(second, "second")
    xssh = str(write_program(client_home.path / "bin" / "xssh", _xssh()))
    environment = client_home.environment(xvfb)
    data = os.urandom(MEGABYTE)
    for client in ("ssh", xssh):
        for proxy in ("ssh", xssh):
            option = f"ProxyCommand={proxy} -W %h:%p first"
            argv = [client, "-x", "-o", option, "second", "echo $USER; cat; exit 5"]
            done = run(argv, env=environment, stdin=data)
            assert (done.status, done.stderr) == (5, ""), (client, proxy, done)
            assert done.stdout == b"other\n" + data
    first.wait_until_idle()
    second.wait_until_idle()


def test_forced_command_sees_what_was_typed(
    make_sshd: MakeServer, client_home: ClientHome, xvfb: Xvfb
) -> None:
    show = 'command="printf \'[%s]\' \\"$SSH_ORIGINAL_COMMAND\\""'
    server = make_sshd(key_options=show)
    (server.home / ".Xauthority").touch(mode=0o600)
    client_home.add(server, extra="ForwardX11Trusted yes")
    for words in (["server"], ["-T", "server", "a  'b' ", '"$c"; '], ["-s", "server", "sftp"]):
        results = [
            run([*argv, *words], env=client_home.environment(display))[:2]
            for argv, display in ((["ssh"], None), (_xssh(), None), (_xssh(), xvfb))
        ]
        assert results[1:] == results[:1] * 2
    wait_until(lambda: not server.sessions(), what="the end of the sessions")
