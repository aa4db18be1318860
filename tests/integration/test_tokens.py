"""Keys in hardware beside ssh: PKCS#11 tokens (SoftHSM), and security keys as far as files go."""

from __future__ import annotations

import base64
import glob
import importlib.util
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest
from asyncssh.sk_eddsa import _SKEd25519Key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.agents import Agent
from tests.support.beside import Beside, write_askpass
from tests.support.clients import ClientHome
from tests.support.processes import run
from tests.support.sshd import SshServer, generate_key
from tests.support.startfile import add_start_file, hide_module
from tests.support.terminals import Terminal
from tests.support.tools import require_tool, skip_or_fail

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/*/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
PIN = "5678"


@pytest.fixture
def login(
    sshd: SshServer, client_home: ClientHome, spawn_in_pty: Callable[..., Terminal]
) -> Beside:
    """A server, and a configuration that names no key."""
    found = Beside(client_home, sshd, spawn_in_pty)
    found.forget_keys()
    return found


# PKCS#11


class Token:
    """A SoftHSM token with an RSA key and an ECDSA key."""

    def __init__(self, directory: Path) -> None:
        require_tool("softhsm2-util")
        found = [path for pattern in MODULES for path in glob.glob(pattern)]
        if not found:
            skip_or_fail("no libsofthsm2.so")
        self.module = found[0]
        tokens = directory / "tokens"
        tokens.mkdir()
        config = directory / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(config)}
        self._directory = directory
        self._run("--init-token", "--free", "--label", "card", "--so-pin", "1234", "--pin", PIN)
        for number, kind in enumerate(("rsa", "ecdsa"), start=1):
            generate_key(directory / kind, kind)
            private = asyncssh.read_private_key(directory / kind)
            private.write_private_key(directory / f"{kind}.pem", "pkcs8-pem")
            words = ["--token", "card", "--label", f"my {kind}", "--id", f"0{number}"]
            self._run("--import", str(directory / f"{kind}.pem"), *words, "--pin", PIN)

    def _run(self, *words: str) -> None:
        argv = [require_tool("softhsm2-util"), *words]
        subprocess.run(argv, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def key(self, kind: str) -> Path:
        return self._directory / kind


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    if importlib.util.find_spec("pkcs11") is None:
        skip_or_fail("python-pkcs11 is not installed")
    return Token(tmp_path_factory.mktemp("token"))


@pytest.fixture
def carded(login: Beside, token: Token) -> Beside:
    """The server lets the token's keys in."""
    for kind in ("rsa", "ecdsa"):
        login.server.authorize(token.key(kind))  # type: ignore[union-attr]
    login.variables.update(token.environment)
    return login


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["-I", "{module}"], 1),
        (["-oPKCS11Provider={module}"], 1),
        (["-I", "{module}", "-oPubkeyAcceptedAlgorithms=rsa-sha2-256"], 1),
        (["-I", "{module}", "-oPubkeyAcceptedAlgorithms=ecdsa-sha2-nistp256"], 1),
        (["-I", "{module}", "-oIdentitiesOnly=yes", "-i", "{ecdsa}"], 1),
    ],
)
def test_pkcs11provider_logs_in_with_the_tokens_key(
    carded: Beside, token: Token, words: list[str], steps: int
) -> None:
    names = {"module": token.module, "ecdsa": f"{token.key('ecdsa')}.pub"}
    argv = [*(word.format(**names) for word in words), "server", "echo in"]
    terminal = carded.converse_both(argv, [("Enter PIN for 'card': ", f"{PIN}\n")] * steps)
    assert terminal.process.returncode == 0
    assert terminal.output.endswith(b"in\r\n")


def test_pkcs11provider_asks_for_no_pin_where_the_server_wants_no_key(
    login: Beside, token: Token, tmp_path: Path
) -> None:
    login.variables.update(token.environment)
    generate_key(tmp_path / "key", "ed25519")
    login.server.authorize(tmp_path / "key")  # type: ignore[union-attr]
    words = ["-I", token.module, "-i", str(tmp_path / "key"), "server", "echo in"]
    assert login.converse_both(words, []).process.returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ["-I", "/nonexistent.so"],
        ["-I", "/etc/passwd"],
        ["-I", "{module}", "-oBatchMode=yes"],
        ["-I", "{module}", "-oIdentitiesOnly=yes"],
        ["-oPKCS11Provider=none"],
    ],
)
def test_pkcs11provider_that_gives_no_key(carded: Beside, token: Token, words: list[str]) -> None:
    argv = [*(word.format(module=token.module) for word in words), "server", "echo in"]
    assert carded.both("-oPasswordAuthentication=no", *argv).status == 255


def test_a_wrong_pin_is_asked_for_once_with_each_key(carded: Beside, token: Token) -> None:
    words = ["-I", token.module, "-oPasswordAuthentication=no", "server", "echo in"]
    steps = [("Enter PIN for 'card': ", "12345\n"), ("Enter PIN for 'card': ", f"{PIN}\n")]
    terminal = carded.converse_both(words, steps)
    assert b"PKCS#11 login failed: PIN incorrect" in terminal.output
    assert terminal.process.returncode == 0


def test_the_pin_comes_from_askpass(carded: Beside, token: Token) -> None:
    askpass, record = write_askpass(carded.home.path, [PIN])
    carded.variables.update(SSH_ASKPASS=str(askpass), SSH_ASKPASS_REQUIRE="force")
    assert carded.run("xssh", "-I", token.module, "server", "echo in") == (0, b"in\n", "")
    assert record.read_text() == "Enter PIN for 'card': \n"


def test_without_the_package_a_line_names_it(carded: Beside, token: Token, tmp_path: Path) -> None:
    """Python finds no pkcs11 here, as where the extra was not installed."""
    generate_key(tmp_path / "key", "ed25519")
    carded.server.authorize(tmp_path / "key")  # type: ignore[union-attr]
    hide_module("pkcs11", tmp_path, carded.variables)
    words = ["-I", token.module, "-i", str(tmp_path / "key"), "server", "echo in"]
    done = carded.run("xssh", *words)
    assert (done.status, done.stdout) == (0, b"in\n")
    assert "pip install 'xsshpy[pkcs11]'" in done.stderr


# Security keys


@pytest.fixture
def hosted(tmp_path: Path, login: Beside) -> Path:
    """A key file whose private half would be in a security key; the server lets it in."""
    return make_hosted(tmp_path, login, flags=1)


def make_hosted(directory: Path, login: Beside, flags: int) -> Path:
    secret = Ed25519PrivateKey.generate()
    key = _SKEd25519Key(secret.public_key().public_bytes_raw(), "ssh:", flags, b"h" * 64)
    key.set_comment("a token")
    path = directory / "id_ed25519_sk"
    key.write_private_key(path)
    path.chmod(0o600)
    key.convert_to_public().write_public_key(f"{path}.pub")
    (directory / "secret").write_text(base64.b64encode(secret.private_bytes_raw()).decode())
    login.server.authorize(path)  # type: ignore[union-attr]
    return path


@pytest.fixture
def other(tmp_path: Path, login: Beside) -> Path:
    generate_key(tmp_path / "other", "ed25519")
    login.server.authorize(tmp_path / "other")  # type: ignore[union-attr]
    return tmp_path / "other"


@pytest.mark.parametrize("provider", ["internal", "/nonexistent.so"])
def test_securitykeyprovider_that_can_not_sign_leaves_the_next_key(
    login: Beside, hosted: Path, other: Path, provider: str
) -> None:
    words = ["-i", str(hosted), "-i", str(other), f"-oSecurityKeyProvider={provider}"]
    for program in ("ssh", "xssh"):
        done = login.run(program, *words, "server", "echo in")
        assert (done.status, done.stdout) == (0, b"in\n"), done
        failed = f'sign_and_send_pubkey: signing failed for ED25519-SK "{hosted}": '
        assert failed in done.stderr
    if provider != "internal":
        assert f"SecurityKeyProvider {provider} is not supported" in done.stderr


def test_securitykeyprovider_none_passes_security_keys_over(
    login: Beside, hosted: Path, other: Path
) -> None:
    words = ["-i", str(hosted), "-i", str(other), "-oSecurityKeyProvider=none"]
    assert login.both(*words, "server", "echo in") == (0, b"in\n", "")


def test_without_fido2_a_line_names_it(
    login: Beside, hosted: Path, other: Path, tmp_path: Path
) -> None:
    hide_module("fido2", tmp_path, login.variables)
    done = login.run("xssh", "-i", str(hosted), "-i", str(other), "server", "echo in")
    assert (done.status, done.stdout) == (0, b"in\n")
    assert "pip install 'xsshpy[fido2]'" in done.stderr


TOKEN = """
import base64, hashlib
import asyncssh.sk, asyncssh.sk_eddsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

def sign(data, application, handle, flags, is_webauthn=False):
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(open({path!r}).read()))
    what = hashlib.sha256(application.encode()).digest() + bytes([flags]) + bytes(3) + b"\\x07"
    return flags, 7, key.sign(what + hashlib.sha256(data).digest()), data

asyncssh.sk.sk_available = True
asyncssh.sk_eddsa.sk_sign = sign
"""


def test_a_security_key_signs(login: Beside, hosted: Path, tmp_path: Path) -> None:
    """With a stand-in for the token: sshd takes the signature, and the touch is asked for."""
    add_start_file(tmp_path, login.variables, TOKEN.format(path=str(tmp_path / "secret")))
    done = login.run("xssh", "-i", str(hosted), "server", "echo in")
    assert (done.status, done.stdout) == (0, b"in\n")
    assert done.stderr.startswith("Confirm user presence for key ED25519-SK SHA256:")


def test_a_security_key_that_wants_its_pin(login: Beside, tmp_path: Path) -> None:
    path = make_hosted(tmp_path, login, flags=5)
    add_start_file(tmp_path, login.variables, TOKEN.format(path=str(tmp_path / "secret")))
    done = login.run("xssh", "-i", str(path), "-oBatchMode=yes", "server", "echo in")
    assert done.status == 255
    assert "wants its PIN" in done.stderr


@pytest.fixture
def agent(short_directory: Path) -> Iterator[Agent]:
    with Agent(short_directory / "agent") as running:
        yield running


def test_the_agent_takes_security_keys(login: Beside, hosted: Path, agent: Agent) -> None:
    login.variables["SSH_AUTH_SOCK"] = agent.path
    for program in ("ssh", "xssh"):
        login.run(program, "-oAddKeysToAgent=yes", "-i", str(hosted), "server", "true")
        assert "a token (ED25519-SK)" in agent.keys()[0]
        agent.clear()
    agent.add(hosted)
    done = login.both("-oPasswordAuthentication=no", "server", "echo in")
    assert 'failed for ED25519-SK "a token" from agent: agent refused operation' in done.stderr


def test_the_agent_holds_a_pkcs11_key(carded: Beside, token: Token, short_directory: Path) -> None:
    """ssh-add -s, with the PIN from askpass."""
    askpass, _ = write_askpass(carded.home.path, [PIN])
    with Agent(short_directory / "agent", **token.environment) as agent:
        carded.variables["SSH_AUTH_SOCK"] = agent.path
        asking = {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
        words = ["ssh-add", "-q", "-s", token.module]
        done = run(words, env={**carded.environment(), **asking})
        assert done.status == 0, done
        assert carded.both("server", "echo in") == (0, b"in\n", "")
