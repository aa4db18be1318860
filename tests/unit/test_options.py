"""Settings as asyncssh's options, and failures as sentences."""

from __future__ import annotations

import asyncio

import asyncssh
import pytest

from xsshpy import __version__
from xsshpy.console import Console
from xsshpy.errors import AuthenticationError, SettingsError, XsshError
from xsshpy.settings import Settings, parse_settings
from xsshpy.ssh.auth import Login
from xsshpy.ssh.connection import ClientConnection
from xsshpy.ssh.failures import HandshakeTimeoutError, explain_failure, explain_refused_jump
from xsshpy.ssh.options import (
    choose_algorithms,
    connection_options,
    order_ciphers,
    weak_exchange_words,
)

OLD_DEFAULT = (
    "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,"
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com"
)

DEFAULT_EXCHANGES = (
    "mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,"
    "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,"
    "ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,"
    "diffie-hellman-group18-sha512,diffie-hellman-group14-sha256"
)


def settle(*lines: str) -> Settings:
    return parse_settings(
        "\n".join(("user me", "hostname h.example", "port 2222", *lines)), "h", {}
    )


class NoJudge:
    """Host keys play no part here."""

    def judge(self, key_data: bytes) -> tuple[asyncssh.SSHKey, None]:
        raise NotImplementedError


def make(settings: Settings) -> tuple[asyncssh.SSHClientConnectionOptions, ClientConnection]:
    async def build() -> tuple[asyncssh.SSHClientConnectionOptions, ClientConnection]:
        login = Login(settings, Console(), lambda feature: True)
        options = connection_options(settings, login, ["ssh-ed25519"])
        loop = asyncio.get_running_loop()
        options.waiter = loop.create_future()
        return options, ClientConnection(loop, options, NoJudge(), login.step_succeeded)

    return asyncio.run(build())


def test_algorithms_that_are_not_known_are_left_out() -> None:
    assert choose_algorithms(["a", "x", "b"], [b"b", b"a"], "Ciphers") == ["a", "b"]
    assert choose_algorithms([], [b"a"], "Ciphers") == []
    with pytest.raises(SettingsError, match="Ciphers: none of x,y is supported") as caught:
        choose_algorithms(["x", "y"], [b"gss-a", b"b"], "Ciphers")
    assert caught.value.remedy == "allow another, such as b"


@pytest.mark.parametrize(
    ("line", "exchanges", "chosen", "offered", "said"),
    [
        ("warnweakcrypto yes", DEFAULT_EXCHANGES, "curve25519-sha256", [], "may need to be"),
        ("warnweakcrypto yes", DEFAULT_EXCHANGES, "curve25519-sha256",
         ["sntrup761x25519-sha512"], "does without the server's sntrup761x25519-sha512"),
        ("warnweakcrypto yes", DEFAULT_EXCHANGES, "mlkem768x25519-sha256", [], ""),
        ("warnweakcrypto yes", "curve25519-sha256", "curve25519-sha256", [], ""),
        ("warnweakcrypto no", DEFAULT_EXCHANGES, "curve25519-sha256", [], ""),
        ("ciphers x", DEFAULT_EXCHANGES, "curve25519-sha256", [], ""),
    ],
)  # fmt: skip
def test_a_key_exchange_that_is_not_post_quantum(
    line: str, exchanges: str, chosen: str, offered: list[str], said: str
) -> None:
    settings = settle(line, f"kexalgorithms {exchanges}")
    words = weak_exchange_words(settings, chosen, offered)
    assert (len(words), said in "".join(words)) == (3 if said else 0, True)


@pytest.mark.parametrize(
    ("lines", "release"),
    [
        ((), (0, 0)),
        (("obscurekeystroketiming yes",), (9, 5)),
        (("obscurekeystroketiming yes", "channeltimeout none"), (9, 6)),
        (("channeltimeout none", f"kexalgorithms {DEFAULT_EXCHANGES}"), (9, 9)),
        (("channeltimeout none", "kexalgorithms x", "warnweakcrypto yes"), (10, 1)),
    ],
)
def test_the_release_is_told_from_what_it_prints(
    lines: tuple[str, ...], release: tuple[int, int]
) -> None:
    assert settle(*lines).release == release


@pytest.mark.parametrize(("value", "wanted"), [("yes", 1), ("no", 0), ("UNKNOWN", 1), ("", 0)])
def test_compression_as_every_release_prints_it(value: str, wanted: int) -> None:
    assert settle(f"compression {value}").compression == bool(wanted)


def test_the_version_may_have_an_addendum() -> None:
    def version(*lines: str) -> str:
        options, _ = make(settle(*lines))
        assert isinstance(options.version, bytes)
        return options.version.decode()

    assert version("versionaddendum none") == version() == f"xssh_{__version__}"
    assert version("versionaddendum for us only") == f"xssh_{__version__} for us only"
    assert version("versionaddendum ž\t") == f"xssh_{__version__} ?"
    assert version("versionaddendum " + "x" * 300).endswith("xxx")


def test_the_faster_cipher_comes_first_in_openssh_s_own_order_only() -> None:
    assert order_ciphers(OLD_DEFAULT.split(","))[0] == "aes128-gcm@openssh.com"
    own = ["chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com"]
    assert order_ciphers(own) == own
    assert sorted(order_ciphers(OLD_DEFAULT.split(","))) == sorted(OLD_DEFAULT.split(","))


