"""Keywords of ssh_config(5) that no other file tests by their effect, beside ssh."""

from __future__ import annotations

import re
import socket

import pytest

from tests.integration._pairs import PROGRAMS, Pair, first_line
from tests.support.processes import end_popen
from tests.support.sshd import free_port


def negotiated(pair: Pair, program: str, *words: str) -> list[str]:
    """Log in; return what sshd says was agreed on: kex, host key, cipher, MAC, compression."""
    before = len(pair.server.log())
    assert pair.run(program, [*words, "server", "true"]).status == 0
    return re.findall(r"debug1: kex: (.*) \[preauth\]", pair.server.log()[before:])


@pytest.mark.parametrize(
    "option",
    [
        "Ciphers=aes192-ctr,aes128-ctr",
        "Ciphers=^aes256-ctr",
        "Ciphers=-chacha20*,aes*-gcm*",
        "Ciphers=chacha20-poly1305@openssh.com",
        "MACs=hmac-sha2-256,hmac-sha2-512",
        "KexAlgorithms=ecdh-sha2-nistp384,curve25519-sha256",
        "KexAlgorithms=^diffie-hellman-group14-sha256",
        "HostKeyAlgorithms=rsa-sha2-512",
        "HostKeyAlgorithms=^ecdsa-sha2-nistp256",
        "Compression=yes",
    ],
)
def test_algorithms_are_those_that_are_asked_for(pair: Pair, option: str) -> None:
    # xssh orders ciphers in its own way, and sntrup761 may be missing.
    words = ["-o", option, "-o", "Ciphers=aes256-ctr", "-o", "KexAlgorithms=curve25519-sha256"]
    expected = negotiated(pair, "ssh", *words)
    assert negotiated(pair, "xssh", *words) == expected
    assert len(expected) == 4


def test_canonicalize_hostname(pair: Pair) -> None:
    """A name is looked up in the domains, then the files are read again with what was found."""
    hosts = pair.home.path / "hosts"
    hosts.write_text("127.0.0.1 box.far.test a.b.far.test localname\n")
    environment = {**pair.environment, "NSS_WRAPPER_HOSTS": str(hosts)}
    config, port = pair.home.config.read_text(), pair.server.port
    config = config.replace("HostName 127.0.0.1", f"HostKeyAlias [127.0.0.1]:{port}")
    config = config.replace("Host server", "Host *.far.test").replace(f"Port {port}\n", "")
    pair.home.config.write_text(
        f"Port {port}\nCanonicalDomains nowhere.test far.test\n"
        f"Match canonical\n  SetEnv CANONICAL=1\n{config}"
    )
    for options, host, arrives in (
        (["CanonicalizeHostname=yes"], "box", True),
        (["CanonicalizeHostname=no"], "box", False),
        (["CanonicalizeHostname=yes"], "none", False),
        (["CanonicalizeHostname=yes", "CanonicalizeFallbackLocal=no"], "localname", False),
        (["CanonicalizeHostname=yes", "CanonicalizeMaxDots=0"], "a.b", False),
        (["CanonicalizeHostname=always", "CanonicalizePermittedCNAMEs=*:*"], "a.b", True),
    ):
        words = [word for option in options for word in ("-o", option)]
        words += ["-oBatchMode=yes", "-oConnectTimeout=20", host, "echo in"]
        expected, found = (first_line(pair.run(name, words, env=environment)) for name in PROGRAMS)
        assert found == expected, (options, host)
        assert found == (0, b"in\n", "") or not arrives, (options, host)


def test_clear_all_forwardings(pair: Pair) -> None:
    port = free_port()
    pair.home.config.write_text(
        f"AddressFamily inet\nLocalForward {port} localhost:1\n"
        f"RemoteForward {free_port()} localhost:1\n" + pair.home.config.read_text()
    )
    words = ["-oExitOnForwardFailure=yes", "server", ":"]
    with socket.create_server(("127.0.0.1", port)):
        kept = [pair.run(name, words) for name in PROGRAMS]
        cleared = [pair.run(name, ["-oClearAllForwardings=yes", *words]) for name in PROGRAMS]
    assert [done.status for done in kept] == [255, 255]
    assert cleared[0] == cleared[1] == (0, b"", "")


def test_ignore_unknown(pair: Pair) -> None:
    config = pair.home.config.read_text()
    pair.home.config.write_text("IgnoreUnknown UseKey*,NoSuch\nUseKeychain yes\n" + config)
    assert pair.both(["server", "echo in"]).stdout == b"in\n"
    pair.home.config.write_text("IgnoreUnknown NoSuch\nUseKeychain yes\n" + config)
    assert [pair.run(name, ["server", "echo in"]).status for name in PROGRAMS] == [255, 255]


def test_server_alive_count_max(pair: Pair) -> None:
    """Of two that ask a dead server each second, the one with fewer questions gives up first."""
    for program in PROGRAMS:
        options = ["-oServerAliveInterval=1", "server", "echo go; cat"]
        patient, hasty = (
            pair.start(program, [f"-oServerAliveCountMax={count}", *options]) for count in (5, 1)
        )
        try:
            for process in (patient, hasty):
                assert process.stdout is not None
                assert process.stdout.readline() == b"go\n"
            pair.server.suspend()
            assert hasty.wait(20) == 255
            assert patient.poll() is None, program
        finally:
            pair.server.resume()
            for process in (patient, hasty):
                end_popen(process)
