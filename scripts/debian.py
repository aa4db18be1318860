"""`xssh --setup` on a whole Debian: real apt, dpkg and sshd, from nothing to a plot on a screen.

Then as a login that is not root's, by real sudo and doas, which ask for a password on a terminal.

By hand, as root, on Linux, with the tests' environment: `python scripts/debian.py [--root FOLDER]`.
It takes some minutes and 500 MB: debootstrap makes a Debian in a temporary folder, with matplotlib
in /opt/plots; or FOLDER is one like that. It stays as it is: what changes lies in an overlay, in
mount and process namespaces of its own, where sshd is process 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.clients import ClientHome  # noqa: E402
from tests.support.processes import end_popen, wait_until, xssh_command  # noqa: E402
from tests.support.sshd import KeyRing, client_block, free_port  # noqa: E402
from tests.support.terminals import Terminal  # noqa: E402
from tests.support.windows import Screen  # noqa: E402
from tests.support.xvfb import Xvfb  # noqa: E402

MIRROR = "http://deb.debian.org/debian"
PACKAGES = "openssh-server,python3-venv,procps"
PYTHON = "/opt/plots/bin/python"
PLOT = (
    "import matplotlib.pyplot as p; p.plot([1, 4, 9]); "
    "p.gcf().canvas.manager.set_window_title('squares'); p.show()"
)
START = """
set -e
cd "$1"
mount --make-rprivate /
mount -t overlay overlay -o lowerdir=$2,upperdir=$1/upper,workdir=$1/work $1/root
mount -t proc proc root/proc
mount --rbind /dev root/dev
cp /etc/resolv.conf root/etc/resolv.conf
mkdir -p root/run/sshd root/root/.ssh
chmod 700 root/root/.ssh
cp client.pub root/root/.ssh/authorized_keys
chown -R 0:0 root/root
echo "127.0.0.1 localhost" >root/etc/hosts
sed -i "s/^X11Forwarding.*/X11Forwarding no/; s/^#Port 22/Port $3/" root/etc/ssh/sshd_config
sed -i "s/^#ListenAddress 0.*/ListenAddress 127.0.0.1/" root/etc/ssh/sshd_config
exec chroot root /usr/sbin/sshd -D -e
"""


class Debian:
    """A Debian with an sshd on loopback, and a client that knows it as ``server``."""

    host = "127.0.0.1"
    user = "root"

    def __init__(self, folder: Path, base: Path, keys: KeyRing) -> None:
        self.folder = folder
        self.port = free_port()
        self.client_key = str(keys.client_key)
        for name in ("upper", "work", "root"):
            (folder / name).mkdir()
        shutil.copy(f"{keys.client_key}.pub", folder / "client.pub")
        argv = ["unshare", "-m", "-p", "--fork", "--kill-child", "sh", "-c", START, "sh"]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*argv, str(folder), str(base), str(self.port)], stdout=log, stderr=log
            )
        said = folder / "log"
        wait_until(lambda: "Server listening" in said.read_text(), timeout=30, what="sshd")


def make_base(folder: Path) -> None:
    """Make a Debian by debootstrap, with all but what setup is to install."""
    argv = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm"]
    subprocess.run([*argv, str(folder), MIRROR], check=True)
    subprocess.run(["chroot", str(folder), "python3", "-m", "venv", "/opt/plots"], check=True)
    # By this machine's pip, which knows its way out.
    pip = [sys.executable, "-m", "pip", "-q", "install", "--only-binary=:all:", "matplotlib"]
    place = f"{folder}/opt/plots/lib/python3.11/site-packages"
    subprocess.run([*pip, "--python-version=3.11", f"--target={place}"], check=True)


def state_of(folder: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """Return content, mode and owner of what setup may change, as the running system has it."""
    found = {}
    for name in ("etc/ssh", "root"):
        for path in sorted((folder / name).rglob("*")):
            about = path.stat()
            if path.is_file() and "Xauthority" not in path.name and ".cache" not in str(path):
                found[str(path)] = (path.read_bytes(), about.st_mode, about.st_uid, about.st_gid)
    return found


def run_story(base: Path, folder: Path) -> None:
    """From nothing to a plot, again, and back. AssertionError says what went wrong."""
    keys = KeyRing.generate(folder / "keys")
    with ExitStack() as stack:
        debian = Debian(folder, base, keys)
        stack.callback(end_popen, debian.process)
        xvfb = Xvfb(folder / "xvfb")
        stack.callback(xvfb.stop)
        home = ClientHome(folder / "home", folder, folder)
        home.config.write_text(
            client_block(debian, "server", home.known_hosts, "StrictHostKeyChecking accept-new")
        )
        environment = home.environment(xvfb)

        def xssh(*words: str, status: int = 0) -> str:
            started = time.monotonic()
            argv = [*xssh_command(), *home.arguments, *words]
            done = subprocess.run(argv, env=environment, capture_output=True, text=True)
            print(f"$ xssh {' '.join(words)}    # {time.monotonic() - started:.1f} s")
            print(done.stdout + done.stderr, flush=True)
            assert done.returncode == status, done.returncode
            return done.stdout

        # The overlay is seen through the server's own mount namespace.
        inside = Path(f"/proc/{child_of(debian.process.pid)}/root")
        before = state_of(inside)
        xssh("--setup", "--dry-run", "server", PYTHON)
        assert state_of(inside) == before
        assert xssh("--setup", "--yes", "server", PYTHON).count("  done  ") == 2
        assert debian.process.poll() is None
        plot = [*xssh_command(), *home.arguments, "--share=no", "--x11", "native", "server"]
        shown = subprocess.Popen([*plot, f'{PYTHON} -c "{PLOT}"'], env=environment)
        stack.callback(end_popen, shown)
        with Screen.of(xvfb) as screen:
            window = screen.find_window("squares", timeout=90)
            print("a window came: squares", flush=True)
            screen.close_window(window)
        assert shown.wait(30) == 0
        assert xssh("--setup", "server", PYTHON) == "Nothing to do on server.\n"
        xssh("--setup", "--undo", "--yes", "server")
        assert state_of(inside) == before
        assert not (inside / "usr/bin/xauth").exists()
        xssh("--setup", "--dry-run", "server", PYTHON)
        argv = [*xssh_command(), *home.arguments]
        try_rights(child_of(debian.process.pid), inside, argv, environment)


RIGHTS = {
    "sudo": "apt-get -qq -y install sudo && adduser -q demo sudo",
    "sudo with requiretty": "echo 'Defaults requiretty' >/etc/sudoers.d/tty",
    "doas": "SUDO_FORCE_REMOVE=yes dpkg --remove sudo && apt-get -qq -y install opendoas &&"
    " echo 'permit demo' >/etc/doas.conf",
}
USER = """
set -e
export DEBIAN_FRONTEND=noninteractive
useradd -m -s /bin/sh demo
echo demo:secret | chpasswd
cp -r /root/.ssh /home/demo
chown -R demo /home/demo
apt-get -qq update
"""


def try_rights(pid: int, inside: Path, xssh: list[str], environment: dict[str, str]) -> None:
    """Set up and take back as a login that has to ask for root's rights."""

    def change(script: str) -> None:
        argv = ["nsenter", "-m", "-p", "-r", "-w", "-t", str(pid), "sh", "-c", script]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    change(USER)
    for name, script in RIGHTS.items():
        change(script)
        before = state_of(inside)
        asked = rf"\[{name.partition(' ')[0]}\] password for demo@server: "
        for words in ([], ["--undo"]):
            terminal = Terminal([*xssh, "--setup", *words, "-l", "demo", "server"], env=environment)
            try:
                for wrong in (True, False):
                    terminal.read_until(asked, timeout=60)
                    terminal.write("wrong\n" if wrong else "secret\n")
                terminal.read_until(r"Do this on server\? ", timeout=60)
                terminal.write("y\n")
                if words:
                    terminal.read_until("Remove the packages too", timeout=60)
                    terminal.write("y\n")
                assert terminal.wait(300) == 0, terminal.output
                assert b"secret" not in terminal.output
            finally:
                terminal.close()
            assert (state_of(inside) == before) == bool(words), words
        print(f"as a user: {name}", flush=True)


def child_of(pid: int) -> int:
    """Return the pid of a process's only child, as this namespace has it."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="a Debian that debootstrap made")
    arguments = parser.parse_args()
    if os.getuid():
        print("this needs root", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="xssh-debian-") as name:
        folder = Path(name)
        base = arguments.root or folder / "base"
        if arguments.root is None:
            make_base(base)
        run_story(base, folder)
    print("all of it worked")
    return 0


if __name__ == "__main__":
    sys.exit(main())
