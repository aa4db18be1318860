"""What a connection does, told in ssh's own debug lines: made from the packets that pass. Sans-IO.

People and programs read ``ssh -v``: which algorithms were agreed on, which ways to log in remain,
how the remote command ended. The lines are those of OpenSSH's client at the same level
(packet.c, kex.c, kexgen.c, kexgexc.c, sshconnect2.c, clientloop.c, channels.c); the numbers of
messages are those of RFC 4250 §4.1. Nothing here changes what goes on: a packet that can't be
read is left to those who have to act on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xsshpy.console import LogLevel
from xsshpy.values import dataclass

_KEXINIT, _NEWKEYS, _KEX_FIRST, _KEX_LAST = 20, 21, 30, 49
_USERAUTH_REQUEST, _CHANNEL_OPEN, _CHANNEL_REQUEST = 50, 90, 98
_UNLOGGED = frozenset({93, 94, 95})
"""Data and windows: ssh does not log each of them either."""
_COOKIE_SIZE = 16
_PROPOSAL = (
    "KEX algorithms",
    "host key algorithms",
    "ciphers ctos",
    "ciphers stoc",
    "MACs ctos",
    "MACs stoc",
    "compression ctos",
    "compression stoc",
    "languages ctos",
    "languages stoc",
)
_FIELDS = (*_PROPOSAL, "first_kex_follows", "reserved")
_STRICT_SERVER = "kex-strict-s-v00@openssh.com"
_SHOWN_COMMAND = 900


@dataclass(frozen=True)
class Volume:
    """Bytes that have passed so far, both ways."""

    sent: int = 0
    received: int = 0


@dataclass(frozen=True)
class Peer:
    """Whom this is about: the host as the user knows it, its address if there is no proxy."""

    hostname: str
    port: int
    user: str
    address: str | None = None


class _Reader:
    """A packet's fields, in turn (RFC 4251 §5). Raises ValueError where there are too few."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def take(self, size: int) -> bytes:
        data = self._payload[self._at : self._at + size]
        if len(data) < size:
            raise ValueError("the packet ends too early")
        self._at += size
        return data

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def flag(self) -> bool:
        return self.take(1) != b"\0"

    def text(self) -> str:
        return self.take(self.number()).decode("utf-8", "backslashreplace")


def block_size(cipher: str) -> int:
    """Return the bytes of a cipher's block, as ssh counts them for its limits."""
    return 8 if cipher.startswith(("chacha20", "3des", "blowfish", "cast128")) else 16


