"""The keys that a login may offer: certificates, the agent's, a token's, files, in ssh's order.

Keys are offered one by one by their public half; a private key is read, and its passphrase asked
for, only once the server has said that it would accept the key (sshconnect2.c, pubkey_prepare).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence

from xsshpy.console import Console
from xsshpy.settings import Settings
from xsshpy.ssh.agent import (
    AgentConnection,
    AgentError,
    HeldKey,
    SessionBinding,
    open_bound_agent,
)
from xsshpy.ssh.keyfiles import Identity, is_default, load_identities
from xsshpy.ssh.keypairs import (
    AgentKeyPair,
    DeferredKeyPair,
    OfferedKeyPair,
    TokenKeyPair,
    import_held_key,
    label_key,
)
from xsshpy.ssh.pkcs11 import TokenKey, TokenReader
from xsshpy.ssh.private_keys import KeyUnlocker
from xsshpy.ssh.security_keys import SecurityKeySigner
from xsshpy.values import dataclass

_RSA = b"ssh-rsa"
_RSA_SIGNATURES = (b"rsa-sha2-512", b"rsa-sha2-256", _RSA)
_CERTIFICATE_SUFFIX = b"-cert-v01@openssh.com"
_RSA_CERTIFICATE = _RSA + _CERTIFICATE_SUFFIX
_OLD_CERTIFICATES = r"OpenSSH_7\.[0-7]"
"""Servers that know RSA certificates by one name only, whatever the signature (compat.c)."""


def signature_algorithms(key_algorithm: bytes, accepted: Sequence[str]) -> list[bytes]:
    """Return how a key may sign, by PubkeyAcceptedAlgorithms and in its order; [] for not at all.

    ``key_algorithm`` is a plain key's or a certificate's. An empty ``accepted`` allows all.
    """
    certified = key_algorithm.endswith(_CERTIFICATE_SUFFIX)
    plain = key_algorithm.removesuffix(_CERTIFICATE_SUFFIX)
    if certified and plain.startswith(b"sk-"):
        plain += b"@openssh.com"
    able = _RSA_SIGNATURES if plain == _RSA else (plain,)
    if not accepted:
        return list(able)
    allowed = []
    for name in (name.encode() for name in accepted):
        signature = name.removesuffix(_CERTIFICATE_SUFFIX)
        if signature != name and signature.startswith(b"sk-"):
            signature += b"@openssh.com"
        if (signature != name) == certified and signature in able:
            allowed.append(signature)
    return allowed


@dataclass(frozen=True)
class _Sources:
    """Where a certificate's private key may be: in the agent, in a token, in a file."""

    held: dict[bytes, HeldKey]
    tokens: dict[bytes, TokenKey]
    files: Sequence[Identity]


