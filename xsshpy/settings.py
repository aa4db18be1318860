"""From what the user typed to what is to be done: ``ssh -G`` reads the configuration.

OpenSSH resolves its own configuration with the user's own options, so every keyword, token,
``Match``, ``Include``, system file and error text is that machine's own (ssh_config(5)). What it
prints, one ``keyword value`` a line, becomes :class:`Settings`: frozen and typed. Parsing is pure;
``xsshpy.ssh_g`` starts the program.
"""

from __future__ import annotations

import os

from xsshpy.errors import SettingsError
from xsshpy.login_settings import LoginSettings, read_login_settings
from xsshpy.tokens import expand_home, expand_tokens, find_token, home_directory, local_user
from xsshpy.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    import socket
    from collections.abc import Callable, Mapping, Sequence

HASH_KEYWORD = "connectionhash"
"""Ours, among those that ``ssh -G`` printed: what it makes of %C."""

TUNNEL_INTERFACE = "\0T"
"""Stands in a LocalCommand for the name of the tunnel device, which is known only later."""

_MOST_DIGITS = 18
_NOT_IN_USER = "'`\";&<>|(){}"
_NOT_IN_HOST = _NOT_IN_USER + "$\\"
_PROXY_TOKENS = "%hknpr"


@dataclass(frozen=True)
class Invocation:
    """What the user typed, understood but not yet resolved against any configuration.

    ``ssh_options`` are ssh's own options in the order typed, as ``(letter, value)``; a letter that
    takes no value has ``None``. The last ``late_options`` of them stood after the destination:
    what it says of user and port was obtained before them. ``command`` is the remote command as
    ssh sends it: the arguments joined by single spaces; empty for a login shell.
    """

    destination: str
    command: str = ""
    ssh_options: tuple[tuple[str, str | None], ...] = ()
    late_options: int = 0
    script: str | None = None
    script_arguments: tuple[str, ...] = ()
    python: str | None = None
    backend: str | None = None
    x11: str | None = None
    stats: bool = False
    share: str | None = None
    doctor: bool = False
    as_json: bool = False
    setup: bool = False
    yes: bool = False
    dry_run: bool = False
    undo: bool = False

    def count(self, letter: str) -> int:
        """Return how often an option without a value was given."""
        return sum(1 for name, _ in self.ssh_options if name == letter)

    def last_of(self, letters: str) -> str:
        """Return the last given option among ``letters``, or an empty string."""
        given = [name for name, _ in self.ssh_options if name in letters]
        return given[-1] if given else ""

    def value_of(self, letter: str) -> str | None:
        """Return the last value given for an option, or None."""
        values = [value for name, value in self.ssh_options if name == letter]
        return values[-1] if values else None

    def with_options(
        self, first: tuple[tuple[str, str | None], ...], *, without: str
    ) -> Invocation:
        """Return the same with more options before all others, and without those of some letters.

        The command is kept; a script is not.
        """
        border = len(self.ssh_options) - self.late_options
        early, late = (
            tuple(option for option in part if option[0] not in without)
            for part in (self.ssh_options[:border], self.ssh_options[border:])
        )
        return Invocation(self.destination, self.command, (*first, *early, *late), len(late))

    def ssh_arguments(self) -> list[str]:
        """Return ssh's own options and the destination as argv words, order kept.

        A destination that starts with a dash must never be an option: it comes after "--", which
        ends all options. Where more of them follow, it was no option when it was typed.
        """
        words: list[str] = []
        border = len(self.ssh_options) - self.late_options
        for position, (letter, value) in enumerate(self.ssh_options):
            if position == border:
                words.append(self.destination)
            words.append(f"-{letter}")
            if value is not None:
                words.append(value)
        return [*words, "--"] if self.late_options else [*words, "--", self.destination]


