"""The lines of ``ssh -v`` made from packets: what is told, and that hostile packets only say so."""

from __future__ import annotations

import pytest

from xsshpy.ssh.packet_log import PacketLog, Peer, Volume, block_size, most_blocks


def _string(text: str) -> bytes:
    return len(text).to_bytes(4, "big") + text.encode()


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _kexinit(kex: str, cipher: str = "aes128-ctr", mac: str = "hmac-sha2-256") -> bytes:
    lists = (kex, "ssh-ed25519", cipher, cipher, mac, mac, "none", "none", "", "")
    return b"\x14" + bytes(16) + b"".join(map(_string, lists)) + b"\0" + _number(0)


class Told:
    def __init__(self, address: str | None = "192.0.2.1", sends_environment: bool = False) -> None:
        self.lines: list[str] = []
        peer = Peer("host", 22, "joe", address)
        self.log = PacketLog(
            lambda level, text: self.lines.append(text),
            peer,
            lambda: Volume(320, 640),
            sends_environment=sends_environment,
        )

    def sent(self, payload: bytes, number: int = 0) -> list[str]:
        self.lines.clear()
        self.log.sent(number, payload)
        return list(self.lines)

    def received(self, payload: bytes, number: int = 0) -> list[str]:
        self.lines.clear()
        self.log.received(number, payload)
        return list(self.lines)


@pytest.mark.parametrize(
    ("cipher", "limit", "size", "blocks"),
    [
        ("chacha20-poly1305@openssh.com", 0, 8, 1 << 27),
        ("aes128-ctr", 0, 16, 1 << 32),
        ("3des-cbc", 1 << 20, 8, 1 << 17),
        ("aes256-gcm@openssh.com", 1 << 20, 16, 1 << 16),
        ("chacha20-poly1305@openssh.com", 1 << 40, 8, 1 << 27),
    ],
)
def test_limits(cipher: str, limit: int, size: int, blocks: int) -> None:
    assert block_size(cipher) == size
    assert most_blocks(cipher, limit) == blocks


def test_group_exchange_and_rekeying() -> None:
    told = Told()
    kex = "diffie-hellman-group-exchange-sha256"
    told.sent(_kexinit(kex))
    lines = told.received(_kexinit(kex + ",kex-strict-s-v00@openssh.com"))
    assert "kex_choose_conf: will use strict KEX ordering" in lines
    assert lines[-3:] == [
        "kex: host key algorithm: ssh-ed25519",
        "kex: server->client cipher: aes128-ctr MAC: hmac-sha2-256 compression: none",
        "kex: client->server cipher: aes128-ctr MAC: hmac-sha2-256 compression: none",
    ]
    request = b"\x22" + _number(2048) + _number(3072) + _number(8192)
    assert told.sent(request)[1:] == [
        "SSH2_MSG_KEX_DH_GEX_REQUEST(2048<3072<8192) sent",
        "expecting SSH2_MSG_KEX_DH_GEX_GROUP",
    ]
    assert told.received(b"\x1f")[-1] == "SSH2_MSG_KEX_DH_GEX_GROUP received"
    assert told.sent(b"\x20")[-1] == "expecting SSH2_MSG_KEX_DH_GEX_REPLY"
    assert told.received(b"\x21")[-1] == "SSH2_MSG_KEX_DH_GEX_REPLY received"
    assert "ssh_packet_send2_wrapped: resetting send seqnr 8" in told.sent(b"\x15", 7)
    assert "ssh_packet_read_poll2: resetting read seqnr 8" in told.received(b"\x15", 7)
    again = told.sent(b"\x15", 9)
    assert (
        "ssh_set_newkeys: rekeying out, input 640 bytes 40 blocks, output 320 bytes 20 blocks"
        in again
    )