def most_blocks(cipher: str, limit: int) -> int:
    """Return after how many blocks one way keys are exchanged anew (RFC 4344 §3.2).

    ``limit`` is RekeyLimit's in bytes; 0 leaves it to the cipher.
    """
    size = block_size(cipher)
    most: int = 1 << (2 * size) if size >= 16 else (1 << 30) // size
    return min(most, limit // size) if limit else most


class PacketLog:
    """Tells what goes on; ``say`` gets each line with its level."""

    def __init__(
        self,
        say: Callable[[LogLevel, str], None],
        peer: Peer,
        volume: Callable[[], Volume],
        *,
        rekey_limit: int = 0,
        sends_environment: bool = False,
    ) -> None:
        self._say = say
        self._peer = peer
        self._volume = volume
        self._rekey_limit = rekey_limit
        self._sends_environment = sends_environment
        self._ours: Sequence[str] | None = None
        self._theirs: Sequence[str] | None = None
        self._kex = ""
        self._ciphers = {"out": "", "in": ""}
        self._keyed: set[str] = set()
        self._strict = False
        self._method = ""
        self._channels: dict[int, int] = {}

    def _debug(self, number: int, text: str) -> None:
        self._say(LogLevel(LogLevel.VERBOSE + number), text)

    def note_own_version(self, version: str) -> None:
        """Our first line is on its way."""
        self._debug(1, f"Local version string {version}")

    def note_version(self, version: str) -> None:
        """The server's first line has come (RFC 4253 §4.2)."""
        _, protocol, software = (*version.split("-", 2), "", "")[:3]
        self._debug(
            1, f"Remote protocol version {protocol}, remote software version {software[:100]}"
        )
        peer = self._peer
        self._debug(1, f"Authenticating to {peer.hostname}:{peer.port} as '{peer.user}'")

    def begin_method(self, name: str) -> None:
        """A way to log in is tried next."""
        if name != self._method:
            self._method = name
            self._debug(1, f"Next authentication method: {name}")

    def sent(self, number: int, payload: bytes) -> None:
        """A packet has been sent; ``number`` counts them."""
        self._note(_SENT, number, payload)

    def received(self, number: int, payload: bytes) -> None:
        """A packet has come and is about to be acted on."""
        self._note(_RECEIVED, number, payload)

    def _note(self, table: _Table, number: int, payload: bytes) -> None:
        kind = payload[0]
        reader = _Reader(payload[1:])
        before, after, direction = table.before, table.after, table.direction
        try:
            if kind in before:
                before[kind](self, number, reader)
                reader = _Reader(payload[1:])
            if kind not in _UNLOGGED:
                self._debug(3, f"{direction} packet: type {kind}")
            if _KEX_FIRST <= kind <= _KEX_LAST:
                (self._kex_sent if direction == "send" else self._kex_received)(kind, reader)
            elif kind in after:
                after[kind](self, number, reader)
        except ValueError:
            self._debug(2, f"packet type {kind} has too few fields")

    # Key exchange

    def _kexinit_sent(self, number: int, reader: _Reader) -> None:
        self._debug(1, "SSH2_MSG_KEXINIT sent")
        self._ours = _read_proposal(reader)
        self._tell_choice()

    def _kexinit_received(self, number: int, reader: _Reader) -> None:
        self._debug(1, "SSH2_MSG_KEXINIT received")
        self._theirs = _read_proposal(reader)
        self._tell_choice()

    def _tell_choice(self) -> None:
        """Tell what both offered and what that comes to, once both are known."""
        if self._ours is None or self._theirs is None:
            return
        ours, theirs = self._ours, self._theirs
        self._ours = self._theirs = None
        for whose, proposal in (("local client", ours), ("peer server", theirs)):
            self._debug(2, f"{whose} KEXINIT proposal")
            for name, value in zip(_FIELDS, proposal, strict=True):
                self._debug(2, f"{name}: {value}" if name in _PROPOSAL else f"{name} {value} ")
        if not self._keyed:
            self._strict = _STRICT_SERVER in theirs[0].split(",")
        if self._strict and not self._keyed:
            self._debug(3, "kex_choose_conf: will use strict KEX ordering")
        chosen = [_choose(mine, other) for mine, other in zip(ours[:8], theirs[:8], strict=True)]
        self._kex = chosen[0]
        self._debug(1, f"kex: algorithm: {chosen[0] or '(no match)'}")
        if not chosen[0]:
            return
        self._debug(1, f"kex: host key algorithm: {chosen[1] or '(no match)'}")
        for way, key, offset in (("server->client", "in", 1), ("client->server", "out", 0)):
            cipher, mac, compression = (chosen[index + offset] for index in (2, 4, 6))
            if not cipher:
                return
            self._ciphers[key] = cipher
            implicit = "gcm" in cipher or "poly1305" in cipher
            shown = "<implicit>" if implicit else mac
            self._debug(1, f"kex: {way} cipher: {cipher} MAC: {shown} compression: {compression}")

    def _kex_sent(self, kind: int, reader: _Reader) -> None:
        if "group-exchange" not in self._kex:
            self._debug(1, "expecting SSH2_MSG_KEX_ECDH_REPLY")
        elif kind == 34:
            low, preferred, high = (reader.number() for _ in range(3))
            self._debug(1, f"SSH2_MSG_KEX_DH_GEX_REQUEST({low}<{preferred}<{high}) sent")
            self._debug(1, "expecting SSH2_MSG_KEX_DH_GEX_GROUP")
        elif kind == 32:
            self._debug(1, "SSH2_MSG_KEX_DH_GEX_INIT sent")
            self._debug(1, "expecting SSH2_MSG_KEX_DH_GEX_REPLY")

    def _kex_received(self, kind: int, reader: _Reader) -> None:
        names = {31: "ECDH_REPLY"}
        if "group-exchange" in self._kex:
            names = {31: "DH_GEX_GROUP", 33: "DH_GEX_REPLY"}
        if kind in names:
            self._debug(1, f"SSH2_MSG_KEX_{names[kind]} received")

    def _newkeys_sent(self, number: int, reader: _Reader) -> None:
        if self._strict:
            count = number + 1
            self._debug(1, f"ssh_packet_send2_wrapped: resetting send seqnr {count}")
        self._set_newkeys("out", 1)
        self._debug(1, "SSH2_MSG_NEWKEYS sent")
        self._debug(1, "expecting SSH2_MSG_NEWKEYS")

    def _newkeys_received(self, number: int, reader: _Reader) -> None:
        if self._strict:
            self._debug(1, f"ssh_packet_read_poll2: resetting read seqnr {number + 1}")
        self._debug(1, "SSH2_MSG_NEWKEYS received")
        self._set_newkeys("in", 0)

    def _set_newkeys(self, direction: str, mode: int) -> None:
        self._debug(2, f"ssh_set_newkeys: mode {mode}")
        cipher = self._ciphers[direction]
        if direction in self._keyed:
            size, volume = block_size(cipher), self._volume()
            self._debug(
                1,
                f"ssh_set_newkeys: rekeying {direction}, "
                f"input {volume.received} bytes {volume.received // size} blocks, "
                f"output {volume.sent} bytes {volume.sent // size} blocks",
            )
        self._keyed.add(direction)
        blocks = most_blocks(cipher, self._rekey_limit)
        self._debug(1, f"rekey {direction} after {blocks} blocks")

    def _ext_info(self, number: int, reader: _Reader) -> None:
        self._debug(1, "SSH2_MSG_EXT_INFO received")
        for _ in range(min(reader.number(), 64)):
            name, value = reader.text(), reader.text()
            known = name in ("server-sig-algs", "publickey-hostbound@openssh.com")
            shown = f"{name}=<{value}>" if known else f"{name} (unrecognised)"
            self._debug(1, f"kex_input_ext_info: {shown}")

    # Login

    def _service_accepted(self, number: int, reader: _Reader) -> None:
        self._debug(2, f"service_accept: {reader.text()}")
        self._debug(1, "SSH2_MSG_SERVICE_ACCEPT received")

    def _login_asked(self, number: int, reader: _Reader) -> None:
        reader.text()
        reader.text()
        method = reader.text()
        if method != "none":
            self.begin_method(method.removesuffix("-hostbound-v00@openssh.com"))

    def _login_sent(self, number: int, reader: _Reader) -> None:
        if self._method:
            self._debug(2, f"we sent a {self._method} packet, wait for reply")

    def _login_refused(self, number: int, reader: _Reader) -> None:
        methods, partial = reader.text(), reader.flag()
        if partial:
            text = f'Authenticated using "{self._method}" with partial success.'
            self._say(LogLevel.VERBOSE, text)
            self._method = ""
        self._debug(1, f"Authentications that can continue: {methods}")

    def _login_done(self, number: int, reader: _Reader) -> None:
        peer = self._peer
        where = f"([{peer.address}]:{peer.port})" if peer.address else "(via proxy)"
        method = self._method or "none"
        self._say(LogLevel.VERBOSE, f'Authenticated to {peer.hostname} {where} using "{method}".')

    # Channels

    def _channel_opening(self, number: int, reader: _Reader) -> None:
        kind, channel = reader.text(), reader.number()
        if kind == "session":
            self._debug(1, f"channel {channel}: new session [client-session] (inactive timeout: 0)")
            self._debug(3, f"ssh_session2_open: channel_new: {channel}")
        self._debug(2, f"channel {channel}: send open")

    def _channel_opened(self, number: int, reader: _Reader) -> None:
        channel, remote, window, most = (reader.number() for _ in range(4))
        self._channels[remote] = channel
        self._debug(2, f"channel {channel}: open confirm rwindow {window} rmax {most}")

    def _own(self, remote: int) -> int:
        return self._channels.get(remote, remote)

    def _request_sending(self, number: int, reader: _Reader) -> None:
        channel, name, confirm = self._own(reader.number()), reader.text(), reader.flag()
        if name in ("env", "exec", "shell", "subsystem") and self._sends_environment:
            self._sends_environment = False
            self._debug(1, "Sending environment.")
        if name == "env":
            self._debug(1, f'channel {channel}: setting env {reader.text()} = "{reader.text()}"')
        elif name in ("exec", "subsystem"):
            word = "command" if name == "exec" else "subsystem"
            self._debug(1, f"Sending {word}: {reader.text()[:_SHOWN_COMMAND]}")
        self._debug(2, f"channel {channel}: request {name} confirm {int(confirm)}")

    def _request_received(self, number: int, reader: _Reader) -> None:
        channel, name, confirm = reader.number(), reader.text(), reader.flag()
        self._debug(
            1, f"client_input_channel_req: channel {channel} rtype {name} reply {int(confirm)}"
        )

    def _global_received(self, number: int, reader: _Reader) -> None:
        name, confirm = reader.text(), reader.flag()
        self._debug(1, f"client_input_global_request: rtype {name} want_reply {int(confirm)}")

    def _adjusted(self, number: int, reader: _Reader) -> None:
        channel, size = reader.number(), reader.number()
        self._debug(2, f"channel {channel}: rcvd adjust {size}")

    def _eof_sending(self, number: int, reader: _Reader) -> None:
        self._debug(2, f"channel {self._own(reader.number())}: send eof")

    def _close_sending(self, number: int, reader: _Reader) -> None:
        self._debug(2, f"channel {self._own(reader.number())}: send close")

    def _eof_received(self, number: int, reader: _Reader) -> None:
        self._debug(2, f"channel {reader.number()}: rcvd eof")

    def _close_received(self, number: int, reader: _Reader) -> None:
        self._debug(2, f"channel {reader.number()}: rcvd close")

    def _request_granted(self, number: int, reader: _Reader) -> None:
        self._debug(2, f"channel_input_status_confirm: type 99 id {reader.number()}")

    def _request_refused(self, number: int, reader: _Reader) -> None:
        self._debug(2, f"channel_input_status_confirm: type 100 id {reader.number()}")


_Note = Callable[[PacketLog, int, _Reader], None]


@dataclass(frozen=True)
class _Table:
    """What is told about which packet: before the line that it passed, and after it."""

    direction: str
    before: dict[int, _Note]
    after: dict[int, _Note]


_SENT = _Table(
    "send",
    {
        _USERAUTH_REQUEST: PacketLog._login_asked,
        _CHANNEL_OPEN: PacketLog._channel_opening,
        96: PacketLog._eof_sending,
        97: PacketLog._close_sending,
        _CHANNEL_REQUEST: PacketLog._request_sending,
    },
    {
        _KEXINIT: PacketLog._kexinit_sent,
        _NEWKEYS: PacketLog._newkeys_sent,
        _USERAUTH_REQUEST: PacketLog._login_sent,
    },
)
_RECEIVED = _Table(
    "receive",
    {},
    {
        6: PacketLog._service_accepted,
        7: PacketLog._ext_info,
        _KEXINIT: PacketLog._kexinit_received,
        _NEWKEYS: PacketLog._newkeys_received,
        51: PacketLog._login_refused,
        52: PacketLog._login_done,
        80: PacketLog._global_received,
        91: PacketLog._channel_opened,
        93: PacketLog._adjusted,
        96: PacketLog._eof_received,
        97: PacketLog._close_received,
        _CHANNEL_REQUEST: PacketLog._request_received,
        99: PacketLog._request_granted,
        100: PacketLog._request_refused,
    },
)


def _read_proposal(reader: _Reader) -> Sequence[str]:
    """Return the ten lists of a KEXINIT, and the two fields after them (RFC 4253 §7.1)."""
    reader.take(_COOKIE_SIZE)
    lists = [reader.text() for _ in _PROPOSAL]
    return [*lists, str(int(reader.flag())), str(reader.number())]


def _choose(ours: str, theirs: str) -> str:
    """Return the first of ours that is one of theirs; empty if there is none."""
    offered = set(theirs.split(","))
    return next((name for name in ours.split(",") if name and name in offered), "")