@dataclass(frozen=True)
class Settings:
    """Everything a run needs to know, resolved. Times are seconds; 0 or None means no limit.

    Names are ssh_config(5)'s. Paths have had ``~``, ``${VARIABLES}`` and tokens expanded.
    """

    host: str
    hostname: str
    user: str
    port: int
    keywords: Mapping[str, tuple[str, ...]] = field(repr=False)

    bind_address: str = ""
    bind_interface: str = ""
    batch_mode: bool = False
    compression: bool = False
    tcp_keep_alive: bool = True
    version_addendum: str = ""
    connect_timeout: int | None = None
    connection_attempts: int = 1
    server_alive_interval: int = 0
    server_alive_count_max: int = 3
    proxy_command: str = ""
    proxy_jump: tuple[str, ...] = ()

    ciphers: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    kex_algorithms: tuple[str, ...] = ()
    host_key_algorithms: tuple[str, ...] = ()
    pubkey_accepted_algorithms: tuple[str, ...] = ()
    ca_signature_algorithms: tuple[str, ...] = ()
    required_rsa_size: int = 1024
    rekey_bytes: int = 0
    rekey_seconds: int = 0

    strict_host_key_checking: str = "ask"
    host_key_alias: str = ""
    user_known_hosts_files: tuple[str, ...] = ()
    global_known_hosts_files: tuple[str, ...] = ()
    hash_known_hosts: bool = False
    check_host_ip: bool = False
    no_host_authentication_for_localhost: bool = False
    fingerprint_hash: str = "SHA256"
    visual_host_key: bool = False
    update_host_keys: str = "no"
    known_hosts_command: str = ""
    revoked_host_keys: str = ""

    preferred_authentications: tuple[str, ...] = ()
    pubkey_authentication: bool = True
    password_authentication: bool = True
    kbd_interactive_authentication: bool = True
    number_of_password_prompts: int = 3
    identity_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False
    identity_agent: str = ""
    login: LoginSettings = field(default_factory=LoginSettings)

    request_tty: str = "auto"
    escape_char: str = "~"
    log_level: str = "INFO"
    stdin_null: bool = False
    remote_command: str = ""
    local_command: str = ""
    session_type: str = "default"
    send_env: tuple[str, ...] = ()
    set_env: tuple[tuple[str, str], ...] = ()

    fork_after_authentication: bool = False
    exit_on_forward_failure: bool = False
    forward_agent: str = ""
    forward_x11: bool = False
    forward_x11_trusted: bool = False
    forward_x11_timeout: int = 1200

    @property
    def release(self) -> tuple[int, int]:
        """The release of which the ssh that read the configuration is at least; else zeros."""
        from xsshpy.openssh import tell_release  # an end that needs its words is rare

        return tell_release(self.keywords)

    @property
    def address_family(self) -> socket.AddressFamily:
        """Which addresses of the host are asked for."""
        import socket  # a passenger asks for none, and has no need of it

        families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
        value = self.keywords.get("addressfamily", ("any",))[0]
        return families.get(value, socket.AF_UNSPEC)