@pytest.mark.parametrize(
    ("theirs", "last"),
    [
        (_kexinit("other"), "kex: algorithm: (no match)"),
        (_kexinit("curve25519-sha256", "none-of-ours"), "kex: host key algorithm: ssh-ed25519"),
    ],
)
def test_nothing_in_common(theirs: bytes, last: str) -> None:
    told = Told()
    told.sent(_kexinit("curve25519-sha256"))
    assert told.received(theirs)[-1] == last


@pytest.mark.parametrize("address", ["192.0.2.1", None])
def test_login(address: str | None) -> None:
    told = Told(address)
    where = "([192.0.2.1]:22)" if address else "(via proxy)"
    assert told.received(b"\x34")[-1] == f'Authenticated to host {where} using "none".'
    body = b"\x32" + _string("joe") + _string("ssh-connection")
    assert told.sent(body + _string("none")) == ["send packet: type 50"]
    lines = told.sent(body + _string("publickey-hostbound-v00@openssh.com"))
    assert lines[0] == "Next authentication method: publickey"
    assert lines[-1] == "we sent a publickey packet, wait for reply"
    assert told.received(b"\x33" + _string("password") + b"\x01")[1:] == [
        'Authenticated using "publickey" with partial success.',
        "Authentications that can continue: password",
    ]


def test_channel_lines_name_our_channel() -> None:
    told = Told(sends_environment=True)
    opening = b"\x5a" + _string("session") + _number(3)
    assert told.sent(opening)[-2:] == ["channel 3: send open", "send packet: type 90"]
    told.received(b"\x5b" + b"".join(map(_number, (3, 9, 100, 200))))
    env = b"\x62" + _number(9) + _string("env") + b"\0" + _string("A") + _string("b")
    assert told.sent(env)[:3] == [
        "Sending environment.",
        'channel 3: setting env A = "b"',
        "channel 3: request env confirm 0",
    ]
    command = b"\x62" + _number(9) + _string("exec") + b"\x01" + _string("x" * 901)
    assert told.sent(command)[:2] == [
        "Sending command: " + "x" * 900,
        "channel 3: request exec confirm 1",
    ]
    assert told.sent(b"\x60" + _number(9))[0] == "channel 3: send eof"
    assert told.sent(b"\x61" + _number(9))[0] == "channel 3: send close"
    assert told.sent(b"\x61" + _number(8))[0] == "channel 8: send close"
    assert told.sent(b"\x5e" + _number(9)) == []  # data


@pytest.mark.parametrize("kind", [6, 7, 20, 51, 80, 91, 93, 96, 97, 98, 99, 100])
def test_a_packet_that_ends_too_early_is_only_named(kind: int) -> None:
    assert Told().received(bytes((kind, 0)))[-1] == f"packet type {kind} has too few fields"


def test_a_length_beyond_the_packet() -> None:
    assert Told().received(b"\x06\xff\xff\xff\xffabc")[-1] == "packet type 6 has too few fields"


def test_extensions_are_bounded() -> None:
    many = _number(1 << 20) + (_string("odd") + _string("v")) * 100
    lines = Told().received(b"\x07" + many)
    assert lines.count("kex_input_ext_info: odd (unrecognised)") == 64
    known = b"\x07" + _number(1) + _string("server-sig-algs") + _string("ssh-ed25519")
    assert Told().received(known)[-1] == "kex_input_ext_info: server-sig-algs=<ssh-ed25519>"


def test_one_byte_too_few() -> None:
    adjust = b"\x5d" + _number(3) + _number(9)
    assert Told().received(adjust) == ["channel 3: rcvd adjust 9"]
    assert Told().received(adjust[:-1]) == ["packet type 93 has too few fields"]


def test_a_long_version_is_cut() -> None:
    told = Told()
    told.log.note_version("SSH-2.0-" + "x" * 101)
    assert told.lines == [
        "Remote protocol version 2.0, remote software version " + "x" * 100,
        "Authenticating to host:22 as 'joe'",
    ]
