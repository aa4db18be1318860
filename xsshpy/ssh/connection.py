"""One SSH connection: asyncssh's client with the few places where ssh behaves otherwise.

Some things differ from asyncssh's own client:

- The host key is judged as ssh judges it, and where the user has to be asked, nothing but the key
  exchange goes on meanwhile: the first authentication request, and with it the user's name, is
  sent only after the answer.
- The methods that the server offers are remembered, for ``Permission denied (publickey,…)``, and
  the words with which it disconnects.
- X11 channels go to a relay of ours (x11/), never straight to the local X server, and channels for
  forwards to whoever asked for them (:class:`ForwardedOpens`).
- When the connection itself takes no more, whoever feeds it is told (:meth:`ClientConnection.
  watch_writing`): a channel's window is room at the other end, not on the way there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import AnyStr, Protocol

import asyncssh
from asyncssh.channel import SSHChannel, SSHTCPChannel, SSHUNIXChannel, SSHX11Channel
from asyncssh.constants import (
    MSG_DISCONNECT,
    MSG_EXT_INFO,
    MSG_KEXINIT,
    MSG_REQUEST_SUCCESS,
    MSG_SERVICE_ACCEPT,
    MSG_USERAUTH_FAILURE,
)
from asyncssh.forward import SSHForwarder
from asyncssh.gss import GSSBase  # type: ignore[attr-defined]  # the platform's
from asyncssh.packet import SSHPacket, SSHPacketLogger, String
from asyncssh.public_key import SigningKey

from xsshpy.console import inline
from xsshpy.errors import HostKeyError
from xsshpy.ssh.agent import SessionBinding
from xsshpy.ssh.agent_forward import open_forwarded_agent
from xsshpy.ssh.binding import HOST_BOUND_METHOD, HostKeyWitness, takes_host_bound
from xsshpy.ssh.hostbased import HostKeyPair, name_this_host
from xsshpy.ssh.observed import ObservedConnection
from xsshpy.tokens import local_user

CONGESTED = 1 << 20
"""Bytes that may wait for the connection itself before those who feed it are asked to pause."""

_COOKIE_SIZE = 16
_FIRST_WORDS = 256
"""Bytes of what a server says first that are kept: they show what it is, if it is not SSH."""


class HostKeyJudge(Protocol):
    """Decides whether a host key is to be trusted."""

    def judge(
        self, key_data: bytes
    ) -> tuple[asyncssh.SSHKey, Callable[[], Awaitable[None]] | None]:
        """Return the key, and a question to be answered first where there is one.

        Both raise HostKeyError where the key is refused. Judging does no I/O.
        """

    def take_announcement(self, connection: ClientConnection, keys: bytes) -> None:
        """Take note of all the host keys that the server says it has, as it sends them."""


class X11Client(Protocol):
    """One X client on its way to the local server; a channel's data goes through it."""

    def attach(self, channel: SSHTCPChannel[bytes]) -> None:
        """Begin, with the channel to answer on."""

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""

    def eof_received(self) -> bool:
        """Take the end of what the client sends; True keeps the other direction open."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone."""

    def pause_writing(self) -> None:
        """The channel takes no more for now."""

    def resume_writing(self) -> None:
        """The channel takes data again."""


OpenedChannel = tuple[SSHTCPChannel[bytes], Awaitable[asyncssh.SSHTCPSession[bytes]]]
"""A channel that the server opens, and what will answer on it."""


class ForwardedOpens(Protocol):
    """Answers the channels that a server opens for forwards (RFC 4254 §7.2, PROTOCOL §2.4).

    Both return at once; what is awaited raises asyncssh.ChannelOpenError where the channel must
    not be.
    """

    def open_port(self, host: str, port: int, originator: str) -> OpenedChannel:
        """Somebody connected to a port of the server."""

    def open_path(self, path: str) -> OpenedChannel:
        """Somebody connected to a unix socket of the server."""


class _X11Session(asyncssh.SSHTCPSession[bytes]):
    """An x11 channel as asyncssh hands it over, passed on to an X11Client."""

    def __init__(self, client: X11Client) -> None:
        self._client = client

    def connection_made(self, chan: SSHTCPChannel[bytes]) -> None:
        self._client.attach(chan)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._client.data_received(data)

    def eof_received(self) -> bool:
        return self._client.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.connection_lost(exc)

    def pause_writing(self) -> None:
        self._client.pause_writing()

    def resume_writing(self) -> None:
        self._client.resume_writing()


