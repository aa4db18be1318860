"""A connection to an authentication agent: list its keys, let it sign, give it a key, bind it.

Binding tells the agent which server a connection to it serves, so that keys that are restricted
to destinations (``ssh-add -h``) can be used. The protocol is RFC 9987 with OpenSSH's extensions
(PROTOCOL.agent). An agent is another program: its answers are held to OpenSSH's limits, and only
AgentError comes out of what it says.
"""

from __future__ import annotations

import asyncio

from asyncssh.packet import Boolean, Byte, PacketDecodeError, SSHPacket, String, UInt32

from xsshpy.console import inline
from xsshpy.ssh.keyblob import HostCertificate, HostKey, KeyBlobError, parse_public_key
from xsshpy.values import dataclass

REPLY_LIMIT = 256 << 10
"""Bytes of one answer; OpenSSH has the same limit."""

KEYS_LIMIT = 2048
"""Keys that one agent may list; OpenSSH has the same limit."""

ANSWER_DEADLINE = 10.0
"""Seconds for whatever an agent answers by itself. For a signature it may ask its user."""

_FAILURE = 5
_SUCCESS = 6
_REQUEST_IDENTITIES = 11
_IDENTITIES_ANSWER = 12
_SIGN_REQUEST = 13
_SIGN_RESPONSE = 14
_ADD_IDENTITY = 17
_ADD_ID_CONSTRAINED = 25
_EXTENSION = 27
_EXTENSION_FAILURE = 28
_REFUSALS = (_FAILURE, _EXTENSION_FAILURE, 102)  # the last is ssh.com's
_CONSTRAIN_LIFETIME = 1
_CONSTRAIN_CONFIRM = 2
_CONSTRAIN_EXTENSION = 255
_FLAGS = {b"rsa-sha2-256": 2, b"rsa-sha2-512": 4}

REFUSED = "agent refused operation"
_BROKEN = "communication with agent failed"
_INVALID = "invalid format"


class AgentError(Exception):
    """The agent refused, is gone, or makes no sense: in OpenSSH's words."""


@dataclass(frozen=True)
class SessionBinding:
    """The server that a connection leads to, with its own signature as proof.

    ``host_key`` is what it showed at first (a certificate as such), ``signature`` its signature of
    ``session_id`` in the first key exchange.
    """

    host_key: bytes
    session_id: bytes
    signature: bytes


def encode_binding(binding: SessionBinding, *, forwarding: bool) -> bytes:
    """Return the request that binds a connection to a server (PROTOCOL.agent, section 1)."""
    return (
        Byte(_EXTENSION)
        + String("session-bind@openssh.com")
        + String(binding.host_key)
        + String(binding.session_id)
        + String(binding.signature)
        + Boolean(forwarding)
    )


@dataclass(frozen=True)
class HeldKey:
    """A key that an agent has: the blob is a public key's or a certificate's."""

    key: HostKey | HostCertificate
    blob: bytes
    comment: str


@dataclass(frozen=True)
class KeyConstraints:
    """How an agent may use a key: for ``lifetime`` seconds (0: for ever), after asking its user."""

    lifetime: int = 0
    confirm: bool = False
    security_key_provider: str = ""

    def encode(self) -> bytes:
        """Return them as RFC 9987 §3.2.7 has them; nothing where there are none."""
        data = b""
        if self.lifetime:
            data += Byte(_CONSTRAIN_LIFETIME) + UInt32(self.lifetime)
        if self.confirm:
            data += Byte(_CONSTRAIN_CONFIRM)
        if self.security_key_provider:
            data += Byte(_CONSTRAIN_EXTENSION) + String("sk-provider@openssh.com")
            data += String(self.security_key_provider)
        return data


