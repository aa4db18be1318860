"""An SSH server that logs people in by its own rules, and writes down what they tried.

OpenSSH's sshd needs PAM for keyboard-interactive, for expired passwords and for second factors.
This one has them without: it speaks the protocol through asyncssh's server side, on loopback, in a
thread of the test's process. ssh and xssh log in to it alike.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.packet import String

from tests.support.sshd import client_block

STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Round:
    """One round of keyboard-interactive: prompts with their echo, and the right answers."""

    prompts: tuple[tuple[str, bool], ...] = ()
    answers: tuple[str, ...] = ()
    name: str = ""
    instruction: str = ""


@dataclass(frozen=True)
class Policy:
    """Who may come in, and how.

    ``steps``: one after another has to succeed, each by any of its methods; a login with more than
    one step is a "partial success" in between. ``keys``: public key files that are accepted.
    ``expired``: what the server says when it wants a new password instead of ``password``.
    ``farewell``: the server disconnects with these words at the first real request.
    ``most_tries``: as sshd's MaxAuthTries. ``silent_interactive``: keyboard-interactive fails
    without any question. ``messages``: sent as SSH_MSG_DEBUG with "always display".
    ``announced``: files of the host keys that it says it has, once one is logged in. ``proof``: how
    it proves that: "right", "refused", "none" (no answer), "wrong" (it signed something else),
    "short" (a signature is missing), "long" (something follows), "sha1" (for RSA).
    """

    steps: tuple[tuple[str, ...], ...] = (("publickey",),)
    keys: tuple[Path, ...] = ()
    password: str = ""
    expired: str = ""
    new_password: str = ""
    rounds: tuple[Round, ...] = ()
    banner: str = ""
    farewell: str = ""
    most_tries: int = 6
    silent_interactive: bool = False
    version: str = ""
    announced: tuple[Path, ...] = ()
    proof: str = "right"


class _Connection(asyncssh.SSHServerConnection):
    """Adds to asyncssh's server what it leaves out: partial success, and a limit of tries."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: Any, policy: Policy, log: list[str]
    ) -> None:
        super().__init__(loop, options)
        self.policy = policy
        self.log = log
        self.step = 0
        self.tries = 0

    def _note_request(self, pkttype: int, pktid: int, packet: Any) -> Any:
        payload = asyncssh.packet.SSHPacket(packet.get_remaining_payload())
        user, _, method = (payload.get_string().decode() for _ in range(3))
        line = f"request {user} {method}"
        if method == "publickey":
            signed = payload.get_boolean()
            algorithm = payload.get_string().decode()
            key = asyncssh.public_key.decode_ssh_certificate if "-cert-" in algorithm else None
            blob = payload.get_string()
            plain = key(blob).key if key else asyncssh.public_key.decode_ssh_public_key(blob)
            line += f" {'signed' if signed else 'test'} {algorithm} {plain.get_fingerprint()}"
        self.log.append(line)
        if self.policy.farewell and method != "none":
            self.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, self.policy.farewell)
            return None
        return self._process_userauth_request(pkttype, pktid, packet)

    _packet_handlers = {  # noqa: RUF012  (asyncssh declares it so)
        **asyncssh.SSHServerConnection._packet_handlers,
        asyncssh.constants.MSG_USERAUTH_REQUEST: _note_request,
    }

    def send_userauth_failure(self, partial_success: bool) -> None:
        if not partial_success:
            self.tries += 1
            if self.tries > self.policy.most_tries:
                self.log.append("too many tries")
                self.disconnect(asyncssh.DISC_PROTOCOL_ERROR, "Too many authentication failures")
                return
        super().send_userauth_failure(partial_success)

    async def send_userauth_success(self) -> None:
        self.step += 1
        if self.step < len(self.policy.steps):
            self.log.append("partial success")
            self.send_userauth_failure(True)
            return
        self.log.append("success")
        await super().send_userauth_success()
        if self.policy.announced:
            blobs = [asyncssh.read_public_key(path).public_data for path in self.policy.announced]
            self._send_global_request(b"hostkeys-00@openssh.com", *map(String, blobs))

    def _process_hostkeys_prove_00_at_openssh_dot_com_global_request(self, packet: Any) -> None:
        how = self.policy.proof
        keys = {key.public_data: key for key in map(asyncssh.read_private_key, self._key_files())}
        signatures = []
        while packet:
            blob = packet.get_string()
            self.log.append(f"prove {keys[blob].get_algorithm()}")
            signed = b"else" if how == "wrong" else b"hostkeys-prove-00@openssh.com"
            data = String(signed) + String(self._session_id) + String(blob)
            is_rsa = keys[blob].algorithm == b"ssh-rsa"
            algorithm = b"rsa-sha2-512" if is_rsa else keys[blob].algorithm
            if is_rsa and how == "sha1":
                algorithm = b"ssh-rsa"
            signatures.append(String(keys[blob].sign(data, algorithm)))
        del signatures[len(signatures) - (how == "short") :]
        if how != "none":
            answer = b"".join(signatures) + (b"more" if how == "long" else b"")
            self._report_global_response(answer if how != "refused" else False)

    def _key_files(self) -> list[Path]:
        return [path.with_suffix("") for path in self.policy.announced]


