"""UpdateHostKeys: takes a server's other host keys, beside the session and without holding it up.

``hostkey_update`` says what is to be done; here the files are read and written, in an executor, and
the server is asked for its proof. Nothing is said at the normal level where all goes well. Only
``ask`` waits for the user, before there is a session.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Final, Protocol

import asyncssh
from asyncssh.packet import PacketDecodeError, SSHPacket, String
from asyncssh.public_key import decode_ssh_public_key

from xsshpy.console import Console, LogLevel
from xsshpy.settings import Settings
from xsshpy.ssh.hostkey_texts import Line
from xsshpy.ssh.hostkey_update import (
    PROOF_REQUEST,
    AnnouncementError,
    HostSpec,
    UpdatePlan,
    describe_update,
    parse_announcement,
    plan_lines,
    plan_update,
    rewrite_known_hosts,
)
from xsshpy.ssh.keyblob import HostKey, plain_algorithm
from xsshpy.ssh.known_hosts import KnownHosts
from xsshpy.ssh.known_hosts_file import load_known_hosts, rewrite_file
from xsshpy.values import dataclass

FINISH_DEADLINE: Final = 1.0
"""Seconds that the end of a run waits for an update that is under way."""

_PROOF_DEADLINE: Final = 10.0
"""Seconds for the server to sign with its other keys."""
_MOST_QUESTIONS: Final = 3
_RSA_PROOFS: Final = ("rsa-sha2-256", "rsa-sha2-512")
_CONFIRM: Final = "client_global_hostkeys_prove_confirm"
_QUESTION: Final = "Accept updated hostkeys? (yes/no): "


class Prover(Protocol):
    """A connection whose server can prove that it has a key."""

    host_key_algorithm: str

    async def prove_host_keys(self, request: bytes, keys: Sequence[bytes]) -> bytes | None:
        """Return the server's signatures with these keys, None where it gives none."""

    @property
    def session_id(self) -> bytes:
        """What names the connection; it is signed with."""


class _UntrustedProofError(Exception):
    """The server's proof does not hold; the text says why, as OpenSSH does."""


@dataclass(frozen=True)
class _Proved:
    """The keys to put on record, and those among them that are new."""

    keys: tuple[HostKey, ...]
    new: tuple[HostKey, ...]


def wants_update(settings: Settings, *, may_ask: bool) -> bool:
    """Tell whether UpdateHostKeys is on for this run; ``ask`` is where the user may be asked."""
    return settings.update_host_keys == "yes" or (may_ask and settings.update_host_keys == "ask")


