"""Key files beside ssh: which are read, what is said of bad ones, and how they may sign."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.asyncserver import AsyncServer, Policy, Round
from tests.support.beside import Beside
from tests.support.clients import ClientHome
from tests.support.sshd import KeyRing, SshServer, generate_key
from tests.support.terminals import Terminal
from tests.support.tools import require_tool

ONLY_KEYS = ("-oPasswordAuthentication=no", "-oKbdInteractiveAuthentication=no")
PEM = "-----BEGIN {0} PRIVATE KEY-----\nAAAA\n-----END {0} PRIVATE KEY-----\n"
PKCS8 = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    for name, kind in (("ed", "ed25519"), ("rsa", "rsa"), ("ca", "ed25519")):
        generate_key(directory / name, kind)
    generate_key(directory / "locked", "ed25519", "secret")
    keygen = require_tool("ssh-keygen")
    shutil.copy(directory / "rsa", directory / "pem")
    for words in (
        ["-p", "-m", "PEM", "-P", "", "-N", "", "-f", directory / "pem"],
        ["-s", directory / "ca", "-I", "me", "-n", "demo", directory / "ed.pub"],
    ):
        subprocess.run([keygen, "-q", *words], check=True, stdout=subprocess.DEVNULL)
    return directory


@pytest.fixture
def login(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    keys: Path,
) -> Beside:
    """OpenSSH's server takes the plain keys, and what ``ca`` certifies for demo."""
    server = make_sshd(config=f"TrustedUserCAKeys {keys / 'ca.pub'}")
    for name in ("rsa", "locked"):
        server.authorize(keys / name)
    found = Beside(client_home, server, spawn_in_pty)
    found.forget_keys()
    return found


@pytest.mark.parametrize(
    "text",
    ["", "hello\n", PEM.format("OPENSSH"), PEM.format("RSA"), PEM.format("EC"), PKCS8, "a" * 5000],
    ids=["empty", "text", "openssh", "rsa", "ec", "pkcs8", "long"],
)
def test_what_is_said_of_a_file_that_holds_no_key(login: Beside, text: str) -> None:
    path = login.home.path / "bad"
    path.write_text(text)
    path.chmod(0o600)
    done = login.both("-i", str(path), *ONLY_KEYS, "server", "true")
    assert f'Load key "{path}": ' in done.stderr


def test_a_public_key_in_place_of_a_private_one(login: Beside, keys: Path) -> None:
    path = login.home.path / "id.pub"
    shutil.copy(keys / "rsa.pub", path)
    path.chmod(0o600)
    done = login.both("-i", str(path), *ONLY_KEYS, "server", "true")
    assert done.status == 255


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o060, 0o777, 0o700])
def test_permissions_of_a_key(login: Beside, keys: Path, mode: int) -> None:
    path = login.home.path / "id"
    shutil.copy(keys / "rsa", path)
    path.chmod(mode)
    login.both("-i", str(path), *ONLY_KEYS, "server", "true")


@pytest.mark.parametrize("name", ["rsa", "pem"])
@pytest.mark.parametrize("size", [2048, 4096])
def test_requiredrsasize_holds_for_ones_own_keys(
    login: Beside, keys: Path, name: str, size: int
) -> None:
    words = ["-i", str(keys / name), f"-oRequiredRSASize={size}", *ONLY_KEYS]
    # The host key is another one, or it would be refused first.
    done = login.both(*words, "-oHostKeyAlgorithms=ssh-ed25519", "server", "echo in")
    assert done.status == (255 if size == 4096 else 0)


@pytest.mark.parametrize(
    "value", ["rsa-sha2-256", "rsa-sha2-512", "ssh-rsa", "+ssh-rsa", "-rsa-sha2-512", "ssh-ed25519"]
)
def test_pubkeyacceptedalgorithms_decides_what_signs(login: Beside, keys: Path, value: str) -> None:
    words = ["-i", str(keys / "rsa"), f"-oPubkeyAcceptedAlgorithms={value}", *ONLY_KEYS]
    done = login.both(*words, "server", "echo in")
    assert done.status == (255 if value in ("ssh-rsa", "ssh-ed25519") else 0)


@pytest.mark.parametrize("value", ["%d/%r-{alias}-%u", "~/keys/%p", "%d/100%%", "none", "%d/$x"])
def test_identityfile_takes_tokens_and_none(login: Beside, keys: Path, value: str) -> None:
    home, user = login.home.path, login.server.user
    name = login.home.environment().get("USER") or "tester"
    (home / "keys").mkdir()
    for path in (f"{user}-server-{name}", f"keys/{login.server.port}", "100%", "$x"):
        for suffix in ("", ".pub"):
            shutil.copy(f"{keys / 'rsa'}{suffix}", home / f"{path}{suffix}")
    option = f"-oIdentityFile={value.format(alias='%n')}"
    login.both(option, *ONLY_KEYS, "server", "echo in")


def test_identityfile_is_tried_in_its_order(
    login: Beside, keys: Path, key_ring: KeyRing, spawn_in_pty: Callable[..., Terminal]
) -> None:
    with_many = [f"-oIdentityFile={keys / name}" for name in ("ca", "rsa", "ed", "ca")]
    server = AsyncServer(
        Policy(keys=(keys / "locked.pub",), most_tries=50),
        key_ring.host_keys["ed25519"],
        key_ring.client_key,
    )
    try:
        other = Beside(login.home, server, spawn_in_pty)
        other.home.config.write_text(other.home.config.read_text().replace("Host server", "Host o"))
        other.both(*with_many, "-oBatchMode=yes", "o", "hi")
    finally:
        server.stop()


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("certificate", ["ed-cert.pub", "rsa.pub", "missing"])
def test_certificatefile_with_and_without_its_key(
    login: Beside, keys: Path, beside: bool, certificate: str
) -> None:
    key = login.home.path / "id"
    shutil.copy(keys / "ed", key)
    words = [f"-oCertificateFile={keys / certificate}", *(["-i", str(key)] if beside else [])]
    done = login.both(*words, *ONLY_KEYS, "server", "echo in")
    assert done.status == (0 if beside and certificate == "ed-cert.pub" else 255)


@pytest.mark.parametrize("prompts", [0, 1, 2])
def test_numberofpasswordprompts_counts_passphrases_too(
    login: Beside, keys: Path, prompts: int
) -> None:
    words = ["-i", str(keys / "locked"), f"-oNumberOfPasswordPrompts={prompts}", *ONLY_KEYS]
    steps = [("Enter passphrase for key", "wrong\n")] * prompts
    assert login.converse_both([*words, "server", "true"], steps).process.returncode == 255


@pytest.fixture
def interactive(
    client_home: ClientHome, key_ring: KeyRing, spawn_in_pty: Callable[..., Terminal]
) -> Iterator[Beside]:
    policy = Policy(
        steps=(("keyboard-interactive",),), rounds=(Round((("Code: ", False),), ("123",)),)
    )
    server = AsyncServer(policy, key_ring.host_keys["ed25519"], key_ring.client_key)
    yield Beside(client_home, server, spawn_in_pty)
    server.stop()


@pytest.mark.parametrize("value", ["pam", "pam,bsdauth"])
def test_kbdinteractivedevices_are_named_to_the_server(interactive: Beside, value: str) -> None:
    words = [f"-oKbdInteractiveDevices={value}", "server", "hi"]
    interactive.converse_both(words, [("Code: ", "123\n")])
    assert f"devices {value}" in interactive.requests()
