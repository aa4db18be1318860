"""Is this the host's key? A pure decision, and every sentence that goes with it.

``decide_host_key`` looks at the key a server shows and at what is on record, and returns what to
do: accept it, ask the user, put it on record first, go on with less, or refuse. It does nothing
itself; ``settle_host_key`` carries a decision through, with the asking and the writing handed in.

The rules and the words are those of OpenSSH's sshconnect.c (check_host_key), because scripts match
on them. One thing more than upstream: the ``remove with:`` command under an offending key, as
Debian's ssh prints it. One thing less: a key that is on record only without its port is not
compared with its address's key (CheckHostIP with a port other than 22).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from xsshpy.ssh.hostkey_policy import (
    SSH_PORT,
    Feature,
    HostKeyPolicy,
    HostNames,
    StrictChecking,
)
from xsshpy.ssh.hostkey_texts import (
    ASK_AGAIN,
    ASK_AGAIN_PLAIN,
    QUESTION_PLAIN,
    VERIFICATION_FAILED,
    Line,
    address_warning,
    changed_key_lines,
    debug_line,
    describe_question,
    error_line,
    info_line,
    revoked_key_lines,
    spoofing_lines,
)
from xsshpy.ssh.keyblob import HostCertificate, HostKey, plain_algorithm
from xsshpy.ssh.known_hosts import Entry, KnownHosts, Marker

_UNRECORDABLE: Final = frozenset("@?*#[]|'\"\\")
_MAX_QUESTIONS: Final = 100
"""An askpass program that never gives a sensible answer is taken to mean no."""


@dataclass(frozen=True)
class Addition:
    """A key to put on record, and what to say about how that went."""

    path: str
    names: tuple[str, ...]
    key: HostKey
    hashed: bool
    added: Line
    failed: Line


@dataclass(frozen=True)
class Accept:
    """Go on. ``trusted``: the key was on record or the user said yes (UpdateHostKeys needs it)."""

    lines: tuple[Line, ...]
    trusted: bool


@dataclass(frozen=True)
class AcceptUntrusted:
    """Go on, but without ``disabled``: StrictHostKeyChecking=no, and a changed or revoked key."""

    lines: tuple[Line, ...]
    disabled: frozenset[Feature]


@dataclass(frozen=True)
class Refuse:
    """End the run. ``reason`` is the last thing to be said, by whoever ends it."""

    lines: tuple[Line, ...]
    reason: str = VERIFICATION_FAILED


@dataclass(frozen=True)
class Add:
    """Say ``lines``, put the key on record, say how it went, go on with ``then`` either way."""

    lines: tuple[Line, ...]
    addition: Addition
    then: Decision


@dataclass(frozen=True)
class Ask:
    """Say ``lines``, then ask ``prompt``, and ``again`` until the answer is one.

    ``fingerprint`` counts as a yes; it is empty where only yes and no do.
    """

    lines: tuple[Line, ...]
    prompt: str
    again: str
    fingerprint: str
    yes: Decision
    no: Decision


Decision = Accept | AcceptUntrusted | Add | Ask | Refuse
Settled = Accept | AcceptUntrusted | Refuse


class Answer(Enum):
    """What the user said."""

    YES = auto()
    NO = auto()
    AGAIN = auto()


def parse_host_key_answer(answer: str | None, fingerprint: str) -> Answer:
    """Read an answer as ssh does: its first word, yes and no in any case, the fingerprint exactly.

    Nothing (an empty line, or None for the end of input) is a no.
    """
    words = (answer or "").lstrip(" \t").replace("\t", " ").replace("\n", " ").split(" ", 1)
    word = words[0]
    if word == "" or word.lower() == "no":
        return Answer.NO
    if word.lower() == "yes" or (fingerprint and word == fingerprint):
        return Answer.YES
    return Answer.AGAIN


async def settle_host_key(
    decision: Decision,
    *,
    say: Callable[[Line], None],
    ask: Callable[[str], Awaitable[str | None]],
    record: Callable[[Addition], Awaitable[str | None]],
) -> Settled:
    """Carry a decision through and return how it ended. All has been said but a refusal's reason.

    ``ask`` shows a prompt and returns the answer, None where there is no one to ask. ``record``
    writes a key and returns None, or the reason why it could not.
    """
    while True:
        for line in decision.lines:
            say(line)
        if isinstance(decision, Add):
            reason = await record(decision.addition)
            say(decision.addition.added if reason is None else decision.addition.failed)
            if reason is not None:
                say(info_line(f"xssh: {decision.addition.path}: {reason}"))
            decision = decision.then
        elif isinstance(decision, Ask):
            agreed = await _ask_until_answered(decision, ask)
            decision = decision.yes if agreed else decision.no
        else:
            return decision


async def _ask_until_answered(question: Ask, ask: Callable[[str], Awaitable[str | None]]) -> bool:
    prompt = question.prompt
    for _attempt in range(_MAX_QUESTIONS):
        answer = parse_host_key_answer(await ask(prompt), question.fingerprint)
        if answer is not Answer.AGAIN:
            return answer is Answer.YES
        prompt = question.again
    return False


def decide_host_key(
    presented: HostKey | HostCertificate,
    known: KnownHosts,
    names: HostNames,
    policy: HostKeyPolicy,
    certificate_problem: str = "",
) -> Decision:
    """Decide about the key a server shows. ``certificate_problem`` is keyblob's, if it has one.

    A certificate is judged by its CA; where that is unknown or the certificate does not hold, the
    key inside is judged like any other.
    """
    if 0 < presented.plain.rsa_bits < policy.required_rsa_size:
        return Refuse((), "Bad server host key: Invalid key length")
    if policy.trust_localhost and names.is_local and names.alias is None:
        text = "Forcing accepting of host key for loopback/localhost."
        return Accept((debug_line(text),), trusted=False)
    case = _Case(known, names, policy, certificate_problem, isinstance(presented, HostCertificate))
    result = _judge_with_retry(case, presented, (), bare=False)
    if isinstance(result, _Failed):
        return Refuse(result.lines)
    return result


class _Status(Enum):
    OK = auto()
    NEW = auto()
    CHANGED = auto()
    REVOKED = auto()


@dataclass(frozen=True)
class _Match:
    """How a key compares with what is on record for one name, and the line that decided."""

    status: _Status
    found: Entry | None = None


@dataclass(frozen=True)
class _Failed:
    """The key was not accepted. ``final``: not even without its certificate."""

    lines: tuple[Line, ...]
    final: bool = False


@dataclass(frozen=True)
class _Case:
    known: KnownHosts
    names: HostNames
    policy: HostKeyPolicy
    certificate_problem: str
    was_certificate: bool

    @property
    def checks_address(self) -> bool:
        names = self.names
        differs = names.address is not None and names.address != names.bare_name
        return self.policy.check_host_ip and differs and not names.is_local

    @property
    def obstacle(self) -> str:
        """Why no key can be put on record; empty where one can."""
        if not self.known.user_files:
            return "there is no UserKnownHostsFile"
        if _UNRECORDABLE & set(self.names.host):
            return "its name cannot be written to a known_hosts file"
        return ""


@dataclass(frozen=True)
class _Question:
    """One look at one key: under its full name, or under the name without the port (``bare``)."""

    case: _Case
    key: HostKey | HostCertificate
    bare: bool
    name: str
    host: _Match
    address: _Match | None

    @property
    def policy(self) -> HostKeyPolicy:
        return self.case.policy


def _judge_with_retry(
    case: _Case, key: HostKey | HostCertificate, lines: tuple[Line, ...], *, bare: bool
) -> Decision | _Failed:
    result = _judge(case, key, lines, bare=bare)
    if isinstance(key, HostCertificate) and isinstance(result, _Failed) and not result.final:
        retry = debug_line("No matching CA found. Retry with plain key")
        return _judge(case, key.key, (*result.lines, retry), bare=bare)
    return result


def _judge(
    case: _Case, key: HostKey | HostCertificate, lines: tuple[Line, ...], *, bare: bool
) -> Decision | _Failed:
    if not _is_permitted(key, case.policy.host_key_algorithms):
        text = f"host key {key.algorithm} not permitted by HostkeyAlgorithms"
        return _Failed((*lines, error_line(text)))
    name = case.names.bare_name if bare else case.names.record_name
    host = _compare(case.known.lookup(name), key)
    address = None
    if case.checks_address and not bare:
        address = (
            _Match(host.status)
            if case.was_certificate
            else _compare(case.known.lookup(case.names.address_name), key)
        )
    question = _Question(case, key, bare, name, host, address)
    judges = {
        _Status.OK: _judge_known,
        _Status.NEW: _judge_new,
        _Status.CHANGED: _judge_changed,
        _Status.REVOKED: _judge_revoked,
    }
    return judges[host.status](question, lines)


def _is_permitted(key: HostKey | HostCertificate, algorithms: tuple[str, ...]) -> bool:
    certified = isinstance(key, HostCertificate)
    return not algorithms or any(
        plain_algorithm(name) == key.plain.algorithm and ("-cert-v01@" in name) == certified
        for name in algorithms
    )


def _compare(entries: tuple[Entry, ...], key: HostKey | HostCertificate) -> _Match:
    """Look for a key among a name's entries: a certificate's CA, or the plain key itself."""
    signers = {key.plain} | ({key.ca} if isinstance(key, HostCertificate) else set())
    if any(e.marker is Marker.REVOKED and e.key.plain in signers for e in entries):
        return _Match(_Status.REVOKED)
    certified = isinstance(key, HostCertificate)
    marker = Marker.CERT_AUTHORITY if certified else Marker.NONE
    wanted = key.ca if isinstance(key, HostCertificate) else key
    candidates = [entry for entry in entries if entry.marker is marker]
    for entry in candidates:
        if entry.key == wanted:
            return _Match(_Status.OK, entry)
    if candidates and not certified:
        return _Match(_Status.CHANGED, candidates[-1])
    return _Match(_Status.NEW)


def _judge_known(question: _Question, lines: tuple[Line, ...]) -> Decision | _Failed:
    key, found, case = question.key, question.host.found, question.case
    assert found is not None
    certified = isinstance(key, HostCertificate)
    lines = (
        *lines,
        debug_line(
            f"Host '{question.name}' is known and matches the {key.display_name} host "
            f"{'certificate' if certified else 'key'}."
        ),
        debug_line(f"Found {'CA key' if certified else 'key'} in {found.path}:{found.line}"),
    )
    if certified and case.certificate_problem:
        return _Failed((*lines, error_line(case.certificate_problem)))
    if question.address is None or question.address.status is not _Status.NEW:
        return _compare_with_address(question, Accept(lines, trusted=True))
    address = case.names.address_name
    if certified or case.obstacle:
        text = f"{key.display_name} host key for IP address '{address}' not in list of known hosts."
        return _compare_with_address(question, Accept((*lines, info_line(text)), trusted=True))
    what = f"the {key.display_name} host key for IP address '{address}' to the list of known hosts"
    addition = _addition(question, (address,), what, what)
    return Add(lines, addition, _compare_with_address(question, Accept((), trusted=True)))


def _judge_new(question: _Question, lines: tuple[Line, ...]) -> Decision | _Failed:
    case, key, names = question.case, question.key, question.case.names
    if not question.bare and names.alias is None and names.port not in (0, SSH_PORT):
        lines = (*lines, debug_line("checking without port identifier"))
        bare = _judge_with_retry(case, key, lines, bare=True)
        if not isinstance(bare, _Failed):
            return _accept_without_port(question, bare)
        lines = bare.lines
    if question.bare or isinstance(key, HostCertificate):
        return _Failed(lines)
    if case.obstacle:
        text = f"xssh: the new key of {question.name} cannot be put on record: {case.obstacle}"
        return _Failed((*lines, error_line(text)))
    if case.policy.strict is StrictChecking.YES:
        text = (
            f"No {key.display_name} host key is known for {question.name} and you have "
            "requested strict checking."
        )
        return _Failed((*lines, error_line(text)))
    if case.policy.strict is StrictChecking.ASK:
        return _ask_about_new(question, key, lines)
    return _add_new(question, lines, trusted=False)


def _accept_without_port(question: _Question, decision: Decision) -> Decision:
    found = debug_line("found matching key w/out port")
    if isinstance(decision, Accept):
        accept = Accept((*decision.lines, found), trusted=False)
        return _compare_with_address(question, accept)
    if isinstance(decision, AcceptUntrusted):
        less = replace(decision, lines=(*decision.lines, found))
        return _compare_with_address(question, less)
    return decision


def _ask_about_new(
    question: _Question, key: HostKey, lines: tuple[Line, ...]
) -> Decision | _Failed:
    known, names, policy = question.case.known, question.case.names, question.policy
    # ssh reads the files once more for the key's other names, and only then minds a broken one.
    others: tuple[Entry, ...] = ()
    if known.unreadable:
        path, reason = known.unreadable[0]
        where = "hostkeys_find_by_key_hostfile: hostkeys_foreach failed for"
        lines = (*lines, error_line(f"{where} {path}: {reason}"))
    else:
        others = known.other_names(key, question.name)
    if policy.batch:
        return _Failed(lines)
    fingerprint = key.fingerprint(policy.fingerprint_hash)
    prompt = describe_question(
        question.name, names.address_name, key, fingerprint, others, policy.home
    )
    accepted = _add_new(question, (), trusted=True)
    return Ask(lines, prompt, ASK_AGAIN, fingerprint, accepted, Refuse(()))


def _add_new(question: _Question, lines: tuple[Line, ...], *, trusted: bool) -> Decision:
    address = question.address
    names: tuple[str, ...] = (question.name,)
    if address is not None and address.status is _Status.NEW:
        names = (question.name, question.case.names.address_name)
    what = f"'{','.join(names)}' ({question.key.display_name}) to the list of known hosts"
    addition = _addition(question, names, what, "the host to the list of known hosts")
    return Add(lines, addition, _compare_with_address(question, Accept((), trusted=trusted)))


def _addition(question: _Question, names: tuple[str, ...], what: str, failed_what: str) -> Addition:
    path = question.case.known.user_files[0]
    return Addition(
        path=path,
        names=names,
        key=question.key.plain,
        hashed=question.policy.hash_known_hosts,
        added=info_line(f"Warning: Permanently added {what}."),
        failed=info_line(f"Failed to add {failed_what} ({path})."),
    )


def _judge_changed(question: _Question, lines: tuple[Line, ...]) -> Decision | _Failed:
    key, found, case = question.key, question.host.found, question.case
    assert found is not None
    assert isinstance(key, HostKey)  # another CA's certificate is new, not changed
    if question.bare:
        return _Failed(lines)
    lines += _address_change_lines(question, key, found)
    files = case.known.user_files or case.known.system_files
    fingerprint = key.fingerprint(case.policy.fingerprint_hash)
    lines += changed_key_lines(key, fingerprint, question.name, found, files[0])
    if case.policy.strict is not StrictChecking.NO:
        text = f"Host key for {question.name} has changed and you have requested strict checking."
        return _Failed((*lines, error_line(text)))
    return _go_on_with_less(question, lines)


def _address_change_lines(question: _Question, key: HostKey, found: Entry) -> tuple[Line, ...]:
    address = question.address
    if address is None or question.case.was_certificate:
        return ()
    if address.found is not None and address.found.key == found.key:
        return ()
    what = {_Status.NEW: "is unknown", _Status.OK: "is unchanged"}.get(
        address.status, "has a different value"
    )
    names = question.case.names
    return spoofing_lines(key, question.name, names.address_name, what, address.found)


def _judge_revoked(question: _Question, lines: tuple[Line, ...]) -> Decision | _Failed:
    lines += revoked_key_lines(question.key, question.name)
    if question.policy.strict is not StrictChecking.NO:
        text = (
            f"{question.key.display_name} host key for {question.name} was revoked and you have "
            "requested strict checking."
        )
        return _Failed((*lines, error_line(text)), final=True)
    return _go_on_with_less(question, lines)


def _go_on_with_less(question: _Question, lines: tuple[Line, ...]) -> Decision:
    """Leave out whatever an impostor could use: passwords and everything forwarded."""
    policy = question.policy
    disabled = [feature for feature in Feature if feature in policy.enabled]
    for feature in disabled:
        if feature is Feature.UPDATE_HOST_KEYS:
            text = "UpdateHostkeys is disabled because the host key is not trusted."
        else:
            text = f"{feature.value} is disabled to avoid man-in-the-middle attacks."
        lines = (*lines, error_line(text))
    cancelled = [feature for feature in disabled if feature is not Feature.UPDATE_HOST_KEYS]
    if policy.exit_on_forward_failure and cancelled:
        return Refuse(lines, "Error: forwarding disabled due to host key check failure")
    return _compare_with_address(question, AcceptUntrusted(lines, frozenset(disabled)))


def _compare_with_address(question: _Question, accepted: Accept | AcceptUntrusted) -> Decision:
    """Go on, unless CheckHostIP finds another key on record for the address."""
    address, host, key = question.address, question.host, question.key
    if address is None or address.status is not _Status.CHANGED or host.status is _Status.CHANGED:
        return accepted
    assert address.found is not None
    assert isinstance(key, HostKey)
    warning = address_warning(
        key, question.name, question.case.names.address_name, address.found, host.found
    )
    if question.policy.strict is StrictChecking.NO:
        return replace(accepted, lines=(*accepted.lines, info_line(warning)))
    if question.policy.strict is not StrictChecking.ASK:
        strict = error_line("Exiting, you have requested strict checking.")
        return Refuse((*accepted.lines, info_line(warning), strict))
    if question.policy.batch:
        return Refuse(accepted.lines)
    prompt = f"{warning}\n{QUESTION_PLAIN}"
    yes = replace(accepted, lines=())
    return Ask(accepted.lines, prompt, ASK_AGAIN_PLAIN, "", yes, Refuse(()))