class AgentConnection:
    """One connection; requests take turns. After a failure on the wire it is of no more use."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, path: str) -> AgentConnection:
        """Connect to the socket at ``path``. Raises OSError."""
        try:
            opening = asyncio.open_unix_connection(path, limit=REPLY_LIMIT)
            return cls(*await asyncio.wait_for(opening, ANSWER_DEADLINE))
        except (asyncio.TimeoutError, ValueError) as error:  # ValueError: no path at all
            raise OSError(str(error) or "the agent does not answer") from None

    async def _ask(self, kind: int, payload: bytes = b"") -> tuple[int, SSHPacket]:
        """Send a request and return the kind of the answer, and what follows it."""
        async with self._turn:
            answered = False
            try:
                message = Byte(kind) + payload
                self._writer.write(UInt32(len(message)) + message)
                await self._writer.drain()
                length = int.from_bytes(await self._reader.readexactly(4), "big")
                if not 0 < length <= REPLY_LIMIT:
                    raise AgentError(_INVALID)
                packet = SSHPacket(await self._reader.readexactly(length))
                answered = True
            except (OSError, EOFError):
                raise AgentError(_BROKEN) from None
            finally:
                if not answered:  # what comes next would be taken for the next answer
                    self.close()
        return packet.get_byte(), packet

    async def _ask_at_once(self, kind: int, payload: bytes = b"") -> tuple[int, SSHPacket]:
        try:
            return await asyncio.wait_for(self._ask(kind, payload), ANSWER_DEADLINE)
        except asyncio.TimeoutError:
            raise AgentError(_BROKEN) from None

    async def bind(self, binding: SessionBinding, *, forwarding: bool) -> None:
        """Say which server this connection is for: to log in there, or for its own requests.

        Raises AgentError; an agent that does not know the request refuses it.
        """
        message = encode_binding(binding, forwarding=forwarding)
        kind, _ = await self._ask_at_once(message[0], message[1:])
        _require_success(kind)

    async def list_keys(self) -> list[HeldKey]:
        """Return the keys that the agent offers; those of unknown kinds are left out."""
        kind, packet = await self._ask_at_once(_REQUEST_IDENTITIES)
        if kind in _REFUSALS:
            raise AgentError(REFUSED)
        try:
            if kind != _IDENTITIES_ANSWER:
                raise AgentError(_INVALID)
            count = packet.get_uint32()
            if count > KEYS_LIMIT:
                raise AgentError(_INVALID)
            pairs = [(packet.get_string(), packet.get_string()) for _ in range(count)]
        except PacketDecodeError:
            raise AgentError("incomplete message") from None
        return [held for blob, comment in pairs for held in _held_key(blob, comment)]

    async def sign(self, blob: bytes, data: bytes, algorithm: bytes) -> bytes:
        """Return a signature of ``data`` by the key ``blob``; there is no limit of time."""
        flags = _FLAGS.get(algorithm, 0)
        kind, packet = await self._ask(_SIGN_REQUEST, String(blob) + String(data) + UInt32(flags))
        if kind in _REFUSALS:
            raise AgentError(REFUSED)
        if kind != _SIGN_RESPONSE:
            raise AgentError(_INVALID)
        try:
            signature = packet.get_string()
            made_with = SSHPacket(signature).get_string()
        except PacketDecodeError:
            raise AgentError("incomplete message") from None
        if made_with != algorithm:
            raise WrongSignatureError("signature algorithm not supported")
        return signature

    async def add(self, private: bytes, comment: bytes, constraints: KeyConstraints) -> None:
        """Give the agent a key; ``private`` is its algorithm and private half (RFC 9987 §3.2)."""
        limits = constraints.encode()
        kind = _ADD_ID_CONSTRAINED if limits else _ADD_IDENTITY
        answer, _ = await self._ask_at_once(kind, private + String(comment) + limits)
        _require_success(answer)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class WrongSignatureError(AgentError):
    """The agent signed with another algorithm than the one it was asked for."""


def _require_success(kind: int) -> None:
    if kind != _SUCCESS:
        raise AgentError(REFUSED if kind in _REFUSALS else _INVALID)


def _held_key(blob: bytes, comment: bytes) -> list[HeldKey]:
    try:
        key = parse_public_key(blob)
    except KeyBlobError:
        return []
    return [HeldKey(key, blob, inline(comment.decode("utf-8", "replace")))]


async def open_bound_agent(
    path: str, binding: SessionBinding | None, *, forwarding: bool
) -> tuple[AgentConnection, str]:
    """Connect to the agent at ``path`` and bind the connection, where the agent can do that.

    Returns the connection, and why it is not bound: an empty string if it is. Raises OSError.
    """
    agent = await AgentConnection.open(path)
    if binding is None:
        return agent, "no host key was seen"
    try:
        await agent.bind(binding, forwarding=forwarding)
    except AgentError as error:
        if str(error) == REFUSED:
            return agent, str(error)
        # It took the unknown request badly: what it is there for may work all the same.
        agent.close()
        return await AgentConnection.open(path), str(error)
    except BaseException:
        agent.close()
        raise
    return agent, ""