class _Owner(asyncssh.SSHServer):
    def __init__(self, policy: Policy, log: list[str]) -> None:
        self._policy = policy
        self._log = log
        self._keys = [asyncssh.read_public_key(path).public_data for path in policy.keys]
        self._round = 0
        self._connection: _Connection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        assert isinstance(conn, _Connection)
        self._connection = conn
        self._log.append("connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._log.append("connection lost")

    def _offers(self, method: str) -> bool:
        assert self._connection is not None
        return method in self._policy.steps[min(self._connection.step, len(self._policy.steps) - 1)]

    def begin_auth(self, username: str) -> bool:
        assert self._connection is not None
        if self._policy.banner:
            self._connection.send_auth_banner(self._policy.banner)
        return True

    def public_key_auth_supported(self) -> bool:
        return self._offers("publickey")

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return key.public_data in self._keys

    def password_auth_supported(self) -> bool:
        return self._offers("password")

    def validate_password(self, username: str, password: str) -> bool:
        self._log.append(f"password {password!r}")
        right = password == self._policy.password
        if right and self._policy.expired:
            raise asyncssh.PasswordChangeRequired(self._policy.expired)
        return right

    def change_password(self, username: str, old_password: str, new_password: str) -> bool:
        self._log.append(f"change {old_password!r} {new_password!r}")
        if (old_password, new_password) == (self._policy.password, self._policy.new_password):
            return True
        raise asyncssh.PasswordChangeRequired(self._policy.expired)

    def kbdint_auth_supported(self) -> bool:
        return self._offers("keyboard-interactive")

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        self._round = 0
        if submethods:
            self._log.append(f"devices {submethods}")
        return False if self._policy.silent_interactive else self._challenge()

    def _challenge(self) -> Any:
        this = self._policy.rounds[self._round]
        return this.name, this.instruction, "", this.prompts

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        self._log.append(f"answers {list(responses)!r}")
        if tuple(responses) != self._policy.rounds[self._round].answers:
            return False
        self._round += 1
        return True if self._round == len(self._policy.rounds) else self._challenge()


async def _serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """``cat`` gives back its input; any other command is said aloud and ends with status 7."""
    if process.command == "cat":
        while piece := await process.stdin.read(65536):
            process.stdout.write(piece)
        process.exit(0)
        return
    process.stdout.write(f"{process.command}\n".encode())
    process.exit(7)


class AsyncServer:
    """One server; ends with ``stop()``. ``log`` is what came in, a line for each event."""

    host = "127.0.0.1"
    user = "demo"

    def __init__(self, policy: Policy, host_key: Path, client_key: Path) -> None:
        self.policy = policy
        self.client_key = str(client_key)
        self.log: list[str] = []
        self._host_key = host_key
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ssh server")
        self._thread.start()
        self._server = self._call(self._listen)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        future = asyncio.run_coroutine_threadsafe(function(), self._loop)
        return future.result(STOP_SECONDS)

    async def serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Do what a session asks for."""
        await _serve(process)

    async def _listen(self) -> asyncio.Server:
        extra = {"server_version": self.policy.version} if self.policy.version else {}
        options = asyncssh.SSHServerConnectionOptions(
            server_factory=lambda: _Owner(self.policy, self.log),
            server_host_keys=[str(self._host_key)],
            process_factory=self.serve,
            encoding=None,
            gss_host=None,
            **extra,
        )

        def accept() -> _Connection:
            connection = _Connection(self._loop, options, self.policy, self.log)
            self._connections.add(connection)
            return connection

        return await self._loop.create_server(accept, self.host, 0)

    def stop(self) -> None:
        """Close every connection, and the thread."""
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.abort()
        for connection in self._connections:
            await connection.wait_closed()
        await self._server.wait_closed()
        await self._loop.shutdown_default_executor()

    def passwords(self) -> list[str]:
        """Return the lines about secrets that came in."""
        return [line for line in self.log if line.split()[0] in ("password", "answers", "change")]

    def offers(self) -> list[str]:
        """Return the keys that were offered: ``test|signed ALGORITHM FINGERPRINT``."""
        lines = [line.split(" ", 3) for line in self.log if line.startswith("request ")]
        return [words[3] for words in lines if words[2] == "publickey"]

    def known_hosts_lines(self, name: str | None = None) -> str:
        """Return the host key as a known_hosts line."""
        words = Path(f"{self._host_key}.pub").read_text().split()
        return f"{name or f'[{self.host}]:{self.port}'} {words[0]} {words[1]}\n"

    def config_text(self, alias: str, *, known_hosts: Path | str, extra: str = "") -> str:
        """Return an ssh_config block for a client; ``extra`` lines come first and so win."""
        return client_block(self, alias, known_hosts, extra)