class KeyRing:
    """All keys to offer: CertificateFile's, the agent's, a token's, then those in files."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._unlock = KeyUnlocker(settings, console)
        self._signer = SecurityKeySigner(settings, console)
        self._tokens = TokenReader(settings, console)
        self._agent: AgentConnection | None = None

    async def keys(
        self, server_version: str, binding: SessionBinding | None
    ) -> AsyncIterator[OfferedKeyPair]:
        """Yield the key pairs one after another, asking for a passphrase only on the way.

        ``server_version`` is the server's first line, without ``SSH-2.0-``. ``binding`` says which
        server it is to an agent that wants to know.
        """
        async for pair in self._all_keys(binding):
            accepted = self._settings.pubkey_accepted_algorithms
            signatures = signature_algorithms(pair.algorithm, accepted)
            if not signatures:
                self._console.debug(
                    1,
                    f"Skipping {pair.get_algorithm()} key {pair.label.name} - corresponding algo "
                    "not in PubkeyAcceptedAlgorithms",
                )
                continue
            pair.sig_algorithms = signatures
            if pair.algorithm == _RSA_CERTIFICATE and not re.match(
                _OLD_CERTIFICATES, server_version
            ):
                pair.sig_algorithms = signatures[:1]
                pair.algorithm = signatures[0] + _CERTIFICATE_SUFFIX
            if _RSA not in signatures:
                # For a server that does not say which of RSA's signatures it knows.
                pair.set_sig_algorithm(signatures[0])
            yield pair

    async def _all_keys(self, binding: SessionBinding | None) -> AsyncIterator[OfferedKeyPair]:
        loop = asyncio.get_running_loop()
        files, certificates = await loop.run_in_executor(
            None, load_identities, self._settings, self._console
        )
        held = {key.blob: key for key in await self._agent_keys(binding)}
        tokens = {key.blob: key for key in await self._tokens.keys()}
        if self._settings.login.security_key_provider == "":
            files = self._without_hosted(files)
            certificates = self._without_hosted(certificates)
        names = {identity.blob: identity.path for identity in reversed(files)}
        only = self._settings.identities_only
        usable = {blob: key for blob, key in held.items() if blob in names or not only}
        sources = _Sources(usable, tokens, files)
        for identity in certificates:
            yield self._certified(identity, sources)
        for blob in sorted(usable, key=lambda blob: blob not in names):
            pair = self._from_agent(usable[blob], names.get(blob, ""))
            if pair is not None:
                yield pair
        offered = set(usable)
        for blob in sorted(tokens, key=lambda blob: blob not in names):
            if blob not in offered and (blob in names or not only):
                yield self._from_token(tokens[blob])
                offered.add(blob)
        for identity in files:
            if identity.blob not in offered:
                found = await self._from_file(identity, sources)
                if found is not None:
                    yield found

    def _without_hosted(self, identities: Sequence[Identity]) -> list[Identity]:
        """Leave out keys in security keys, where SecurityKeyProvider is none."""
        kept = []
        for identity in identities:
            if identity.public is None or not identity.public.algorithm.startswith(b"sk-"):
                kept.append(identity)
            else:
                self._console.debug(
                    1,
                    f"ignoring authenticator-hosted key {identity.path} as no "
                    "SecurityKeyProvider has been specified",
                )
        return kept

    def _certified(self, identity: Identity, sources: _Sources) -> OfferedKeyPair:
        """Join a certificate with its private key: the agent's, a key file's, or its own file."""
        public, certificate = identity.public, identity.certificate
        assert public is not None and certificate is not None and identity.blob is not None
        label = label_key(
            identity.blob,
            identity.path,
            self._settings.fingerprint_hash,
            is_explicit=not is_default(identity.path),
        )
        blob = public.public_data
        if blob in sources.held and self._agent is not None:
            return AgentKeyPair(label, self._console, self._agent, blob, public, certificate)
        if blob in sources.tokens:
            key = sources.tokens[blob]
            return TokenKeyPair(label, self._console, self._tokens, key, certificate)
        paths = [other.path for other in sources.files if other.blob == blob]
        path = [*paths, identity.path][0]
        return DeferredKeyPair(
            label, self._console, path, public, certificate, self._unlock, self._signer
        )

    def _from_agent(self, held: HeldKey, path: str) -> OfferedKeyPair | None:
        found = import_held_key(held)
        if found is None or self._agent is None:
            return None
        public, certificate = found
        label = label_key(
            held.blob,
            path or held.comment,
            self._settings.fingerprint_hash,
            is_explicit=bool(path) and not is_default(path),
            in_agent=True,
        )
        return AgentKeyPair(label, self._console, self._agent, held.blob, public, certificate)

    def _from_token(self, key: TokenKey) -> OfferedKeyPair:
        label = label_key(key.blob, key.label, self._settings.fingerprint_hash, in_token=True)
        return TokenKeyPair(label, self._console, self._tokens, key, None)

    async def _from_file(self, identity: Identity, sources: _Sources) -> OfferedKeyPair | None:
        if identity.certificate is not None:
            return self._certified(identity, sources)
        public = identity.public
        if public is None:
            self._console.debug(1, f"Trying private key: {identity.path}")
            key = await self._unlock.private_key(identity.path)
            if key is None:
                return None
            public = key.convert_to_public()
        label = label_key(
            public.public_data,
            identity.path,
            self._settings.fingerprint_hash,
            is_explicit=not is_default(identity.path),
        )
        return DeferredKeyPair(
            label, self._console, identity.path, public, None, self._unlock, self._signer
        )

    async def _agent_keys(self, binding: SessionBinding | None) -> Sequence[HeldKey]:
        if not self._settings.identity_agent:
            return []
        if self._agent is not None:
            self._agent.close()  # an earlier step's: an agent takes a session only once
            self._agent = None
        try:
            agent, unbound = await open_bound_agent(
                self._settings.identity_agent, binding, forwarding=False
            )
        except OSError as error:
            self._console.debug(1, f"get_agent_identities: {error}")
            return []
        self._console.debug(
            1, f"ssh_agent_bind_hostkey: {unbound}" if unbound else "bound agent to hostkey"
        )
        try:
            keys = await agent.list_keys()
        except AgentError as error:
            self._console.debug(1, f"ssh_fetch_identitylist: {error}")
            agent.close()
            return []
        self._agent = agent
        self._console.debug(1, f"agent returned {len(keys)} keys")
        return [key for key in keys if not self._is_too_small(key)]

    def _is_too_small(self, held: HeldKey) -> bool:
        if 0 < held.key.plain.rsa_bits < self._settings.required_rsa_size:
            self._console.debug(1, f"ignoring {held.key.algorithm} agent key: Invalid key length")
            return True
        return False

    def close(self) -> None:
        """Close the connection to the agent."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None
