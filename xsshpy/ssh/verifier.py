"""Carries out the judgement of host keys: what is on record, the question, the new record."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import asyncssh
from asyncssh.public_key import decode_ssh_certificate, decode_ssh_public_key

from xsshpy.console import Console
from xsshpy.errors import HostKeyError
from xsshpy.settings import Settings
from xsshpy.ssh.hostkey_decisions import (
    Accept,
    AcceptUntrusted,
    Add,
    Addition,
    Decision,
    Refuse,
    settle_host_key,
)
from xsshpy.ssh.hostkey_evidence import Evidence
from xsshpy.ssh.hostkey_policy import Feature, HostKeyPolicy, HostNames, parse_strict_checking
from xsshpy.ssh.hostkey_texts import Line, presented_key_lines
from xsshpy.ssh.hostkey_update import HostSpec
from xsshpy.ssh.hostkey_updater import HostKeyUpdater, Prover, wants_update
from xsshpy.ssh.hostkeys import decide_host_key, decide_without_record
from xsshpy.ssh.keyblob import (
    HostCertificate,
    HostKey,
    KeyBlobError,
    certificate_problem,
    parse_public_key,
)
from xsshpy.ssh.known_hosts import KnownHosts
from xsshpy.ssh.known_hosts_command import Occasion
from xsshpy.ssh.known_hosts_file import add_host_key
from xsshpy.ssh.revoked_keys import RevokedKeys
from xsshpy.tokens import home_directory

_PING = b"keepalive@openssh.com"
_PING_DEADLINE = 5.0
"""Seconds for the server to answer what shows that it has announced its keys."""
_COMPARE = "compare the key's fingerprint with the one that the server's administrator gives you"


class HostKeyVerifier:
    """Judges the host keys of one connection by known_hosts and the settings."""

    def __init__(
        self,
        settings: Settings,
        console: Console,
        evidence: Evidence,
        names: HostNames,
        *,
        wants_x11: bool,
        may_ask: bool,
    ) -> None:
        self._settings = settings
        self._console = console
        self._evidence = evidence
        self._policy = host_key_policy(
            settings, wants_x11=wants_x11, updates=wants_update(settings, may_ask=may_ask)
        )
        self.names = names
        self.disabled: frozenset[Feature] = frozenset()
        address = names.address_name if self._policy.checks_address(names) else None
        spec = HostSpec(names.record_name, address)
        self.updater = HostKeyUpdater(settings, console, spec, may_ask=may_ask)
        self._may_update = False
        self._presented: HostKey | HostCertificate | None = None

    def judge(
        self, key_data: bytes
    ) -> tuple[asyncssh.SSHKey, Callable[[], Awaitable[None]] | None]:
        """See :class:`xsshpy.ssh.connection.HostKeyJudge`."""
        try:
            presented = parse_public_key(key_data)
            key = _decode(key_data, certified=isinstance(presented, HostCertificate))
        except (KeyBlobError, asyncssh.KeyImportError):
            raise HostKeyError("xssh: the server sent a host key that can't be read") from None
        self._presented = presented
        problem = self._certificate_problem(presented)
        for line in presented_key_lines(presented, self._settings.fingerprint_hash):
            self._say(line)
        revocation = self._revocation(presented, self._evidence.revoked)
        decision: Decision | None = decide_without_record(
            presented, self.names, self._policy, revocation
        )
        if decision is None and self._evidence.command:
            return key, lambda: self._consult_command(presented, key_data, problem)
        if decision is None:
            known = self._evidence.known
            decision = decide_host_key(presented, known, self.names, self._policy, problem)
        if isinstance(decision, (Accept, AcceptUntrusted, Refuse)):
            for line in decision.lines:
                self._say(line)
            self._apply(decision)
            return key, None
        return key, lambda: self._settle(decision)

    def would_accept(self, known: KnownHosts, revoked: RevokedKeys | None) -> bool:
        """Say whether the key would be accepted without a question by what is on record now.

        KnownHostsCommand is not asked again.
        """
        presented = self._presented
        if presented is None or self._evidence.command:
            return True
        revocation = self._revocation(presented, revoked)
        decision: Decision | None = decide_without_record(
            presented, self.names, self._policy, revocation
        )
        if decision is None:
            problem = self._certificate_problem(presented)
            decision = decide_host_key(presented, known, self.names, self._policy, problem)
        return isinstance(decision, (Accept, Add))

    def _certificate_problem(self, presented: HostKey | HostCertificate) -> str:
        if not isinstance(presented, HostCertificate):
            return ""
        algorithms = self._settings.ca_signature_algorithms
        return certificate_problem(presented, self.names.certificate_name, time.time(), algorithms)

    def _revocation(self, presented: HostKey | HostCertificate, revoked: RevokedKeys | None) -> str:
        if revoked is None:
            return ""
        return revoked.describe(presented, self._policy.fingerprint_hash)

    async def _consult_command(
        self, presented: HostKey | HostCertificate, blob: bytes, problem: str
    ) -> None:
        """Judge by the files and by what KnownHostsCommand prints about this very key."""
        names, policy = self.names, self._policy
        known = await self._ask_command(Occasion("HOSTNAME", names.record_name, presented, blob))
        by_address = self._evidence.known
        if policy.checks_address(names) and not isinstance(presented, HostCertificate):
            occasion = Occasion("ADDRESS", names.address_name, presented, blob)
            by_address = await self._ask_command(occasion)
        decision = decide_host_key(
            presented, known, names, policy, problem, known_address=by_address
        )
        await self._settle(decision)

    async def _ask_command(self, occasion: Occasion) -> KnownHosts:
        output = await self._evidence.command.read(occasion)
        return self._evidence.known.with_command_output(output, occasion.tag)

    async def _settle(self, decision: Decision) -> None:
        settled = await settle_host_key(
            decision, say=self._say, ask=self._console.ask_line, record=self._record
        )
        self._apply(settled)

    def _apply(self, settled: Accept | AcceptUntrusted | Refuse) -> None:
        if isinstance(settled, Refuse):
            # About a changed key OpenSSH's own words say what to do.
            told = any("remove with" in line.text for line in settled.lines)
            raise HostKeyError(settled.reason, remedy="" if told else _COMPARE)
        if isinstance(settled, AcceptUntrusted):
            self.disabled = settled.disabled
        elif self.updater.is_wanted:
            self._may_update = settled.trusted
            if not settled.trusted:
                reason = "hostkey not known or explicitly trusted: disabling UpdateHostkeys"
                self._console.debug(1, f"check_host_key: {reason}")

    def take_announcement(self, connection: Prover, keys: bytes) -> None:
        """See :class:`xsshpy.ssh.connection.HostKeyJudge`."""
        if self._may_update:
            self.updater.begin(connection, keys)

    async def settle_update(self, connection: Prover) -> None:
        """Where the user is to be asked about other keys, do it now, before there is a session."""
        if not (self._may_update and self.updater.asks):
            return
        if not self.updater.has_begun:
            # The list comes with the end of the login: an answer to anything comes after it.
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(connection.prove_host_keys(_PING, ()), _PING_DEADLINE)
        await self.updater.settle()

    def _say(self, line: Line) -> None:
        self._console.log(line.level, line.text)

    async def _record(self, addition: Addition) -> str | None:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            None,
            lambda: add_host_key(
                addition.path, addition.names, addition.key, hashed=addition.hashed
            ),
        )


def _decode(key_data: bytes, *, certified: bool) -> asyncssh.SSHKey:
    """Decode the key; a certificate's signature is verified on the way."""
    return decode_ssh_certificate(key_data).key if certified else decode_ssh_public_key(key_data)


