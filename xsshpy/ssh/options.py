"""Settings as asyncssh's options: algorithms it can do, methods it may try, and no defaults of its
own left open."""

from __future__ import annotations

from collections.abc import Sequence

import asyncssh
from asyncssh.encryption import get_encryption_algs
from asyncssh.kex import get_kex_algs
from asyncssh.mac import get_mac_algs
from asyncssh.public_key import get_certificate_algs, get_public_key_algs

from xsshpy.errors import SettingsError
from xsshpy.settings import Settings
from xsshpy.ssh.auth import Login, Typed, methods_to_try
from xsshpy.ssh.greeting import client_version

_OPENSSH_DEFAULT_CIPHERS = (
    # 9.x and before, then 10.0 and later.
    "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,"
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes256-gcm@openssh.com,"
    "aes128-ctr,aes192-ctr,aes256-ctr",
)
_POST_QUANTUM = ("mlkem", "sntrup")
_OPENSSH_DEFAULT_EXCHANGES = (
    "mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,"
    "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,"
    "ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,"
    "diffie-hellman-group18-sha512,diffie-hellman-group14-sha256"
)


def choose_algorithms(
    configured: Sequence[str], supported: Sequence[bytes], keyword: str
) -> list[str]:
    """Keep what asyncssh can do of a configured list. Raises SettingsError if nothing is left."""
    able = {name.decode("ascii") for name in supported}
    chosen = [name for name in configured if name in able]
    if configured and not chosen:
        # Kerberos' key exchange methods come first, and need more than a name in a list.
        other = next((name for name in supported if not name.startswith(b"gss-")), b"")
        raise SettingsError(
            f"xssh: {keyword}: none of {','.join(configured)} is supported",
            remedy=f"allow another, such as {other.decode('ascii')}",
        )
    return chosen


def order_ciphers(configured: Sequence[str]) -> list[str]:
    """Prefer AES-GCM where the order is OpenSSH's own default and not the user's.

    With asyncssh it moves about twice as many bytes a second as ChaCha20-Poly1305.
    """
    chosen = choose_algorithms(configured, get_encryption_algs(), "Ciphers")
    if ",".join(configured) in _OPENSSH_DEFAULT_CIPHERS:
        chosen.sort(key=lambda name: "gcm" not in name)
    return chosen


def weak_exchange_words(settings: Settings, chosen: str, offered: Sequence[str]) -> tuple[str, ...]:
    """Return what ssh says, from 10.1 on, of keys that a quantum computer will find some day.

    Nothing where WarnWeakCrypto or KexAlgorithms is the user's own. A server that knows such an
    exchange, but one that asyncssh does not have, need not be upgraded.
    """
    is_ours = ",".join(settings.kex_algorithms) == _OPENSSH_DEFAULT_EXCHANGES
    wanted = settings.keywords.get("warnweakcrypto", ("no",))[0] == "yes"
    if not wanted or not is_ours or chosen.startswith(_POST_QUANTUM):
        return ()
    remedy = "** The server may need to be upgraded. See https://openssh.com/pq.html"
    theirs = [name for name in settings.kex_algorithms if name in offered]
    if theirs and theirs[0].startswith(_POST_QUANTUM):
        remedy = f"** xssh does without the server's {theirs[0]}: it needs liboqs"
    return (
        "** WARNING: connection is not using a post-quantum key exchange algorithm.",
        '** This session may be vulnerable to "store now, decrypt later" attacks.',
        remedy,
    )


def connection_options(
    settings: Settings, login: Login, host_key_algorithms: Sequence[str]
) -> asyncssh.SSHClientConnectionOptions:
    """Translate the settings into asyncssh's options. No default of asyncssh's own is left open."""
    methods = methods_to_try(settings)
    both = [*get_certificate_algs(), *get_public_key_algs()]
    compression = ["zlib@openssh.com", "zlib"]
    compression.insert(len(compression) if settings.compression else 0, "none")
    rekey = {"rekey_bytes": settings.rekey_bytes} if settings.rekey_bytes else {}
    options = asyncssh.SSHClientConnectionOptions(
        host=settings.hostname,
        port=settings.port,
        username="",
        client_username="",  # who vouches for whom is asked of the connection
        config=None,
        client_factory=lambda: login,
        client_version=client_version(settings.version_addendum),
        known_hosts=([], [], []),
        x509_trusted_certs=None,
        x509_trusted_cert_paths=[],
        client_keys=None,
        agent_path=None,
        agent_forwarding=False,  # a session that asks for it allows it: see connection.py
        gss_host=None,
        preferred_auth=methods,
        public_key_auth="publickey" in methods,
        kbdint_auth="keyboard-interactive" in methods,
        password_auth="password" in methods,
        host_based_auth=False,
        kex_algs=choose_algorithms(settings.kex_algorithms, get_kex_algs(), "KexAlgorithms") or (),
        encryption_algs=order_ciphers(settings.ciphers) or (),
        mac_algs=choose_algorithms(settings.macs, get_mac_algs(), "MACs") or (),
        server_host_key_algs=choose_algorithms(host_key_algorithms, both, "HostKeyAlgorithms")
        or "default",
        signature_algs=[name.decode() for name in get_public_key_algs()],  # see identities.py
        compression_algs=compression,
        tcp_keepalive=settings.tcp_keep_alive,
        keepalive_interval=settings.server_alive_interval,
        keepalive_count_max=settings.server_alive_count_max,
        connect_timeout=None,
        login_timeout=0,  # people take their time at a prompt; the server has its own limit
        utf8_decode_errors="replace",
        rekey_seconds=0,  # a connection's own clock keeps it: see observed.py
        **rekey,
    )
    options.username = Typed(settings.user)  # asyncssh would prepare it (RFC 4013), ssh does not
    return options
