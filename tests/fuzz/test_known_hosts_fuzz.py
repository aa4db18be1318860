"""Whatever bytes a known_hosts file or a server's key holds, nothing but an answer comes out."""

from __future__ import annotations

import base64
import hashlib

from hypothesis import given
from hypothesis import strategies as st

from xsshpy.ssh.hostkey_decisions import (
    Accept,
    AcceptUntrusted,
    Answer,
    Decision,
    Refuse,
    parse_host_key_answer,
)
from xsshpy.ssh.hostkey_policy import HostKeyPolicy, HostNames, StrictChecking
from xsshpy.ssh.hostkeys import decide_host_key
from xsshpy.ssh.keyblob import (
    HostCertificate,
    HostKey,
    KeyBlobError,
    certificate_problem,
    parse_public_key,
)
from xsshpy.ssh.known_hosts import (
    KnownHosts,
    Marker,
    format_entry,
    order_host_key_algorithms,
    parse_known_hosts,
)
from xsshpy.ssh.patterns import match_host_list


def ssh_string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def make_key(seed: int) -> HostKey:
    public = hashlib.sha256(str(seed).encode()).digest()
    return HostKey("ssh-ed25519", ssh_string(b"ssh-ed25519") + ssh_string(public))


KEYS = [make_key(number) for number in range(3)]
ALGORITHMS = ["ssh-ed25519", "rsa-sha2-512", "ssh-ed25519-cert-v01@openssh.com", "unknown", ""]

blank = st.sampled_from([b" ", b"\t", b"  ", b"", b"\0", b"\r"])
hosts = st.one_of(
    st.sampled_from([b"h", b"*", b"!h,*", b"[h]:2", b"|1|", b"|1|a|b", b"|2|x", b",", b"h,i"]),
    st.binary(max_size=12),
    st.builds(
        lambda salt: format_entry(["h"], KEYS[0], [salt]).split()[0],
        st.binary(min_size=20, max_size=20),
    ),
)
markers = st.sampled_from([b"", b"@revoked", b"@cert-authority", b"@", b"@x", b"#"])
keys = st.one_of(
    st.sampled_from([key.text().encode() for key in KEYS]),
    st.binary(max_size=30),
    st.builds(lambda data: b"ssh-rsa " + base64.b64encode(data), st.binary(max_size=40)),
)
lines = st.builds(lambda *parts: b"".join(parts), markers, blank, hosts, blank, keys, blank)
files = st.one_of(st.binary(max_size=300), st.lists(lines, max_size=6).map(b"\n".join))
names = st.builds(
    HostNames,
    st.one_of(st.sampled_from(["h", "H", "i", "h*"]), st.text(max_size=8)),
    st.sampled_from([22, 2]),
    st.sampled_from([None, "192.0.2.1", "::1", "fe80::1%x", "no address"]),
    st.one_of(st.none(), st.text(max_size=5)),
)
policies = st.builds(
    HostKeyPolicy,
    strict=st.sampled_from(list(StrictChecking)),
    check_host_ip=st.booleans(),
    batch=st.booleans(),
    host_key_algorithms=st.lists(st.sampled_from(ALGORITHMS), max_size=2).map(tuple),
)


def endings(decision: Decision) -> list[Accept | AcceptUntrusted | Refuse]:
    if isinstance(decision, Accept | AcceptUntrusted | Refuse):
        return [decision]
    following = (decision.then,) if hasattr(decision, "then") else (decision.yes, decision.no)
    return [end for one in following for end in endings(one)]


@given(files, names, policies, st.sampled_from(KEYS))
def test_any_file(data: bytes, host: HostNames, policy: HostKeyPolicy, key: HostKey) -> None:
    known = KnownHosts(("/kh",), (), parse_known_hosts(data, "/kh"))
    entries = known.lookup(host.record_name)
    decision = decide_host_key(key, known, host, policy)
    for ending in endings(decision):
        for line in ending.lines:
            assert line.text
    order_host_key_algorithms(ALGORITHMS, entries)
    marked = {entry.marker for entry in entries if entry.key == key}
    if Marker.REVOKED in marked and policy.strict is not StrictChecking.NO:
        assert isinstance(decision, Refuse) or host.port != 22


