"""Is this the host's key? A pure decision, and every sentence that goes with it.

``decide_host_key`` looks at the key a server shows and at what is on record, and returns what to
do: accept it, ask the user, put it on record first, go on with less, or refuse. It does nothing
itself; ``hostkey_decisions`` carries a decision through.

The rules and the words are those of OpenSSH's sshconnect.c (check_host_key), because scripts match
on them. One thing more than upstream: the ``remove with:`` command under an offending key, as
Debian's ssh prints it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from xsshpy.console import LogLevel
from xsshpy.ssh.hostkey_decisions import (
    Accept,
    AcceptUntrusted,
    Add,
    Addition,
    Ask,
    Decision,
    Refuse,
)
from xsshpy.ssh.hostkey_policy import (
    SSH_PORT,
    Feature,
    HostKeyPolicy,
    HostNames,
    StrictChecking,
    is_permitted,
)
from xsshpy.ssh.hostkey_texts import (
    ASK_AGAIN,
    ASK_AGAIN_PLAIN,
    QUESTION_PLAIN,
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
from xsshpy.ssh.keyblob import HostCertificate, HostKey
from xsshpy.ssh.known_hosts import Entry, KnownHosts, Marker
from xsshpy.ssh.randomart import draw_randomart
from xsshpy.values import dataclass, replace

_DEBUG3: Final = LogLevel.DEBUG3
_UNRECORDABLE: Final = frozenset("@?*#[]|'\"\\")


def decide_without_record(
    presented: HostKey | HostCertificate,
    names: HostNames,
    policy: HostKeyPolicy,
    revocation: str = "",
) -> Accept | Refuse | None:
    """Decide where it does not matter what is on record; None where it does.

    ``revocation`` is what RevokedHostKeys says against the key.
    """
    if 0 < presented.plain.rsa_bits < policy.required_rsa_size:
        return Refuse((), "Bad server host key: Invalid key length")
    if revocation:
        return Refuse((error_line(revocation),))
    if policy.trust_localhost and names.is_local and names.alias is None:
        text = "Forcing accepting of host key for loopback/localhost."
        return Accept((debug_line(text),), trusted=False)
    return None


def decide_host_key(
    presented: HostKey | HostCertificate,
    known: KnownHosts,
    names: HostNames,
    policy: HostKeyPolicy,
    certificate_problem: str = "",
    *,
    known_address: KnownHosts | None = None,
) -> Decision:
    """Decide about the key a server shows. ``certificate_problem`` is keyblob's, if it has one.

    A certificate is judged by its CA; where that is unknown or the certificate does not hold, the
    key inside is judged like any other. ``known_address`` is what to look the address up in, where
    that is not ``known`` too.
    """
    at_once = decide_without_record(presented, names, policy)
    if at_once is not None:
        return at_once
    certified = isinstance(presented, HostCertificate)
    by_address = known if known_address is None else known_address
    case = _Case(known, by_address, names, policy, certificate_problem, certified)
    return _finish(_judge_with_retry(case, presented, (), bare=False))


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
    known_address: KnownHosts
    names: HostNames
    policy: HostKeyPolicy
    certificate_problem: str
    was_certificate: bool

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

    @property
    def address_name(self) -> str:
        names = self.case.names
        return names.address if self.bare and names.address is not None else names.address_name


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
    if not is_permitted(key, case.policy.host_key_algorithms):
        text = f"host key {key.algorithm} not permitted by HostkeyAlgorithms"
        return _Failed((*lines, error_line(text)))
    name = case.names.bare_name if bare else case.names.record_name
    known, by_address = case.known, case.known_address
    if bare:
        known = by_address = case.known.without_command_output()
    host = _compare(known.lookup(name), key)
    question = _Question(case, key, bare, name, host, None)
    if case.policy.checks_address(case.names):
        address = (
            _Match(host.status)
            if case.was_certificate
            else _compare(by_address.lookup(question.address_name), key)
        )
        question = replace(question, address=address)
    judges = {
        _Status.OK: _judge_known,
        _Status.NEW: _judge_new,
        _Status.CHANGED: _judge_changed,
        _Status.REVOKED: _judge_revoked,
    }
    return judges[host.status](question, lines)


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
    reason = _why_not_updated(question, found)
    trusted = not reason
    if reason and Feature.UPDATE_HOST_KEYS in case.policy.enabled:
        lines += (debug_line(f"check_host_key: {reason}; disabling UpdateHostkeys", _DEBUG3),)
    if question.address is None or question.address.status is not _Status.NEW:
        if case.policy.visual:
            fingerprint = key.plain.fingerprint(case.policy.fingerprint_hash)
            lines += (info_line(f"Host key fingerprint is {fingerprint}\n{_picture(question)}"),)
        return _compare_with_address(question, Accept(lines, trusted=trusted))
    address = question.address_name
    if certified or case.obstacle or found.from_command or question.bare:
        text = f"{key.display_name} host key for IP address '{address}' not in list of known hosts."
        return _compare_with_address(question, Accept((*lines, info_line(text)), trusted=trusted))
    what = f"the {key.display_name} host key for IP address '{address}' to the list of known hosts"
    addition = _addition(question, (address,), what, what)
    then = _finish(_compare_with_address(question, Accept((), trusted=trusted)))
    return Add(lines, addition, then)


def _why_not_updated(question: _Question, found: Entry) -> str:
    """Say why a key that is on record is no ground to take others from the server."""
    if isinstance(question.key, HostCertificate):
        return "certificate host key in use"
    by_address = question.address.found if question.address is not None else None
    system_files = question.case.known.system_files
    if any(entry is not None and entry.path in system_files for entry in (found, by_address)):
        return "host key found in GlobalKnownHostsFile"
    return "host key found via KnownHostsCommand" if found.from_command else ""


def _picture(question: _Question) -> str:
    return draw_randomart(question.key, question.policy.fingerprint_hash)


def _judge_new(question: _Question, lines: tuple[Line, ...]) -> Decision | _Failed:
    names = question.case.names
    if not question.bare and names.alias is None and names.port not in (0, SSH_PORT):
        lines = (*lines, debug_line("checking without port identifier"))
        bare = _judge_with_retry(question.case, question.key, lines, bare=True)
        if not isinstance(bare, _Failed):
            return _accept_without_port(question, bare)
        lines = bare.lines
    return _judge_unknown(question, lines)


def _judge_unknown(question: _Question, lines: tuple[Line, ...]) -> Decision | _Failed:
    case, key = question.case, question.key
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


def _accept_without_port(question: _Question, decision: Decision) -> Decision | _Failed:
    """Go on with what was found without the port; what is asked there is no last word."""
    found = debug_line("found matching key w/out port")
    if isinstance(decision, Accept):
        accept = Accept((*decision.lines, found), trusted=False)
        return _compare_with_address(question, accept)
    if isinstance(decision, AcceptUntrusted):
        less = replace(decision, lines=(*decision.lines, found))
        return _compare_with_address(question, less)
    if isinstance(decision, Ask):
        agreed = _finish(_accept_without_port(question, decision.yes))
        return replace(decision, yes=agreed, no=_finish(_judge_unknown(question, ())))
    return decision


def _finish(result: Decision | _Failed) -> Decision:
    return Refuse(result.lines) if isinstance(result, _Failed) else result


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
    picture = _picture(question) if policy.visual else ""
    prompt = describe_question(
        question.name, names.address_name, key, fingerprint, others, policy.home, picture
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
    then = _finish(_compare_with_address(question, Accept((), trusted=trusted)))
    return Add(lines, addition, then)


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


def _go_on_with_less(question: _Question, lines: tuple[Line, ...]) -> Decision | _Failed:
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


def _compare_with_address(
    question: _Question, accepted: Accept | AcceptUntrusted
) -> Decision | _Failed:
    """Go on, unless CheckHostIP finds another key on record for the address."""
    address, host, key = question.address, question.host, question.key
    if address is None or address.status is not _Status.CHANGED or host.status is _Status.CHANGED:
        return accepted
    assert address.found is not None
    assert isinstance(key, HostKey)
    warning = address_warning(key, question.name, question.address_name, address.found, host.found)
    if question.policy.strict is StrictChecking.NO:
        return replace(accepted, lines=(*accepted.lines, info_line(warning)))
    if question.policy.strict is not StrictChecking.ASK:
        strict = error_line("Exiting, you have requested strict checking.")
        return _Failed((*accepted.lines, info_line(warning), strict))
    if question.policy.batch:
        return _Failed(accepted.lines)
    prompt = f"{warning}\n{QUESTION_PLAIN}"
    yes = replace(accepted, lines=())
    return Ask(accepted.lines, prompt, ASK_AGAIN_PLAIN, "", yes, Refuse(()))