def parse_keywords(text: str) -> dict[str, tuple[str, ...]]:
    """Return what ``ssh -G`` printed: each keyword, lower case, with its values in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.strip().partition(" ")
        if keyword:
            found.setdefault(keyword.lower(), []).append(value.strip())
    return {keyword: tuple(values) for keyword, values in found.items()}


def _count(text: str, default: int = 0) -> int:
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else default


class _Reader:
    """Typed access to the keywords that ``ssh -G`` printed."""

    def __init__(self, keywords: Mapping[str, tuple[str, ...]]) -> None:
        self._keywords = keywords

    def text(self, keyword: str, default: str = "") -> str:
        values = self._keywords.get(keyword)
        return values[0] if values else default

    def optional(self, keyword: str) -> str:
        """Return the value, or an empty string for ``none`` and for nothing at all."""
        value = self.text(keyword)
        return "" if value.lower() == "none" else value

    def flag(self, keyword: str, default: bool = False) -> bool:
        value = self.text(keyword).lower()
        return value in ("yes", "true") if value else default

    def number(self, keyword: str, default: int = 0) -> int:
        value = self.text(keyword)
        return _count(value, default)

    def names(self, keyword: str) -> tuple[str, ...]:
        """Return a comma-separated list."""
        return tuple(name for name in self.optional(keyword).split(",") if name)

    def choices(self, keyword: str) -> tuple[str, ...]:
        """Return a list in which ``none`` and ``,`` choose nothing, while no value is the default.

        ssh-copy-id asks with ``,`` for a login that does not take place.
        """
        value = self.text(keyword)
        return tuple(value.split(",")) if value else ()

    def each(self, keyword: str) -> tuple[str, ...]:
        """Return a keyword that is printed once for each value."""
        values = self._keywords.get(keyword, ())
        return tuple(value for value in values if value.lower() != "none")

    def paths(self, keyword: str) -> tuple[str, ...]:
        """Return a list of paths on one line.

        Without quotes, as OpenSSH up to 10.0 prints them at least, a word that does not begin like
        a path belongs to the one before it, which has spaces in its name.
        """
        value = self.optional(keyword)
        if '"' in value:
            import shlex

            try:
                return tuple(shlex.split(value))
            except ValueError:
                pass  # the quotes are part of a name
        paths: list[str] = []
        for word in value.split(" "):
            if not paths or word.startswith(("/", "~", "%", "$")):
                paths.append(word)
            else:
                paths[-1] += f" {word}"
        return tuple(path for path in paths if path)


_UPDATE_WORDS = {"yes": "yes", "true": "yes", "ask": "ask"}


def parse_settings(text: str, host: str, environ: Mapping[str, str]) -> Settings:
    """Turn the output of ``ssh -G`` into :class:`Settings`.

    ``host`` is what the user typed (the alias). Raises SettingsError for an unset ``${VARIABLE}``
    in a path, as ssh does.
    """
    keywords = parse_keywords(text)
    read = _Reader(keywords)
    # ssh -G has expanded RemoteCommand, UserKnownHostsFile, IdentityAgent and ForwardAgent, but
    # not IdentityFile, CertificateFile, LocalCommand and ProxyCommand.
    expand = _path_expander(read, host, environ)
    jump = read.optional("proxyjump")
    rekey = [*read.text("rekeylimit").split(), "0", "0"][:2]
    return Settings(
        host=host,
        hostname=read.text("hostname", host),
        user=read.text("user"),
        port=read.number("port", 22),
        keywords=keywords,
        bind_address=read.optional("bindaddress"),
        bind_interface=read.optional("bindinterface"),
        batch_mode=read.flag("batchmode"),
        # From 10.0 on -C is printed as UNKNOWN.
        compression=read.text("compression").lower() in ("yes", "true", "unknown"),
        tcp_keep_alive=read.flag("tcpkeepalive", True),
        version_addendum=read.optional("versionaddendum"),
        connect_timeout=read.number("connecttimeout") or None,
        connection_attempts=read.number("connectionattempts", 1),
        server_alive_interval=read.number("serveraliveinterval"),
        server_alive_count_max=read.number("serveralivecountmax", 3),
        proxy_command=read.optional("proxycommand"),
        proxy_jump=tuple(jump.split(",")) if jump else (),
        ciphers=read.names("ciphers"),
        macs=read.names("macs"),
        kex_algorithms=read.names("kexalgorithms"),
        host_key_algorithms=read.names("hostkeyalgorithms"),
        pubkey_accepted_algorithms=read.names("pubkeyacceptedalgorithms"),
        ca_signature_algorithms=read.names("casignaturealgorithms"),
        required_rsa_size=read.number("requiredrsasize", 1024),
        rekey_bytes=_count(rekey[0]),
        rekey_seconds=_count(rekey[1]),
        strict_host_key_checking=read.text("stricthostkeychecking", "ask").lower(),
        host_key_alias=read.optional("hostkeyalias"),
        user_known_hosts_files=tuple(map(expand_home, read.paths("userknownhostsfile"))),
        global_known_hosts_files=read.paths("globalknownhostsfile"),
        hash_known_hosts=read.flag("hashknownhosts"),
        check_host_ip=read.flag("checkhostip"),
        no_host_authentication_for_localhost=read.flag("nohostauthenticationforlocalhost"),
        fingerprint_hash=read.text("fingerprinthash", "SHA256").upper(),
        visual_host_key=read.flag("visualhostkey"),
        update_host_keys=_UPDATE_WORDS.get(read.text("updatehostkeys", "no").lower(), "no"),
        known_hosts_command=read.optional("knownhostscommand"),
        revoked_host_keys=read.optional("revokedhostkeys"),
        preferred_authentications=read.choices("preferredauthentications"),
        pubkey_authentication=read.text("pubkeyauthentication", "yes") not in ("no", "false"),
        password_authentication=read.flag("passwordauthentication", True),
        kbd_interactive_authentication=read.flag("kbdinteractiveauthentication", True),
        number_of_password_prompts=read.number("numberofpasswordprompts", 3),
        identity_files=tuple(map(expand, read.each("identityfile"))),
        certificate_files=tuple(map(expand, read.each("certificatefile"))),
        identities_only=read.flag("identitiesonly"),
        identity_agent=_agent_path(read.text("identityagent", "SSH_AUTH_SOCK"), environ),
        login=read_login_settings(keywords, environ),
        request_tty=read.text("requesttty", "auto").lower(),
        escape_char=read.text("escapechar", "~"),
        log_level=_log_level(read.text("loglevel", "INFO")),
        stdin_null=read.flag("stdinnull"),
        remote_command=read.optional("remotecommand"),
        local_command=expand_tokens(
            read.optional("localcommand"),
            {**_tokens(read, host), "T": TUNNEL_INTERFACE},
            "LocalCommand",
        )
        if read.flag("permitlocalcommand")
        else "",
        session_type=read.text("sessiontype", "default"),
        send_env=tuple(pattern for line in read.each("sendenv") for pattern in line.split()),
        set_env=_set_env(read.each("setenv")),
        fork_after_authentication=read.flag("forkafterauthentication"),
        exit_on_forward_failure=read.flag("exitonforwardfailure"),
        forward_agent=_forward_agent(read, environ),
        forward_x11=read.flag("forwardx11"),
        forward_x11_trusted=read.flag("forwardx11trusted"),
        forward_x11_timeout=read.number("forwardx11timeout", 1200),
    )


def _set_env(lines: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Each line is ``name=value``, as it is: OpenSSH has taken the quotes away."""
    pairs = (line.partition("=") for line in lines)
    return tuple((name, value) for name, separator, value in pairs if separator)