@given(st.binary(max_size=200))
def test_any_blob(data: bytes) -> None:
    try:
        key = parse_public_key(data)
    except KeyBlobError:
        return
    assert isinstance(key, HostKey | HostCertificate)


@given(st.lists(st.one_of(st.integers(0, 300), st.binary(max_size=40)), max_size=14))
def test_any_fields(fields: list[int | bytes]) -> None:
    """A certificate's name and then anything: lengths and numbers where they do not belong."""
    parts = [part.to_bytes(4, "big") if isinstance(part, int) else ssh_string(part)
             for part in fields]  # fmt: skip
    for name in (b"ssh-ed25519-cert-v01@openssh.com", b"ssh-rsa-cert-v01@openssh.com", b"ssh-rsa",
                 b"sk-ecdsa-sha2-nistp256@openssh.com", b"ssh-dss"):  # fmt: skip
        try:
            parse_public_key(ssh_string(name) + b"".join(parts))
        except KeyBlobError:
            continue


def certificate(principals: bytes, numbers: tuple[int, int, int], rest: list[bytes]) -> bytes:
    kind, after, before = numbers
    return b"".join(
        [
            ssh_string(b"ssh-ed25519-cert-v01@openssh.com"), ssh_string(b"n"),
            ssh_string(b"k" * 32), bytes(8), kind.to_bytes(4, "big"), ssh_string(b"id"),
            ssh_string(principals), after.to_bytes(8, "big"), before.to_bytes(8, "big"),
            ssh_string(rest[0]), ssh_string(rest[1]), ssh_string(rest[2]),
            ssh_string(KEYS[1].blob), ssh_string(ssh_string(rest[3])),
        ]
    )  # fmt: skip


@given(
    st.one_of(st.binary(max_size=20), st.lists(st.binary(max_size=5)).map(
        lambda names: b"".join(map(ssh_string, names)))),
    st.tuples(st.sampled_from([0, 1, 2]), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    st.lists(st.binary(max_size=5), min_size=4, max_size=4),
    st.text(max_size=5),
)  # fmt: skip
def test_any_certificate(
    principals: bytes, numbers: tuple[int, int, int], rest: list[bytes], name: str
) -> None:
    try:
        made = parse_public_key(certificate(principals, numbers, rest))
    except KeyBlobError:
        return
    assert isinstance(made, HostCertificate)
    assert isinstance(certificate_problem(made, name, 1.0, ["ssh-ed25519"]), str)


@given(st.binary(max_size=30), st.text("ab*?!,", max_size=30))
def test_any_pattern(name: bytes, patterns: str) -> None:
    match_host_list(name, patterns.encode())


@given(st.one_of(st.none(), st.text(max_size=20)))
def test_any_answer(answer: str | None) -> None:
    meaning = parse_host_key_answer(answer, "SHA256:x")
    first = (answer or "").split()
    assert meaning is not Answer.YES or first[0].lower() in ("yes", "sha256:x")


@given(st.lists(st.text("abcXYZ.-", min_size=1, max_size=10), min_size=1, max_size=3),
       st.booleans())  # fmt: skip
def test_what_is_written_is_found(hosts: list[str], hashed: bool) -> None:
    salts = [bytes([number] * 20) for number, _name in enumerate(hosts)] if hashed else []
    known = KnownHosts(lines=parse_known_hosts(format_entry(hosts, KEYS[0], salts), "/kh"))
    for name in hosts:
        assert all(entry.key == KEYS[0] for entry in known.lookup(name.lower()))
        assert known.lookup(name.lower())