class ClientConnection(ObservedConnection):
    """An SSH connection to one server."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHClientConnectionOptions,
        host_keys: HostKeyJudge,
        step_succeeded: Callable[[], None],
    ) -> None:
        super().__init__(loop, options)
        self._host_keys = host_keys
        self._step_succeeded = step_succeeded
        self._shown_key: bytes | None = None
        self._witness = HostKeyWitness()
        self._server_takes_host_bound = False
        self.host_bound_signatures = True
        self.greeted = False
        self.host_key_pairs: list[HostKeyPair] = []
        self._question: asyncio.Task[None] | None = None
        self._held_up = False
        self._last_moved = loop.time()
        self._our_turns = 0
        self.authenticating = False
        self._has_begun = False
        self.offered_methods: tuple[str, ...] = ()
        self.first_words = b""
        self.host_key_algorithm = ""
        self.exchange: tuple[str, Sequence[str]] = ("", ())
        self.before_login: Callable[[], None] = lambda: None
        self.farewell: tuple[int, str] | None = None
        self.failure: HostKeyError | None = None
        self.accept_x11: Callable[[], Awaitable[X11Client]] | None = None
        self.forwarded: ForwardedOpens | None = None
        self._writing_watchers: list[Callable[[bool], None]] = []
        self.warn: Callable[[str], None] = lambda text: None
        self._warned: set[str] = set()

    def validate_server_host_key(self, key_data: bytes) -> asyncssh.SSHKey:
        """Judge the host key; a question to the user is put while the key exchange ends.

        When keys are exchanged again later, the server has to show the same key.
        """
        if self._shown_key is not None:
            return self._require_same_key(key_data)
        try:
            key, question = self._host_keys.judge(key_data)
        except HostKeyError as error:
            self.failure = error
            raise asyncssh.HostKeyNotVerifiable("host key refused") from None
        self._server_host_key = key
        self._shown_key = key_data
        if question is not None:
            self._question = asyncio.ensure_future(self._put(question))
        return self._witness.watch(key, key_data)

    @property
    def host_key_judged(self) -> bool:
        """Whether the server has shown a host key that was not refused at once."""
        return self._shown_key is not None

    def _require_same_key(self, key_data: bytes) -> asyncssh.SSHKey:
        if key_data == self._shown_key and self._server_host_key is not None:
            return self._server_host_key
        self.failure = HostKeyError(
            "xssh: the server showed another host key in the middle of the connection",
            remedy="connect again; if it happens again, ask the server's administrator",
        )
        raise asyncssh.HostKeyNotVerifiable("another host key while rekeying")

    async def _put(self, question: Callable[[], Awaitable[None]]) -> None:
        """Ask, and let authentication go on where it was held up meanwhile."""
        try:
            await question()
        except HostKeyError as error:
            self.failure = error
            self._force_close(asyncssh.HostKeyNotVerifiable("host key refused"))
            return
        except Exception as error:
            self._force_close(error)
            return
        self._question = None
        if self._held_up and self._transport is not None:
            self._begin_login()
            super().try_next_auth()

    def send_service_request(self, service: bytes) -> None:
        """Ask for user authentication, and begin it without waiting to be let: a trip less.

        The answer has to be waited for only where nothing else shows that the server holds its key
        (RFC 4253 §10), and it signs in each key exchange but those of Kerberos. It reads the two
        requests one after the other; Dropbear's client has sent them together since 2013.
        """
        super().send_service_request(service)
        if self.host_key_judged:
            self.try_next_auth()

    def _note_service_accept(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Take note that the server is willing; asyncssh would begin authentication only now."""
        self.authenticating = True
        self._has_begun = self.host_key_judged
        try:
            self._process_service_accept(pkttype, pktid, packet)
        finally:
            self._has_begun = False

    def try_next_auth(self, *, next_method: bool = False) -> None:
        """Go on with authentication, but not before the host key is accepted."""
        if self._has_begun:
            return
        if self._question is not None:
            self._held_up = True
        else:
            self._begin_login()
            super().try_next_auth(next_method=next_method)

    def _begin_login(self) -> None:
        """Say once what is to be said before the user is asked for anything."""
        say, self.before_login = self.before_login, lambda: None
        say()

    def _note_userauth_failure(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        payload = packet.get_remaining_payload()
        remaining = SSHPacket(payload)
        names: Sequence[bytes] = remaining.get_namelist()
        if remaining.get_boolean():
            self._step_succeeded()
        self.offered_methods = tuple(inline(name.decode("ascii", "replace")) for name in names)
        self._process_userauth_failure(pkttype, pktid, packet)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Take what the server sends; before its version line there may only be text."""
        self._last_moved = self._loop.time()
        if len(self.first_words) < _FIRST_WORDS:
            self.first_words = (self.first_words + data)[:_FIRST_WORDS]
            if b"\0" in self.first_words.partition(b"SSH-")[0]:
                words = "banner line contains invalid characters"
                self._force_close(asyncssh.ProtocolError(words))
                return
        super().data_received(data, datatype)

    def _note_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> Awaitable[None]:
        """See at once that both sides have something in common (RFC 4253 §7.1).

        asyncssh compares in a task of its own, which a server that hangs up meanwhile forestalls,
        and does not compare the kinds of host keys.
        """
        offer = SSHPacket(packet.get_remaining_payload())
        offer.get_bytes(_COOKIE_SIZE)
        lists: list[Sequence[bytes]] = [offer.get_namelist() for _ in range(6)]
        kex, host_keys, *ciphers_and_macs = lists
        exchange = self._choose_alg("key exchange", self._kex_algs, kex)
        self.exchange = (
            exchange.decode("ascii"),
            [name.decode("ascii", "replace") for name in kex],
        )
        chosen = self._choose_alg("host key", self._server_host_key_algs or (), host_keys)
        self.host_key_algorithm = chosen.decode("ascii")
        for ciphers, macs in zip(ciphers_and_macs[:2], ciphers_and_macs[2:], strict=True):
            cipher = self._choose_alg("encryption", self._enc_algs, ciphers)
            if b"gcm" not in cipher and b"poly1305" not in cipher:
                self._choose_alg("MAC", self._mac_algs, macs)
        return self._process_kexinit(pkttype, pktid, packet)

    @property
    def binding(self) -> SessionBinding | None:
        """Which server this is, proved: for agents. None before the first key exchange."""
        return self._witness.binding

    def _note_ext_info(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        payload = packet.get_remaining_payload()
        self._server_takes_host_bound |= takes_host_bound(payload)
        self._process_ext_info(pkttype, pktid, packet)

    def _note_disconnect(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        remaining = SSHPacket(packet.get_remaining_payload())
        code, reason = remaining.get_uint32(), remaining.get_string()
        self.farewell = (code, inline(reason.decode("utf-8", "replace")))
        self._process_disconnect(pkttype, pktid, packet)

    _packet_handlers = {  # noqa: RUF012  (asyncssh declares it so)
        **asyncssh.SSHClientConnection._packet_handlers,
        MSG_KEXINIT: _note_kexinit,
        MSG_DISCONNECT: _note_disconnect,
        MSG_SERVICE_ACCEPT: _note_service_accept,
        MSG_EXT_INFO: _note_ext_info,
        MSG_USERAUTH_FAILURE: _note_userauth_failure,
    }

    def detach_x11_listener(self, chan: SSHChannel[AnyStr]) -> None:
        """Nothing to detach: the relay belongs to the run, not to a channel."""

    def _process_hostkeys_00_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        self._report_global_response(True)
        self._host_keys.take_announcement(self, packet.get_remaining_payload())

    async def prove_host_keys(self, request: bytes, keys: Sequence[bytes]) -> bytes | None:
        """Let the server sign with these keys; return its signatures, None where it does not.

        ``request`` is the name of the global request.
        """
        blobs = b"".join(String(key) for key in keys)
        kind, packet = await self._make_global_request(request, blobs)
        return packet.get_remaining_payload() if kind == MSG_REQUEST_SUCCESS else None

    @property
    def session_id(self) -> bytes:
        """What names this connection (RFC 4253 §7.2)."""
        return self._session_id

    def _process_x11_open(  # type: ignore[override]  # any session will do for asyncssh
        self, packet: SSHPacket
    ) -> tuple[SSHX11Channel, Awaitable[asyncssh.SSHTCPSession[bytes]]]:
        packet.get_string()  # the originator: only the cookie says who may come in
        packet.get_uint32()
        packet.check_end()
        if self.accept_x11 is None:
            self._warn_of("X11")
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "X11 forwarding was not requested"
            )
        return self.create_x11_channel(), self._start_x11(self.accept_x11())

    def _warn_of(self, what: str) -> None:
        """Say, once, that the server wants what it was not offered, as ssh does."""
        if what not in self._warned:
            self._warned.add(what)
            self.warn(
                f"Warning: ssh server tried {what} forwarding.\n"
                "Warning: this is probably a break-in attempt by a malicious server."
            )

    async def _start_x11(self, accepted: Awaitable[X11Client]) -> asyncssh.SSHTCPSession[bytes]:
        return _X11Session(await accepted)

    def _process_forwarded_tcpip_open(self, packet: SSHPacket) -> OpenedChannel:
        host = packet.get_string().decode("utf-8", "replace")
        port = packet.get_uint32()
        originator = packet.get_string().decode("utf-8", "replace")
        packet.get_uint32()
        packet.check_end()
        return self._require_forwarded().open_port(host, port, originator)

    def _process_forwarded_streamlocal_at_openssh_dot_com_open(  # type: ignore[override]
        self, packet: SSHPacket
    ) -> OpenedChannel:
        path = os.fsdecode(packet.get_string())
        packet.get_string()  # reserved
        packet.check_end()
        return self._require_forwarded().open_path(path)

    def _require_forwarded(self) -> ForwardedOpens:
        if self.forwarded is None:
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "nothing is forwarded"
            )
        return self.forwarded

    def use_kerberos(self, context: GSSBase) -> None:
        """Let ``gssapi-with-mic`` be tried with this."""
        self._gss = context
        self._gss_mic_auth = True

    async def host_based_auth_requested(self) -> tuple[HostKeyPair | None, str, str]:
        """Return the next of this machine's host keys, and who vouches for whom."""
        if not self.host_key_pairs:
            return None, "", ""
        pair = self.host_key_pairs.pop(0)
        ours = self.get_extra_info("socket")
        if ours is not None:
            pair.socket_fd = ours.fileno()
        name = await name_this_host(self.get_extra_info("sockname"))
        return pair, name, local_user()

    def watch_writing(self, watcher: Callable[[bool], None]) -> None:
        """Call ``watcher(True)`` while the connection takes no more, and ``watcher(False)`` then.

        More than :data:`CONGESTED` bytes wait by then, for all channels together.
        """
        if not self._writing_watchers and self._transport is not None:
            self._transport.set_write_buffer_limits(CONGESTED)
        self._writing_watchers.append(watcher)

    def unwatch_writing(self, watcher: Callable[[bool], None]) -> None:
        """Call a watcher no more."""
        self._writing_watchers.remove(watcher)

    def pause_writing(self) -> None:
        """The transport is full."""
        super().pause_writing()
        self._tell_watchers(True)

    def resume_writing(self) -> None:
        """The transport takes data again."""
        super().resume_writing()
        self._tell_watchers(False)

    def _tell_watchers(self, full: bool) -> None:
        for watcher in self._writing_watchers:
            watcher(full)

    def allow_agent(self, path: str) -> None:
        """Let agent channels in, to the agent at ``path``. Until then they are refused."""
        self._agent_forward_path = path

    def _process_auth_agent_at_openssh_dot_com_open(
        self, packet: SSHPacket
    ) -> tuple[SSHUNIXChannel[bytes], Awaitable[SSHForwarder]]:
        packet.check_end()
        if not self._agent_forward_path:
            self._warn_of("agent")
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed"
            )
        agent = open_forwarded_agent(self._agent_forward_path, self.binding)
        return self.create_unix_channel(), agent

    def send_packet(
        self, pkttype: int, *args: bytes, handler: SSHPacketLogger | None = None
    ) -> None:
        """Send a packet, and remember when."""
        self._last_moved = self._loop.time()
        super().send_packet(pkttype, *args, handler=handler)

    @property
    def idle(self) -> float:
        """Seconds since anything was sent or received; none while it is our turn to answer."""
        return 0.0 if self._our_turns else self._loop.time() - self._last_moved

    @contextlib.contextmanager
    def _our_turn(self) -> Iterator[None]:
        """The server waits for us: an agent may ask its user, who takes his time."""
        self._our_turns += 1
        try:
            yield
        finally:
            self._our_turns -= 1
            self._last_moved = self._loop.time()

    async def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        """Find the next key to offer."""
        with self._our_turn():
            return await super().public_key_auth_requested()

    def _send_version(self) -> None:
        """Send our first line, unless that has been done; then only take note of it."""
        if not self.greeted:
            super()._send_version()
            return
        version = b"SSH-2.0-" + self._version
        self._client_version = version
        self.set_extra_info(client_version=version.decode("ascii"))

    async def send_userauth_request(
        self,
        method: bytes,
        *args: bytes,
        key: SigningKey | None = None,
        trivial: bool = True,
    ) -> None:
        """Send a request, which the key has to sign first.

        Where the server knows how, the signature is bound to the key it showed.
        """
        binding = self.binding if method == b"publickey" and key is not None else None
        if binding and self._server_takes_host_bound and self.host_bound_signatures:
            method, args = HOST_BOUND_METHOD, (*args, String(binding.host_key))
        with self._our_turn():
            try:
                await super().send_userauth_request(method, *args, key=key, trivial=trivial)
            except ValueError:
                if method == b"hostbased":
                    self.host_key_pairs.clear()  # what failed once would fail again
                raise

    def cancel_question(self) -> None:
        """Take back a question that nobody will answer any more."""
        if self._question is not None:
            self._question.cancel()