def _log_level(name: str) -> str:
    """``ssh -G`` prints QUIET by its older name."""
    return "QUIET" if name.upper() == "SILENT" else name


def _agent_path(value: str, environ: Mapping[str, str]) -> str:
    """IdentityAgent: a path, ``none``, ``SSH_AUTH_SOCK``, or ``$VARIABLE`` (ssh_config(5))."""
    if value.lower() == "none":
        return ""
    if value == "SSH_AUTH_SOCK":
        return environ.get("SSH_AUTH_SOCK", "")
    if value.startswith("$") and value[1:].replace("_", "a").isalnum():
        return environ.get(value[1:], "")
    return expand_home(value)


def _forward_agent(read: _Reader, environ: Mapping[str, str]) -> str:
    """ForwardAgent as the path of the agent's socket; empty where nothing is forwarded.

    Where it names no other, it is the agent that the login uses too: IdentityAgent's.
    """
    value = read.text("forwardagent", "no")
    if value.lower() in ("no", "false", "none"):
        return ""
    if value.lower() in ("yes", "true"):
        value = read.text("identityagent", "SSH_AUTH_SOCK")
    return _agent_path(value, environ)


def _tokens(read: _Reader, host: str) -> dict[str, str]:
    """The values of ssh_config(5)'s TOKENS for this connection."""
    from hashlib import sha1  # answers without a connection do without it, and libcrypto

    local = os.uname().nodename
    hostname, port, user = read.text("hostname", host), read.text("port", "22"), read.text("user")
    jump = read.optional("proxyjump").rpartition(",")[2]
    jump = alias_of(jump if jump.startswith("ssh://") else f"ssh://{jump}") if jump else ""
    own = sha1(os.fsencode(f"{local}{hostname}{port}{user}{jump}")).hexdigest()  # noqa: S324
    return {
        "%": "%",
        "C": read.text(HASH_KEYWORD) or own,
        "d": home_directory(),
        "h": hostname,
        "i": str(os.getuid()),
        "j": jump,
        "k": read.optional("hostkeyalias") or host,
        "L": local.split(".")[0],
        "l": local,
        "n": host,
        "p": port,
        "r": user,
        "T": "NONE",
        "u": local_user(),
    }