class HostKeyUpdater:
    """The update of one connection's host's records; it happens once at most."""

    def __init__(
        self, settings: Settings, console: Console, spec: HostSpec, *, may_ask: bool
    ) -> None:
        self._settings = settings
        self._console = console
        self._spec = spec
        self._task: asyncio.Task[None] | None = None
        self.asks = settings.update_host_keys == "ask"
        self.is_wanted = wants_update(settings, may_ask=may_ask) and bool(_user_files(settings))
        if self.asks and settings.batch_mode:
            self.is_wanted = False

    def begin(self, connection: Prover, payload: bytes) -> None:
        """Take the server's list of keys; the rest goes on by itself."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._update(connection, payload))

    @property
    def has_begun(self) -> bool:
        """Whether the server has announced its keys."""
        return self._task is not None

    async def settle(self) -> None:
        """Wait until the update is done, however long the user thinks about it."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def finish(self) -> None:
        """Let an update under way come to its end, if that is soon."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=FINISH_DEADLINE)
            self.cancel()

    def cancel(self) -> None:
        """Leave everything as it is."""
        if self._task is not None:
            self._task.cancel()

    async def _update(self, connection: Prover, payload: bytes) -> None:
        try:
            offered = parse_announcement(payload, self._settings.host_key_algorithms)
        except AnnouncementError as error:
            self._console.error(f"client_input_hostkeys: {error}")
            return
        loop = asyncio.get_running_loop()
        known = await loop.run_in_executor(None, load_known_hosts, _user_files(self._settings), ())
        if known.unreadable:
            path, reason = known.unreadable[0]
            where = "client_input_hostkeys: hostkeys_foreach failed for"
            self._console.error(f"{where} {path}: {reason}")
            return
        plan = await loop.run_in_executor(None, self._plan, offered, known)
        self._say(plan_lines(plan))
        if plan.obstacle:
            return
        try:
            proved = await self._prove(connection, plan)
        except _UntrustedProofError as error:
            self._console.error(str(error))
            return
        hash_name = self._settings.fingerprint_hash
        self._say(describe_update(proved.new, plan.obsolete, hash_name, asking=self.asks))
        if self.asks and not await self._user_agrees():
            return
        self._say(await loop.run_in_executor(None, self._write, proved.keys))

    def _plan(self, offered: tuple[HostKey, ...], known: KnownHosts) -> UpdatePlan:
        return plan_update(offered, known.lines, self._spec)

    def _say(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self._console.log(line.level, line.text)

    async def _prove(self, connection: Prover, plan: UpdatePlan) -> _Proved:
        """Let the server sign with each key that is new."""
        if not plan.new:
            return _Proved(plan.offered, ())
        blobs = [key.blob for key in plan.new]
        asking = connection.prove_host_keys(PROOF_REQUEST, blobs)
        try:
            signatures = await asyncio.wait_for(asking, _PROOF_DEADLINE)
        except (TimeoutError, asyncio.TimeoutError):
            signatures = None
        if signatures is None:
            raise _UntrustedProofError("Server failed to confirm ownership of private host keys")
        signed = String(PROOF_REQUEST) + String(connection.session_id)
        packet = SSHPacket(signatures)
        proved = []
        try:
            for key in plan.new:
                number = plan.offered.index(key)
                if _is_proved(key, number, signed, packet.get_string(), connection):
                    proved.append(key)
        except PacketDecodeError:
            raise _UntrustedProofError(f"{_CONFIRM}: parse sig: incomplete message") from None
        if packet:
            raise _UntrustedProofError(f"{_CONFIRM}: protocol error")
        dropped = set(plan.new) - set(proved)
        return _Proved(tuple(key for key in plan.offered if key not in dropped), tuple(proved))

    async def _user_agrees(self) -> bool:
        for _attempt in range(_MOST_QUESTIONS):
            answer = await self._console.ask_line(_QUESTION)
            if answer is None:
                return False
            if answer.lower() in ("yes", "no"):
                return answer.lower() == "yes"
            self._console.notice('Please enter "yes" or "no"')
        return False

    def _write(self, keys: tuple[HostKey, ...]) -> list[Line]:
        """Change the files: keys are added to the first, and only removed from the others."""
        said: list[Line] = []
        for path in _user_files(self._settings):
            rewriting = _Rewriting(self._settings, self._spec, path, keys, [])
            reason = rewrite_file(path, rewriting)
            said += rewriting.said
            keys = ()
            if reason is not None:
                text = f"update_known_hosts: hostfile_replace_entries failed for {path}: {reason}"
                said.append(Line(LogLevel.ERROR, text))
        return said


@dataclass(frozen=True)
class _Rewriting:
    """What becomes of one file's contents; ``said`` is then what is to be said about it."""

    settings: Settings
    spec: HostSpec
    path: str
    keys: tuple[HostKey, ...]
    said: list[Line]

    def __call__(self, data: bytes) -> bytes | None:
        """Return the new contents, None where they are the old ones."""
        rewritten = rewrite_known_hosts(
            data,
            self.path,
            self.spec,
            self.keys,
            make_salt=os.urandom if self.settings.hash_known_hosts else None,
            hash_name=self.settings.fingerprint_hash,
        )
        self.said[:] = rewritten.lines  # the file may change meanwhile, and be read again
        return rewritten.data if rewritten.changed else None


def _user_files(settings: Settings) -> tuple[str, ...]:
    files = settings.user_known_hosts_files
    return () if [path.lower() for path in files] == ["none"] else files


def _is_proved(
    key: HostKey, number: int, signed: bytes, signature: bytes, connection: Prover
) -> bool:
    """Tell whether the server has the key; False for a kind of signature that is not to be trusted.

    ``number`` is the key's place in the server's list, ``signed`` what comes before the key in what
    is signed. Raises _UntrustedProofError for a signature that is wrong.
    """
    algorithm = SSHPacket(signature).get_string().decode("ascii", "replace")
    if key.algorithm == "ssh-rsa":
        # SHA-1 only where the server was accepted by such a signature in the first place.
        negotiated = connection.host_key_algorithm.replace("-cert-v01@openssh.com", "")
        by_rsa = plain_algorithm(negotiated) == "ssh-rsa"
        if algorithm not in ((negotiated,) if by_rsa else _RSA_PROOFS):
            if not by_rsa:
                return False
            raise _bad_signature(key, number)
    try:
        good = decode_ssh_public_key(key.blob).verify(signed + String(key.blob), signature)
    except (asyncssh.KeyImportError, ValueError):
        good = False
    if not good:
        raise _bad_signature(key, number)
    return True


def _bad_signature(key: HostKey, number: int) -> _UntrustedProofError:
    return _UntrustedProofError(
        f"{_CONFIRM}: server gave bad signature for {key.display_name} key {number}: "
        "incorrect signature"
    )