def test_options_carry_the_settings() -> None:
    settings = settle("compression yes", "serveraliveinterval 7", "rekeylimit 1048576 60")
    options, _ = make(settings)
    assert (options.host, options.port, options.username) == ("h.example", 2222, "me")
    assert options.compression_algs == [b"zlib@openssh.com", b"zlib", b"none"]
    assert options.keepalive_interval == 7
    assert options.rekey_bytes == 1048576
    assert options.rekey_seconds == 0  # the connection's own clock keeps it
    assert options.login_timeout == 0
    assert options.server_host_key_algs == ["ssh-ed25519"]


def test_nothing_is_compressed_unless_asked_for_or_needed() -> None:
    """The client's first choice counts (RFC 4253 §7.1)."""
    assert make(settle())[0].compression_algs == [b"none", b"zlib@openssh.com", b"zlib"]


ADDRESS = "192.0.2.7"
WHERE = "192.0.2.7 port 2222"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (asyncssh.PermissionDenied("no"), "me@h.example: Permission denied ()."),
        (
            asyncssh.KeyExchangeFailed(
                "No matching encryption algorithm found, sent a,b and received c,d"
            ),
            f"Unable to negotiate with {WHERE}: no matching cipher found. Their offer: c,d",
        ),
        (HandshakeTimeoutError(), f"Connection timed out during banner exchange\n"
         f"Connection to {WHERE} timed out"),
        (ConnectionResetError(), "kex_exchange_identification: read: Connection reset by peer\n"
         f"Connection reset by {WHERE}"),
        (asyncssh.ConnectionLost("x"), "kex_exchange_identification: Connection closed by remote "
         f"host\nConnection closed by {WHERE}"),
        (asyncssh.ProtocolError("Banner line too long"), "kex_exchange_identification: banner line "
         f"too long\nbanner exchange: Connection to {WHERE}: invalid format"),
        (RuntimeError("odd"), "kex_exchange_identification: Connection closed by remote "
         f"host\nConnection closed by {WHERE}"),
    ],
)  # fmt: skip
def test_failures_before_the_banner_in_words(error: Exception, words: str) -> None:
    settings = settle()
    explained = explain_failure(error, settings, make(settings)[1], ADDRESS)
    assert isinstance(explained, XsshError)
    assert explained.message == words
    assert explained.remedy


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (HandshakeTimeoutError(), f"Connection to {WHERE} timed out"),
        (ConnectionResetError(), f"Connection reset by {WHERE}"),
        (asyncssh.ConnectionLost("x"), f"Connection closed by {WHERE}"),
        (
            asyncssh.ProtocolError("Bad thing"),
            f"ssh_dispatch_run_fatal: Connection to {WHERE}: Bad thing",
        ),
    ],
)
def test_failures_after_the_banner_in_words(error: Exception, words: str) -> None:
    settings = settle()
    connection = make(settings)[1]
    connection.set_extra_info(server_version="SSH-2.0-x")
    explained = explain_failure(error, settings, connection, ADDRESS)
    assert isinstance(explained, XsshError)
    assert words in explained.message and explained.remedy


def test_behind_a_proxy_there_is_no_address() -> None:
    settings = settle("proxycommand run me")
    error = explain_failure(ConnectionResetError(), settings, make(settings)[1], None)
    assert isinstance(error, XsshError)
    assert error.message.endswith("Connection closed by UNKNOWN port 65535")
    assert error.remedy.startswith("run the ProxyCommand for h by hand")


def test_the_farewell_goes_before_all_else() -> None:
    settings = settle()
    connection = make(settings)[1]
    connection.farewell = (2, "Too many authentication failures")
    connection.offered_methods = ("publickey",)
    error = explain_failure(asyncssh.PermissionDenied("x"), settings, connection, ADDRESS)
    assert isinstance(error, XsshError)
    assert error.message == (
        f"Received disconnect from {WHERE}:2: Too many authentication failures\n"
        f"Disconnected from {WHERE}"
    )
    assert "IdentitiesOnly=yes" in error.remedy


@pytest.mark.parametrize(
    ("lines", "methods", "remedy"),
    [
        (["batchmode yes"], ("publickey", "password"), "ssh-copy-id"),
        ([], ("publickey",), "-i"),
        ([], ("publickey", "password"), "user name and the password"),
    ],
)
def test_the_remedy_fits_what_the_server_offers(
    lines: list[str], methods: tuple[str, ...], remedy: str
) -> None:
    settings = settle(*lines)
    connection = make(settings)[1]
    connection.offered_methods = methods
    error = explain_failure(asyncssh.PermissionDenied("x"), settings, connection, ADDRESS)
    assert isinstance(error, AuthenticationError)
    assert f"({','.join(methods)})." in error.message
    assert remedy in error.remedy


def test_what_is_told_already_or_no_failure_passes() -> None:
    settings = settle()
    connection = make(settings)[1]
    for error in (XsshError("told"), asyncio.CancelledError(), KeyboardInterrupt()):
        assert explain_failure(error, settings, connection, ADDRESS) is error


@pytest.mark.parametrize(
    ("code", "kind"),
    [(1, "administratively prohibited"), (2, "connect failed"), (4, "resource shortage"),
     (99, "unknown reason")],
)  # fmt: skip
def test_why_a_jump_host_refuses(code: int, kind: str) -> None:
    error = explain_refused_jump(asyncssh.ChannelOpenError(code, "why"), settle(), settle())
    assert error.message == f"channel 0: open failed: {kind}: why"
    assert error.remedy