def _path_expander(read: _Reader, host: str, environ: Mapping[str, str]) -> Callable[[str], str]:
    def expand(path: str) -> str:
        if "%" not in path and "$" not in path:
            return expand_home(path)
        import re

        tokens = _tokens(read, host)

        def replace(match: re.Match[str]) -> str:
            name = match.group(1)
            if name is None:
                return find_token(match.group(2), tokens, "path")
            if name not in environ:
                raise SettingsError(
                    f"xssh: the configuration names ${{{name}}}, which is not set",
                    evidence=(f"  in: {path}",),
                    remedy=f"export {name}=… or change that path in ssh_config",
                )
            return environ[name]

        # In one go: what a variable holds is no place for tokens.
        return expand_home(re.sub(r"\$\{(\w+)\}|%(.?)", replace, path, flags=re.DOTALL))

    return expand


def connection_tokens(settings: Settings) -> dict[str, str]:
    """Return the values of ssh_config(5)'s TOKENS for this connection."""
    return _tokens(_Reader(settings.keywords), settings.host)


def expand_proxy_command(settings: Settings) -> str:
    """Return ProxyCommand with its tokens replaced, as the user's shell is to run it."""
    tokens = connection_tokens(settings)
    known = {name: tokens[name] for name in _PROXY_TOKENS}
    return expand_tokens(settings.proxy_command, known, "ProxyCommand")


def check_invocation(invocation: Invocation) -> None:
    """Refuse what could be read as something else on the way: SettingsError.

    Host and user names end up in command lines (ProxyCommand's ``%h`` and ``%r``), so OpenSSH
    takes only harmless ones from the command line; and an option's value is one line.
    """
    for letter, value in invocation.ssh_options:
        if value is not None and ("\n" in value or "\0" in value):
            raise SettingsError(
                f"xssh: the value of -{letter} has more than one line",
                remedy="put it on one line; several commands can be joined by semicolons",
            )
    host = alias_of(invocation.destination)
    if host.startswith("-") or _holds(host, _NOT_IN_HOST, str.isspace):
        raise SettingsError("hostname contains invalid characters")
    typed, _, _ = invocation.destination.removeprefix("ssh://").rpartition("@")
    for user in (typed, invocation.value_of("l") or ""):
        is_option = any(before[-1:].isspace() for before in f" {user}".split("-")[:-1])
        if is_option or user.endswith("\\") or _holds(user, _NOT_IN_USER):
            raise SettingsError("remote username contains invalid characters")


def _holds(text: str, characters: str, kind: Callable[[str], bool] | None = None) -> bool:
    """Tell whether text holds control characters, some others, or any of a kind."""
    return any(
        each < " " or each == "\x7f" or each in characters or (kind is not None and kind(each))
        for each in text
    )


def alias_of(destination: str) -> str:
    """Return the host part of ``[user@]host`` or ``ssh://[user@]host[:port]``."""
    if destination.startswith("ssh://"):
        authority = destination[len("ssh://") :].partition("/")[0].rpartition("@")[2]
        import re  # it takes 7 ms, which a passenger does not have

        match = re.fullmatch(r"\[(.*?)\](?::\d+)?|([^:]*)(?::\d+)?", authority)
        return (match.group(1) or match.group(2)) if match else authority
    host = destination.rpartition("@")[2]
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host
