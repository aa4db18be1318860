"""The lines of -v, -vv and -vvv that people and tools look for: in ssh's log and in xssh's.

Variable parts are masked; a line has to come at the same level and the same number of times.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.beside import PROGRAMS, Beside
from tests.support.clients import ClientHome
from tests.support.sshd import SshServer, generate_key
from tests.support.terminals import Terminal
from tests.support.tools import openssh_release

TYPICAL = """\
debug1: Connecting to 127.0.0.1 [127.0.0.1] port N.
debug1: Connection established.
debug1: Local version string SSH-2.0-VERSION
debug1: Remote protocol version 2.0, remote software version VERSION
debug1: Authenticating to 127.0.0.1:N as 'demo'
debug1: SSH2_MSG_KEXINIT sent
debug1: SSH2_MSG_KEXINIT received
debug1: kex: algorithm: curve25519-sha256
debug1: kex: host key algorithm: ssh-ed25519
debug1: kex: server->client cipher: aes128-ctr MAC: hmac-sha2-256 compression: none
debug1: kex: client->server cipher: aes128-ctr MAC: hmac-sha2-256 compression: none
debug1: expecting SSH2_MSG_KEX_ECDH_REPLY
debug1: SSH2_MSG_KEX_ECDH_REPLY received
debug1: Server host key: ssh-ed25519 FINGERPRINT
debug1: Host '[127.0.0.1]:N' is known and matches the ED25519 host key.
debug1: Found key in PATH:N
debug1: rekey out after N blocks
debug1: SSH2_MSG_NEWKEYS sent
debug1: expecting SSH2_MSG_NEWKEYS
debug1: SSH2_MSG_NEWKEYS received
debug1: rekey in after N blocks
debug1: SSH2_MSG_EXT_INFO received
debug1: SSH2_MSG_SERVICE_ACCEPT received
debug1: Authentications that can continue: publickey
debug1: Next authentication method: publickey
Authenticated to 127.0.0.1 ([127.0.0.1]:N) using "publickey".
debug1: channel 0: new session [client-session]
debug1: Entering interactive session.
debug1: client_input_global_request: rtype hostkeys-00@openssh.com want_reply 0
debug1: Sending environment.
debug1: channel 0: setting env GREETING = "hello"
debug1: Sending command: exit 7
debug1: client_input_channel_req: channel 0 rtype exit-status reply 0
Transferred: sent N, received N bytes, in N seconds
Bytes per second: sent N, received N
debug1: Exit status 7
debug2: local client KEXINIT proposal
debug2: peer server KEXINIT proposal
debug2: KEX algorithms: curve25519-sha256
debug2: ciphers ctos: aes128-ctr
debug2: ciphers stoc: aes128-ctr
debug2: MACs ctos: hmac-sha2-256
debug2: MACs stoc: hmac-sha2-256
debug2: compression ctos: none,zlib@openssh.com
debug2: compression stoc: none,zlib@openssh.com
debug2: languages ctos:
debug2: first_kex_follows 0
debug2: reserved 0
debug2: ssh_set_newkeys: mode 1
debug2: ssh_set_newkeys: mode 0
debug2: service_accept: ssh-userauth
debug2: we sent a publickey packet, wait for reply
debug2: channel 0: send open
debug2: channel 0: request env confirm 0
debug2: channel 0: request exec confirm 1
debug2: channel 0: open confirm rwindow N rmax N
debug2: channel_input_status_confirm: type 99 id 0
debug2: channel 0: rcvd eof
debug2: channel 0: rcvd close
debug3: send packet: type 20
debug3: receive packet: type 20
debug3: send packet: type 21
debug3: receive packet: type 31
debug3: send packet: type 90
debug3: receive packet: type 98
debug3: set_sock_tos: set socket N IP_TOS 0xN
debug3: set_sock_tos: set socket N IP_TOS 0xN
""".splitlines()

NARROW = [
    "-oKexAlgorithms=curve25519-sha256",
    "-oCiphers=aes128-ctr",
    "-oMACs=hmac-sha2-256",
    "-oSendEnv=GREETING",
    "-oIPQoS=af21 cs1",
]


def mask(text: str) -> Counter[str]:
    """Return the lines without what differs from run to run."""
    masks = [
        (r"(SSH-2\.0-|software version ).*", r"\1VERSION"),
        (r"SHA256:\S+", "FINGERPRINT"),
        (r"(Found key in )\S+:\d+", r"\1PATH:N"),
        (r"((?:port|after|rwindow|rmax|socket|sent|received|in) )\d+(?:\.\d+)?", r"\1N"),
        (r"(:)\d{4,5}\b", r"\1N"),
        (r"(zlib@openssh.com),zlib$", r"\1"),  # up to 9.9
        (r" \(inactive timeout: 0\)$", ""),  # up to 10.5
        (r"(IP_TOS 0x)..$", r"\1N"),  # another one by default in 10.0
        (r"(debug2: KEX algorithms: [^,]+).*", r"\1"),
    ]
    lines: Counter[str] = Counter()
    for line in text.replace("\r", "").splitlines():
        for pattern, shown in masks:
            line = re.sub(pattern, shown, line)
        lines[line.rstrip()] += 1
    return lines


@pytest.fixture
def login(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> Beside:
    # One offer of each kind: the lists of both programs then agree.
    server = make_sshd(config="Ciphers aes128-ctr\nMACs hmac-sha2-256", accept_env="GREETING")
    return Beside(client_home, server, spawn_in_pty)


@pytest.fixture
def logs(login: Beside) -> dict[str, Counter[str]]:
    login.variables = {"GREETING": "hello"}
    found = {}
    for program in PROGRAMS:
        done = login.run(program, "-vvv", *NARROW, "server", "exit 7")
        assert done.status == 7, done
        found[program] = mask(done.stderr)
    return found


def test_the_lines_that_are_looked_for(logs: dict[str, Counter[str]]) -> None:
    missing = {
        program: [line for line in TYPICAL if not log[line]] for program, log in logs.items()
    }
    assert missing == {"ssh": [], "xssh": []}
    if openssh_release() >= (9, 5):
        return  # its own proposal twice, and a second SSH2_MSG_EXT_INFO
    # xssh may send more packets: it asks once more or once less, never in other words.
    counted = [line for line in TYPICAL if not line.startswith(("debug3", "debug2: we sent"))]
    assert {line: logs["xssh"][line] for line in counted} == {
        line: logs["ssh"][line] for line in counted
    }


def test_a_key_exchange_that_is_not_post_quantum(
    make_sshd: Callable[..., SshServer],
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
) -> None:
    server = make_sshd(config="KexAlgorithms curve25519-sha256")
    login = Beside(client_home, server, spawn_in_pty)
    said = login.both("server", "true").stderr.count("** ")
    assert said == (3 if openssh_release() >= (10, 1) else 0)
    for option in ("WarnWeakCrypto=no", "KexAlgorithms=+diffie-hellman-group14-sha1"):
        words = ["-oIgnoreUnknown=WarnWeakCrypto", f"-o{option}", "server", "true"]
        assert login.both(*words).stderr == ""


def test_they_come_in_sshs_order(login: Beside) -> None:
    """The milestones; in between the two may differ."""
    milestones = [
        "Connecting to", "Connection established", "Remote protocol",
        "SSH2_MSG_KEXINIT sent",
        "kex: algorithm", "Server host key", "SSH2_MSG_NEWKEYS sent", "Authentications that can",
        "Next authentication", "Offering public key", "Authenticated to", "Entering interactive",
        "Sending command", "rtype exit-status", "Transferred", "Exit status",
    ]  # fmt: skip
    for program in PROGRAMS:
        text = login.run(program, "-v", "server", "true").stderr
        places = [text.find(words) for words in milestones]
        assert -1 not in places and places == sorted(places), (program, places)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["-oKexAlgorithms=diffie-hellman-group-exchange-sha256", "server", "true"],
            r"debug1: SSH2_MSG_KEX_DH_GEX_REQUEST\(\d+<\d+<8192\) sent",
        ),
        (["-oKexAlgorithms=diffie-hellman-group-exchange-sha256", "server", "true"],
         "debug1: SSH2_MSG_KEX_DH_GEX_GROUP received"),
        (["-oKexAlgorithms=diffie-hellman-group-exchange-sha256", "server", "true"],
         "debug1: SSH2_MSG_KEX_DH_GEX_REPLY received"),
        (["-oKexAlgorithms=diffie-hellman-group14-sha256", "server", "true"],
         "debug1: expecting SSH2_MSG_KEX_ECDH_REPLY"),
        (["-oPreferredAuthentications=none", "server", "true"],
         "debug1: Authentications that can continue: publickey"),
        (["-s", "server", "sftp"], "debug1: Sending subsystem: sftp"),
        (["-oCompression=yes", "server", "true"],
         r"debug1: kex: client->server cipher: \S+ MAC: \S+ compression: zlib@openssh.com"),
        (["-oProxyCommand=true", "server", "true"], "debug1: Executing proxy command: exec true"),
        (["-oProxyUseFdpass=yes", "-oProxyCommand=true", "server", "true"],
         "debug1: Executing proxy dialer command: exec true"),
        (["-b", "127.0.0.3", "server", "true"], "debug1: ssh_create_socket: bound to 127.0.0.3"),
    ],
)  # fmt: skip
def test_lines_of_special_cases(login: Beside, words: list[str], line: str) -> None:
    for program in PROGRAMS:
        text = login.run(program, "-v", *words).stderr
        assert re.search(f"^{line}$", text, re.MULTILINE), (program, text)


def test_key_files_and_their_types(login: Beside, short_directory: Path) -> None:
    """Keys of each kind, a certificate beside one, and files that are missing or no keys."""
    for kind in ("ed25519", "ecdsa", "rsa"):
        generate_key(short_directory / kind, kind)
    argv = ["ssh-keygen", "-q", "-s", "rsa", "-I", "id", "-n", "demo", "ed25519.pub"]
    subprocess.run(argv, cwd=short_directory, check=True)
    (short_directory / "nonsense").write_text("no key")
    words = ["-v"]
    for name in ("ed25519", "ecdsa", "rsa", "nonsense", "missing"):
        words += ["-i", str(short_directory / name)]
    found = []
    for program in PROGRAMS:
        text = login.run(program, *words, "server", "true").stderr
        lines = text.replace("\r", "").splitlines()
        found.append([line for line in lines if line.startswith("debug1: identity file ")])
    if openssh_release() >= (10, 1):  # other numbers for the kinds, and fewer lines
        found = [{line.rpartition(" type ")[0] for line in lines} for lines in found]
        assert found[0] <= found[1]
        return
    assert found[0] == found[1]
    assert len(found[1]) >= 10


# Levels


@pytest.mark.parametrize(
    "words",
    [
        ["-q"], ["-oLogLevel=QUIET"], ["-oLogLevel=FATAL"], ["-oLogLevel=ERROR"],
        ["-oLogLevel=INFO"], [], ["-q", "-v"], ["-v", "-q"], ["-qq"],
    ],
)  # fmt: skip
def test_which_messages_a_level_hides(login: Beside, words: list[str]) -> None:
    """A bad configuration, a login that is refused and a server that leaves, at each level."""
    for case in (
        ["-oPubkeyAuthentication=no", "server", "true"],
        ["-p1", "server", "true"],
        ["server", "sleep 0.3; kill -9 $PPID"],
    ):
        expected, found = (login.run(program, *words, *case) for program in PROGRAMS)
        wanted = [line for line in expected.stderr.splitlines() if not is_debug(line)]
        got = [line for line in found.stderr.splitlines() if not is_debug(line)]
        got = [line for line in got if not line.startswith(("  try:", "xssh:"))]
        assert (found.status, got) == (expected.status, wanted), (case, found.stderr)


def is_debug(line: str) -> bool:
    return line.startswith(("debug", "OpenSSH_", "Transferred", "Bytes per", "Authenticated"))


@pytest.mark.parametrize("words", [["-v"], ["-oLogLevel=DEBUG"],
                                   ["-oLogLevel=DEBUG1"], ["-vv"],
                                   ["-oLogLevel=DEBUG2"], ["-vvv"], ["-vvvv"],
                                   ["-oLogLevel=DEBUG3"],
                                   ["-oLogLevel=VERBOSE"], ["-oLogLevel=INFO"]])  # fmt: skip
def test_the_loudest_line_at_each_level(login: Beside, words: list[str]) -> None:
    loudest = []
    for program in PROGRAMS:
        text = login.run(program, *words, "server", "true").stderr
        levels = {line[:7] for line in text.splitlines() if re.match(r"debug\d: ", line)}
        loudest.append((max(levels, default=""), "Authenticated to" in text))
    assert loudest[0] == loudest[1]


def test_what_goes_to_the_log_file_and_what_does_not(login: Beside, short_directory: Path) -> None:
    """-E takes messages. That the server left is said on stderr all the same."""
    logs = []
    for program in PROGRAMS:
        path = short_directory / program
        done = login.run(program, "-v", "-E", str(path), "server", "sleep 0.3; kill -9 $PPID")
        assert (done.status, done.stderr) == (
            255,
            "Connection to 127.0.0.1 closed by remote host.\n",
        )
        logs.append(path.read_text())
        assert path.stat().st_mode & 0o777 == 0o600 or program == "ssh"
    for log in logs:
        assert "debug1: Sending command: sleep 0.3; kill -9 $PPID" in log
        assert "debug1: Exit status -1" in log