def host_names(settings: Settings, address: str | None) -> HostNames:
    """Return the names under which this server's key is on record."""
    return HostNames(settings.hostname, settings.port, address, settings.host_key_alias or None)


def host_key_policy(settings: Settings, *, wants_x11: bool, updates: bool) -> HostKeyPolicy:
    """Return what the settings say about host keys."""
    enabled = {Feature.X11} if wants_x11 else set()
    if settings.password_authentication:
        enabled.add(Feature.PASSWORD)
    if settings.kbd_interactive_authentication:
        enabled.add(Feature.KEYBOARD_INTERACTIVE)
    if settings.forward_agent:
        enabled.add(Feature.AGENT)
    if any(f"{kind}forward" in settings.keywords for kind in ("local", "remote", "dynamic")):
        enabled.add(Feature.PORTS)
    if updates:
        enabled.add(Feature.UPDATE_HOST_KEYS)
    return HostKeyPolicy(
        strict=parse_strict_checking(settings.strict_host_key_checking),
        batch=settings.batch_mode,
        hash_known_hosts=settings.hash_known_hosts,
        check_host_ip=settings.check_host_ip,
        fingerprint_hash=settings.fingerprint_hash.lower(),
        host_key_algorithms=settings.host_key_algorithms,
        required_rsa_size=settings.required_rsa_size,
        trust_localhost=settings.no_host_authentication_for_localhost,
        visual=settings.visual_host_key,
        enabled=frozenset(enabled),
        exit_on_forward_failure=settings.exit_on_forward_failure,
        home=home_directory(),
    )
