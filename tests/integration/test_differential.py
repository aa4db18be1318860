"""ssh beside xssh, as a table: the same argv, configuration, input and server, the same result.

A case is a line. ``Case`` says what its fields are; ``tests/support/differential.py`` what is
compared: status, stdout, stderr, files on both sides, and what the server was asked for and did.
Run some by name: ``pytest tests/integration/test_differential.py -k quoting``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.clients import ClientHome
from tests.support.differential import (
    Bench,
    Case,
    Servers,
    Variant,
    any_words,
    first_line,
    usage,
    x11_refusal,
)
from tests.support.sshd import SHELLS, KeyRing
from tests.support.terminals import Terminal
from tests.support.tools import find_nss_wrapper, require_tool, skip_or_fail
from tests.support.xvfb import Xvfb

# fmt: off
SECRET = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1"
FORCED = """printf %s "${SSH_ORIGINAL_COMMAND-unset}" | od -An -c; tty | tr -d 0-9; echo "$TERM" """
FORCED_KEY = FORCED.replace('"', '\\"')
OLD = "KexAlgorithms diffie-hellman-group14-sha1\nHostKeyAlgorithms ssh-rsa\nMACs hmac-sha1\n"
SLOW = "AuthorizedKeysCommand /bin/sleep 0.4\nAuthorizedKeysCommandUser root"

VARIANTS = {
    "default": Variant(),
    "accepting": Variant({"accept_env": "LC_* LANG GIVEN* OTHER TERM"}),
    "no x11": Variant({"x11": False}),
    "forced": Variant({"config": f"ForceCommand {FORCED}"}),
    "forced key": Variant({"key_options": f'command="{FORCED_KEY}"'}),
    "restricted key": Variant({"key_options": "restrict"}),
    "restricted key, pty": Variant({"key_options": "restrict,pty,port-forwarding"}),
    "environment key": Variant({"key_options": 'environment="FROM_KEY=1"', "config": "PermitUserEnvironment yes"}, {".ssh/environment": "FROM_FILE=a b\nLANG=C\n"}),
    "one session": Variant({"config": "MaxSessions 1"}),
    "no session": Variant({"config": "MaxSessions 0"}),
    "no agent": Variant({"config": "AllowAgentForwarding no"}),
    "no forwarding": Variant({"config": "AllowTcpForwarding no"}),
    "local only": Variant({"config": "AllowTcpForwarding local"}),
    "remote only": Variant({"config": "AllowTcpForwarding remote"}),
    "nothing but commands": Variant({"config": "DisableForwarding yes"}),
    "no tty": Variant({"config": "PermitTTY no"}),
    "banner": Variant({"config": "Banner /etc/os-release"}),
    "slow": Variant({"config": SLOW, "path": "/usr/bin:/bin"}, {".ssh/rc": "sleep 0.3; echo from rc >&2\n"}),
    "old": Variant({"config": f"{OLD}Ciphers aes128-cbc\nPubkeyAcceptedAlgorithms ssh-rsa,ssh-ed25519"}),
    "old 3des": Variant({"config": f"{OLD}Ciphers 3des-cbc"}),
    "gateway": Variant({"config": "GatewayPorts clientspecified"}),
    "listen": Variant({"config": "PermitListen 127.0.0.1:1\nPermitOpen 127.0.0.1:1"}),
    "password": Variant({"password_hash": SECRET}),
    "password only": Variant({"password_hash": SECRET, "config": "PubkeyAuthentication no\nMaxAuthTries 3"}),
    "key and password": Variant({"password_hash": SECRET, "config": "AuthenticationMethods publickey,password"}),
    "no keys": Variant({"config": "PubkeyAuthentication no\nPasswordAuthentication no"}),
    "closed account": Variant({"config": "DenyUsers demo"}),
    "no such shell": Variant({"shell": "/nonexistent/sh"}),
    "nologin": Variant({"shell": "/bin/false"}),
    "subsystems": Variant({"config": "Subsystem upper /usr/bin/tr a-z A-Z"}),
    "chatty": Variant({"config": "PrintMotd no"}, {".bashrc": "echo from bashrc\n", ".profile": "echo from profile\n", ".bash_logout": "echo bye\n"}),
    **{shell: Variant({"shell": shell}, {".local/share/fish/generated_completions/.keep": ""} if shell == "fish" else {".zshrc": "", ".hushlogin": ""}) for shell in SHELLS},
}

ASKED = {"SSH_ASKPASS": "@ssh@/askpass", "SSH_ASKPASS_REQUIRE": "force"}
ASKPASS = {"askpass": '#!/bin/sh\necho "$1" >> @ssh@/asked\necho secret\n'}
WRONG = {"askpass": '#!/bin/sh\necho "$1" >> @ssh@/asked\necho wrong\n'}
SAYS_YES = {"askpass": '#!/bin/sh\necho "$1" >> @ssh@/asked\necho yes\n'}
ALONE = "Host server\n HostName 127.0.0.1\n Port @port@\n User demo\n ForwardX11 no\n UserKnownHostsFile @ssh@/known_hosts\n"
AGENT = 'eval "$(ssh-agent -a @home@/agent)" >/dev/null; "$@"; s=$?; kill $SSH_AGENT_PID; while test -e @home@/agent; do sleep 0.02; done; exit $s'
ENV = "env | grep -Ev '^(SSH_C|_=|LS_COLORS)' | sort"
LOCAL = "-L @free@:127.0.0.1:@port@"
REMOTE = "-R @free@:127.0.0.1:@port@"
CALL = "'exec 3<>/dev/tcp/127.0.0.1/@free@ && head -c 7 <&3'"
CALL_AND_KILL = """"$@" & until (exec 3<>/dev/tcp/127.0.0.1/@free@) 2>/dev/null; do sleep 0.05; done
    exec 3<>/dev/tcp/127.0.0.1/@free@; head -c 7 <&3; exec 3>&-; kill $!; wait; true"""
BYTES = bytes(range(256)) * 300
ODD = "a b\tc\\d'e\"f$g`h*i?j[k]l{m}n~o!p;q&r|s<t>u(v)w#x%y\x7f\u00e9\U0001f600"

SHELL_CASES = [
    Case(f"{shell}: {name}", ["server", command], server=shell, status=3 if "exit" in command else 1 if "csh" in shell else 127)
    for shell in SHELLS
    for name, command in {
        "status, streams, quoting": """sh -c 'echo err >&2'; printf '%s|' 'a  b' "c  d" e\\ f; echo $HOME; exit 3""",
        "not found": "no-such-program-here",
    }.items()
]
TTY_CASES = [
    Case(
        f"RequestTTY {value}{' with a command' if command else ''}, stdin {kind}",
        ["-o", f"RequestTTY={value}", "server", *command],
        shell={"a pipe": "", "a file": 'echo "tty; exit 5" > f; "$@" < f', "/dev/null": '"$@" < /dev/null', "closed": '"$@" <&-'}.get(kind, ""),
        stdin=b"tty; exit 5\n",
        terminal=() if kind == "a terminal" else None,
        status=5 if command or kind in ("a pipe", "a file") else 0,
    )
    for values, commands, kind in (
        (("no", "yes", "auto"), ([], ["tty | cut -c1-8; exit 5"]), "a pipe"),
        (("no", "yes", "auto", "force"), (["tty | cut -c1-8; exit 5"],), "a terminal"),
        (("auto",), ([],), "a file"),
        (("auto",), ([],), "/dev/null"),
        (("auto",), ([],), "closed"),
        (("force",), (["tty | cut -c1-8; exit 5"],), "a pipe"),
        (("force",), (["tty | cut -c1-8; exit 5"],), "/dev/null"),
        (("force",), (["tty | cut -c1-8; exit 5"],), "closed"),
    )
    for value in values
    for command in commands
]

CASES = [
    # The command line, as getopt takes it
    Case("flags in a cluster", "-4CTxaq server echo hi"),
    Case("-vvv", "-vvv server echo hi", stderr=any_words),
    Case("-tt without a terminal", "-tt server 'tty >/dev/null && echo is one'"),
    Case("-t then -T", "-t -T server tty", status=1),
    Case("-T then -t", "-T -t server tty", status=1),
    Case("-T then -tt", "-T -tt server 'tty | cut -c1-8'"),
    Case("a joined port", "-p@port@ -o Port=1 server echo hi"),
    Case("a joined user", "-ldemo -oUser=nobody server whoami"),
    Case("a user whose name is not UTF-8", ["-l", "us\udce9r", "server", "true"], status=255, stderr=first_line),
    Case("a cluster with a joined value", "-NfL@free@:127.0.0.1:@port@ -oExitOnForwardFailure=yes -p1 server", status=255),
    Case("options after the host", "server -T -l demo -p @port@ echo hi"),
    Case("options of the command", "server echo -n -p 22 -o x"),
    Case("-- before the host", "-T -- server echo -n hi"),
    Case("-- after the host", "server -- echo -- hi"),
    Case("-- after both", "-- server -- echo hi", status=2),
    Case("-o with =", "-o SetEnv=LC_X=1 -o LogLevel=ERROR server echo hi"),
    Case("-o with a space", "-o 'LogLevel ERROR' -o 'Port @port@' server echo hi"),
    Case("-o quoted", """-o 'User "demo"' -o 'IdentityFile="@key@"' server whoami"""),
    Case("-o in another case", "-oBATCHMODE=yes -o pOrT=@port@ server echo hi"),
    Case("-o with an unknown keyword", "-oNoSuchThing=yes server true", status=255),
    Case("-o without a value", "-oPort server true", status=255),
    Case("-o with a bad number", "-oPort=99999 server true", status=255),
    Case("-o with a bad word", "-oBatchMode=maybe server true", status=255),
    Case("-o with a trailing word", "-o 'BatchMode yes no' server true", status=255),
    Case("-o that is deprecated", "-oProtocol=2 -oUseRoaming=no server echo hi"),
    Case("-e none", "-e none server echo hi"),
    Case("-e bad", "-e xyz server echo hi", status=255),
    Case("an unknown option", "-Z server", stderr=usage, status=255),
    Case("an argument is missing: -p", "-p", stderr=usage, status=255),
    Case("an argument is missing: -o", "server -o", stderr=usage, status=255),
    Case("no host", "-v", stderr=any_words, status=255),
    Case("nothing at all", "", stderr=any_words, status=255),
    Case("a bad port", "-p 0 server true", status=255),
    Case("a port that is too big", "-p 65536 server true", status=255),
    Case("-L without sense", "-L nonsense server true", status=255),
    Case("-R without sense", "-R :::: server true", status=255),
    Case("-D without sense", "-D a:b:c server true", status=255),
    Case("-W without sense", "-W nonsense server", status=255),
    Case("-J without sense", "-J a:b:c server true", status=255),
    Case("-c bad", "-c no-such-cipher server true", status=255),
    Case("-c half bad", "-c aes128-ctr,no-such-cipher server true", status=255),
    Case("-b of another machine", "-b 192.0.2.1 server true", status=255),
    Case("-b bad", "-b nonsense.invalid server true", status=255),
    Case("-B bad", "-B nosuch0 server true", status=255),
    Case("-i that is missing", "-i @ssh@/missing server echo hi"),
    Case("-F that is missing", "-F @ssh@/missing server true", bare=True, status=255),
    Case("-F none", "-F none -o BatchMode=yes -p @port@ -i @key@ -oUserKnownHostsFile=@ssh@/known_hosts -l demo -x 127.0.0.1 echo hi", bare=True),
    Case("the user's own file", "server echo hi", bare=True),
    Case("a host that is an option", "-- -oProxyCommand=true true", status=255),
    Case("a host with ;", "'server;true' true", status=255),
    Case("a host with $", "'$(true)' true", status=255),
    Case("a host with a space", "'a b' true", status=255),
    Case("an empty host", "'' true", stderr=any_words, status=255),
    Case("a user that is an option", "-l -x server true", status=255),
    Case("a user with ;", "'a;b@server' true", status=255),
    Case("-f without anything to do", "-f server", status=255),
    Case("-s without a name", "-s server", stderr=any_words, status=255),
    Case("-N with a command", "-N server true", server="closed account", status=255),
    # Who and where
    Case("ssh://", "ssh://demo@server echo hi"),
    Case("ssh:// with a port", "ssh://demo@server:@port@ whoami"),
    Case("ssh:// with a path", "ssh://demo@server/path whoami", stderr=usage, status=255),
    Case("ssh:// with a bad port", "ssh://server:0/ true", stderr=usage, status=255),
    Case("ssh:// percent-encoded", "ssh://de%6do@server whoami"),
    Case("user@host", "demo@server whoami", config="User nobody"),
    Case("-l after user@host", "nobody@server -l demo whoami", status=255),
    Case("User of the configuration", "server whoami", config="Host server\n  User nobody", status=255),
    Case("a user with @", "nobody@home@server true", status=255),
    Case("a user with a backslash", "'dom\\user@server' true", status=255, stderr=any_words),
    Case("an address without", "-p1 ::1 true", status=255),
    Case("an unknown host", "no-such-host.invalid true", status=255),
    Case("an alias of an unknown host", "-oHostname=nobody.invalid server true", status=255),
    Case("a refused port", "-p @free@ server true", status=255),
    Case("IPv6 where there is none", "-6 server true", status=255),
    Case("-4", "-4 server echo hi"),
    Case("-b loopback", "-b 127.0.0.1 server 'set -- $SSH_CONNECTION; echo $1'"),
    # How a command ends
    *[Case(f"status {n}", f"server exit {n}", status=n) for n in (0, 1, 128, 255)],
    Case("a signal", "server 'kill -TERM $$'", status=255),
    Case("a signal that dumps core", "server 'ulimit -c 0; kill -ABRT $$'", status=255),
    Case("a signal and a terminal", "-tt server 'kill -KILL $$'", status=255),
    Case("a background job holds stdout", "server 'sleep 0.3 & echo hi'"),
    Case("a background job holds nothing", "server 'sleep 0.4 >/dev/null 2>&1 </dev/null & echo hi'"),
    Case("stdout is closed early", "server 'exec >&-; sleep 0.1; echo err >&2; exit 3'", status=3),
    Case("a file is made", "server 'umask 027; echo x > made; mkdir d; ln -s made l'"),
    # What it is given and what it says
    Case("stdin", "server cat", stdin=b"in\n"),
    Case("every byte", "server cat", stdin=BYTES),
    Case("much in", "server md5sum", stdin=b"0123456789abcdef" * 300000),
    Case("much out", "server 'head -c 5000000 /dev/zero | tr \"\\0\" x; echo end >&2'"),
    Case("streams are apart", "server 'echo out; echo err >&2; echo out2; exit 7'", status=7),
    Case("streams in order", "server 'for i in 1 2 3; do echo o$i; sleep .02; echo e$i >&2; sleep .02; done'", shell='"$@" 2>&1'),
    Case("end of input comes late", "server cat", shell='(echo a; sleep 0.2; echo b) | "$@"'),
    Case("input nobody reads", "server 'exec <&-; echo hi'", stdin=BYTES),
    Case("endless input", "server 'head -c 100000 | wc -c'", shell='yes | "$@"'),
    Case("-n", "-n server 'cat; echo hi'", stdin=b"in"),
    Case("-n leaves stdin alone", "-n server cat", shell='printf "a\\nb\\n" | { "$@"; cat; }'),
    Case("without -n stdin is eaten", "server true", shell='printf "a\\nb\\n" | { "$@"; cat; }'),
    Case("-n in a loop", "-n server echo", shell='printf "a\\nb\\n" | while read -r x; do "$@" "$x"; done'),
    Case("stdout is closed", "server 'echo hi; echo err >&2; exit 3'", shell='"$@" >&-', status=3),
    Case("stderr is closed", "server 'echo hi; echo err >&2; exit 3'", shell='"$@" 2>&-', status=3),
    Case("all are closed", "server exit 3", shell='"$@" <&- >&- 2>&-; echo $?'),
    Case("stdout is full", "server 'echo hi; exit 3'", shell='"$@" > /dev/full', stderr=any_words, status=3),
    Case("a file descriptor that is not ours", "server 'ls /proc/self/fd | wc -l'", shell='exec 7</dev/null; "$@"'),
    Case("no command: the shell reads stdin", "-T server", stdin=b"echo $0; echo err >&2; exit 9\n", status=9),
    Case("no command, no -T", "server", stdin=b"tty; exit 9\n", status=9),
    # The command, to the byte
    Case("quoting oddities", ["server", ODD], server="forced"),
    Case("quotes in words", ["server", "echo", "'a'", '"b"', "\\'", "$x", "`y`"], server="forced"),
    Case("leading and trailing spaces", ["server", "  x  "], server="forced"),
    Case("newlines", ["server", "a\nb\n\nc\n"], server="forced"),
    Case("tabs and carriage returns", ["server", "a\tb\r\n"], server="forced"),
    Case("empty words", ["server", "a", "", "b", ""], server="forced"),
    Case("an empty command", ["server", ""], server="forced"),
    Case("two empty words", ["server", "", ""], server="forced"),
    Case("a space", ["server", " "], server="forced"),
    Case("no command at all", ["server"], server="forced"),
    Case("a dash", ["server", "-"], server="forced"),
    Case("long options", ["server", "x", "--script", "--help", "--version"], server="forced"),
    Case("bytes that are no text", ["server", "a\udcffb"], server="forced"),
    Case("forced, with a terminal", "-tt server x", server="forced"),
    Case("forced by the key", ["server", " a  'b' "], server="forced key"),
    Case("forced by the key, no command", "server", server="forced key"),
    Case("forced by the key, a subsystem", "-s server sftp", server="forced key"),
    Case("100 kB of command", ["server", "echo " + "x" * 100_000 + " | md5sum"]),
    Case("a newline ends nothing", ["server", "echo a\necho b"]),
    Case("a command without a program", "server no-such-program-here", status=127),
    Case("a file that is no program", "server /etc/passwd", status=126),
    Case("a login shell's files", "-T server", server="chatty", stdin=b"exit 2\n", status=2),
    Case("a command's files", "server true", server="chatty"),
    Case("RemoteCommand", "server", config="Host server\n  RemoteCommand echo %n %r %% %h; exit 3", status=3),
    Case("RemoteCommand and a command", "-oRemoteCommand=x server true", status=255),
    Case("RemoteCommand, a terminal", "-tt -o 'RemoteCommand=tty | cut -c1-8' server"),
    Case("RemoteCommand with a bad token", "-o RemoteCommand=%z server", status=255),
    # Sessions of another kind
    Case("-s upper", "-s server upper", server="subsystems", stdin=b"abc\n"),
    Case("-s after the host", "server -s upper", server="subsystems", stdin=b"abc\n"),
    Case("-s sftp", "-s server sftp"),
    Case("-s that is missing", "-s server missing", server="subsystems", status=255),
    Case("-s with -tt", "-tt -s server upper", server="subsystems", stdin=b"\x04"),
    Case("SessionType subsystem", "-oSessionType=subsystem server upper", server="subsystems", stdin=b"abc\n"),
    Case("SessionType none", f"-oSessionType=none {LOCAL} server", shell=CALL_AND_KILL),
    Case("-N", f"-N {LOCAL} server", shell=CALL_AND_KILL),
    Case("-N and a port that is taken", "-N -oExitOnForwardFailure=yes -L 127.0.0.1:@port@:a:1 server", status=255),
    Case("-N and a port that can't be had there", "-N -oExitOnForwardFailure=yes -R @free@:a:1 server", server="no forwarding", status=255),
    Case("-f", "-f server 'sleep 0.2; echo hi'"),
    Case("LocalCommand", "server 'sleep 0.1; echo remote'", config="PermitLocalCommand yes\nLocalCommand echo local %n %h %p %r"),
    Case("LocalCommand that is not permitted", "server echo remote", config="LocalCommand echo local"),
    # Terminals
    Case("a terminal: -t", "-t server 'tty >/dev/null && stty size; echo $TERM'", terminal=()),
    Case("a terminal: a command", "server 'tty; echo err >&2'", terminal=()),
    Case("a terminal: a shell", "server", server="dash", terminal=[("[$#] ", "echo a$((1+1))b\r"), (r"a2b\s+.*?[$#] ", "exit 6\r")], status=6),
    Case("a terminal: -n", "-n server 'tty; cat'", terminal=()),
    Case("a terminal: -tn", "-tn server tty", terminal=(), status=1),
    Case("a terminal: Ctrl-C goes there", "-t server 'trap \"echo got it; exit 5\" INT; echo ready; while :; do sleep 0.1; done'", terminal=[("ready", "\x03")], status=5),
    Case("a terminal: Ctrl-D", "-t server 'echo ready; cat'", terminal=[("ready", "x\r\x04")]),
    Case("a terminal: ~.", "-t server 'stty -echo; echo ready; cat'", terminal=[("ready", "\r"), (r"\r\n\r\n", "~.")], status=255),
    Case("a terminal: ~~", "-t server 'stty -echo; echo ready; head -n 2'", terminal=[("ready", "\r~~x\r")]),
    Case("a terminal: -e none", "-e none -t server 'stty -echo; echo ready; head -n 2'", terminal=[("ready", "\r~.\r")]),
    Case("a terminal: stty", "-t server 'stty -a | grep -Eo -- \"-?(icanon|isig|echo|onlcr|ixon)\\b\"'", terminal=()),
    *TTY_CASES,
    # The environment
    Case("nothing is accepted", f"-o 'SetEnv=GIVEN=1 OTHER=2' server \"{ENV}\""),
    Case("SetEnv", f"-o 'SetEnv=GIVEN=1 OTHER=\"two words\"' server \"{ENV}\"", server="accepting"),
    Case("SetEnv twice", f"-oSetEnv=GIVEN=1 -oSetEnv=OTHER=2 server \"{ENV}\"", server="accepting"),
    Case("SetEnv in the file and on the line", f"-oSetEnv=GIVEN=1 server \"{ENV}\"", server="accepting", config="SetEnv GIVEN=2 OTHER=3"),
    Case("SetEnv without =", "-oSetEnv=GIVEN server true", status=255),
    Case("SetEnv TERM", "-oSetEnv=TERM=vt52 -tt server 'echo $TERM'", server="accepting"),
    Case("SendEnv", f"-oSendEnv=GIVEN server \"{ENV}\"", server="accepting", env={"GIVEN": "a  b", "OTHER": "x"}),
    Case("SendEnv with patterns", f"-o 'SendEnv=LC_* GIVE?' server \"{ENV}\"", server="accepting", env={"LC_A": "1", "LC_B": "", "GIVEN": "2", "GIVEN2": "3"}),
    Case("SendEnv taken back by a pattern", f"server \"{ENV}\"", server="accepting", config="SendEnv LC_A LC_B OTHER\nSendEnv -LC_*", env={"LC_A": "1", "LC_B": "2", "OTHER": "3"}),
    Case("SendEnv and SetEnv", f"-oSendEnv=GIVEN -oSetEnv=GIVEN=set server \"{ENV}\"", server="accepting", env={"GIVEN": "sent"}),
    Case("SendEnv with newlines", "-oSendEnv=GIVEN server 'printf %s \"$GIVEN\" | od -c'", server="accepting", env={"GIVEN": "a\nb\n"}),
    Case("the system's file sends LANG", f"server \"{ENV}\"", server="accepting", bare=True, env={"LANG": "C", "LC_TIME": "C"}),
    Case("environment of the key and the account", f"server \"{ENV}\"", server="environment key"),
    Case("what ssh tells the program", "-t server 'echo ${SSH_TTY%/*} ${SSH_CONNECTION%% *}'", terminal=()),
    # Servers that say no
    Case("a restricted key: a command", "server 'echo hi; echo $SSH_AUTH_SOCK'", server="restricted key"),
    Case("a restricted key: a terminal", "-tt server tty", server="restricted key", status=255),
    Case("a restricted key: -L", f"{LOCAL} server {CALL}", server="restricted key"),
    Case("a restricted key: -R that must be", f"-oExitOnForwardFailure=yes {REMOTE} server echo hi", server="restricted key", status=255),
    Case("a restricted key with ports: -L", f"{LOCAL} server {CALL}", server="restricted key, pty"),
    Case("one session", "server echo hi", server="one session"),
    Case("no session", "server echo hi", server="no session", status=255),
    Case("no tty: -tt", "-tt server tty", server="no tty", status=255),
    Case("a closed account", "server echo hi", server="closed account", status=255),
    Case("a shell that is missing", "server echo hi", server="no such shell", status=255),
    Case("a shell that says no, no command", "-T server", server="nologin", status=1),
    Case("a banner", "server echo hi", server="banner"),
    Case("a banner, quiet", "-q server echo hi", server="banner"),
    Case("a banner and a terminal", "-t server echo hi", server="banner", terminal=()),
    Case("a slow login", "server 'cat; echo hi'", server="slow", stdin=b"in"),
    Case("a slow login and ConnectTimeout", "-oConnectTimeout=1 server echo hi", server="slow"),
    # Algorithms
    Case("an old server", "server echo hi", server="old", status=255),
    Case("an old server: no cipher", "-oKexAlgorithms=+diffie-hellman-group14-sha1 -oHostKeyAlgorithms=+ssh-rsa server echo hi", server="old", status=255),
    Case("an old server: all that it takes", "-oKexAlgorithms=+diffie-hellman-group14-sha1 -oHostKeyAlgorithms=+ssh-rsa -oCiphers=+aes128-cbc server cat", server="old", stdin=BYTES),
    Case("an old server: 3des", "-oKexAlgorithms=diffie-hellman-group14-sha1 -oHostKeyAlgorithms=ssh-rsa -c 3des-cbc -m hmac-sha1 server cat", server="old 3des", stdin=BYTES),
    *[Case(f"-c {name}", f"-c {name} server cat", stdin=BYTES) for name in ("aes128-ctr", "chacha20-poly1305@openssh.com", "+aes128-cbc")],
    Case("-c with a list to take away", "-c -aes* server true", status=255),
    Case("Ciphers with one first", "-oCiphers=^aes192-ctr server cat", stdin=BYTES),
    *[Case(f"-m {name}", f"-c aes256-ctr -m {name} server cat", stdin=BYTES) for name in ("umac-64@openssh.com", "hmac-sha1-etm@openssh.com")],
    Case("MACs without some", "-oCiphers=aes256-ctr -oMACs=-umac*,hmac-sha2* server cat", stdin=BYTES),
    *[Case(f"KexAlgorithms {name}", f"-oKexAlgorithms={name} server echo hi") for name in ("diffie-hellman-group-exchange-sha256", "^ecdh-sha2-nistp256", "-curve*")],
    *[Case(f"HostKeyAlgorithms {name}", f"-oHostKeyAlgorithms={name} server echo hi") for name in ("rsa-sha2-256", "-ssh-ed25519*")],
    Case("no such key exchange", "-oKexAlgorithms=nonsense server true", status=255),
    Case("no such host key algorithm", "-oHostKeyAlgorithms=nonsense server true", status=255),
    Case("nothing in common: ciphers", "-c aes256-cbc server true", status=255),
    Case("nothing in common: host keys", "-oHostKeyAlgorithms=ssh-dss server true", status=255),
    Case("-C", "-C server md5sum", stdin=b"x" * 1_000_000),
    Case("RekeyLimit", "-oRekeyLimit=600K server 'md5sum; head -c 1000000 /dev/zero'", stdin=b"x" * 1_000_000),
    # Logging in
    Case("no key is accepted", "-i @keys@/other -F @ssh@/alone server true", bare=True, files={"alone": ALONE}, status=255),
    Case("BatchMode, no key", "-oBatchMode=yes -oPubkeyAuthentication=no server true", server="password", status=255),
    Case("no way in common", "-oPreferredAuthentications=password server true", status=255),
    Case("-i", "-i @keys@/rsa -oIdentitiesOnly=yes server echo hi", server="password"),
    Case("a key with loose permissions", "-i loose -oIdentityFile=none server true", config="IdentityFile @ssh@/loose", files={"loose": "@other@"}, shell='chmod 644 .ssh/loose; "$@"'),
    Case("an encrypted key, by askpass", "-i @keys@/locked server echo hi", server="default", env=ASKED, files=ASKPASS),
    Case("an encrypted key, alone", "-F @ssh@/alone server echo hi", bare=True, env=ASKED, files={**ASKPASS, "alone": ALONE + " IdentityFile @keys@/locked\n"}),
    Case("an encrypted key, BatchMode", "-oBatchMode=yes -F @ssh@/alone server echo hi", bare=True, env=ASKED, files={**ASKPASS, "alone": ALONE + " IdentityFile @keys@/locked\n"}, status=255),
    Case("a certificate beside its key", "-F @ssh@/alone server echo hi", bare=True, files={"alone": ALONE + " IdentityFile @keys@/certified\n"}),
    Case("CertificateFile", "-oCertificateFile=@keys@/certified-cert.pub -i @keys@/certified -oIdentitiesOnly=yes server echo hi"),
    Case("CertificateFile that is missing", "-oCertificateFile=@ssh@/missing server echo hi"),
    Case("a password by askpass", "server echo hi", server="password only", env=ASKED, files=ASKPASS),
    Case("a wrong password by askpass", "server echo hi", server="password only", env=ASKED, files=WRONG, status=255),
    Case("BatchMode asks nothing", "-oBatchMode=yes server echo hi", server="password only", env=ASKED, files=ASKPASS, status=255),
    Case("a wrong password at the terminal", "server echo hi", server="password only", terminal=[("password: ", "x\r"), ("password: ", "secret\r")]),
    Case("a password is preferred", "-oPreferredAuthentications=password,publickey server echo hi", server="password", env=ASKED, files=ASKPASS),
    Case("a key and a password", "server echo hi", server="key and password", env=ASKED, files=ASKPASS),
    # The server's own key
    *[
        Case(f"StrictHostKeyChecking {value}, {name}", f"-oStrictHostKeyChecking={value} server echo hi", known="[127.0.0.1]:@port@ @wrong@\n" if name == "changed" else "", status=status)
        for value, name, status in (
            ("yes", "unknown", 255), ("yes", "changed", 255), ("no", "unknown", 0), ("ask", "unknown", 255),
            ("ask", "changed", 255), ("accept-new", "unknown", 0), ("accept-new", "changed", 255),
        )
    ],
    Case("the question, yes", "-oStrictHostKeyChecking=ask server echo hi", known="", terminal=[(r"\? ", "yes\r")]),
    Case("the question, no", "-oStrictHostKeyChecking=ask server echo hi", known="", terminal=[(r"\? ", "no\r")], status=255),
    Case("the question, by askpass", "-oStrictHostKeyChecking=ask server echo hi", known="", env=ASKED, files=SAYS_YES),
    Case("HashKnownHosts", "-oStrictHostKeyChecking=no -oHashKnownHosts=yes server echo hi", known=""),
    Case("HostKeyAlias", "-oHostKeyAlias=other server echo hi", known="other @ed25519@\n"),
    Case("a revoked key", "server echo hi", known="@revoked * @ed25519@\n", status=255),
    Case("only another kind of key is known", "server echo hi", known="[127.0.0.1]:@port@ @rsa@\n"),
    Case("known by a pattern", "server echo hi", known="[127.0.0.*]:* @ed25519@\n"),
    Case("lines that are none", "server echo hi", known="# a comment\nnonsense\n\n@known@"),
    Case("known_hosts is missing", "-oUserKnownHostsFile=@ssh@/none server echo hi", status=255),
    Case("NoHostAuthenticationForLocalhost", "-oNoHostAuthenticationForLocalhost=yes server echo hi", known=""),
    # Forwarding
    Case("-L", f"{LOCAL} server {CALL}"),
    Case("-L of a socket", "-L @home@/sock:127.0.0.1:@port@ server 'test -S @home@/sock && echo is there'"),
    Case("-L that is taken", "-L @port@:a:1 server echo hi"),
    Case("-L that must be", "-oExitOnForwardFailure=yes -L @port@:a:1 server echo hi"),
    Case("-R", f"{REMOTE} server {CALL}"),
    Case("-R that must be", "-oExitOnForwardFailure=yes -R @port@:127.0.0.1:1 server echo hi"),
    Case("-R to nowhere", f"-R @free@:127.0.0.1:1 server {CALL}"),
    Case("-R of a socket", "-R @remote@/sock:127.0.0.1:@port@ server 'test -S sock && echo is there'"),
    Case("-D", "-D @free@ server 'exec 3<>/dev/tcp/127.0.0.1/@free@; printf \"\\5\\1\\0\" >&3; head -c 2 <&3 | od -An -c'"),
    Case("-R that is a proxy", "-R @free@ server 'exec 3<>/dev/tcp/127.0.0.1/@free@; printf \"\\5\\1\\0\" >&3; head -c 2 <&3 | od -An -c'"),
    Case("ClearAllForwardings", "-oClearAllForwardings=yes -L @port@:a:1 -oExitOnForwardFailure=yes server echo hi"),
    Case("-R for everyone", f"-R '*:@free@:127.0.0.1:@port@' server {CALL}", server="gateway"),
    Case("no forwarding: -R", f"{REMOTE} server echo hi", server="no forwarding"),
    Case("no forwarding: -W", "-W 127.0.0.1:@port@ server", server="no forwarding", status=255),
    Case("local only: -R", f"-oExitOnForwardFailure=yes {REMOTE} server echo hi", server="local only", status=255),
    Case("remote only: -L", f"{LOCAL} server {CALL}", server="remote only"),
    Case("another port may be opened: -L", f"{LOCAL} server {CALL}", server="listen"),
    Case("another port may be listened to: -R", f"{REMOTE} server echo hi", server="listen"),
    Case("nothing but commands: -A -L -R", f"-A {LOCAL} -R @free2@:a:1 server echo hi", server="nothing but commands"),
    Case("-W", "-W 127.0.0.1:@port@ server", shell='"$@" | head -c 7'),
    Case("-W to nowhere", "-W 127.0.0.1:1 server", status=255),
    Case("-A", "-A server 'test -S \"$SSH_AUTH_SOCK\" && echo is there'", shell=AGENT),
    Case("-A where it is not allowed", "-A server 'echo \"[$SSH_AUTH_SOCK]\"'", server="no agent", shell=AGENT),
    Case("-a after -A", "-A -a server 'echo \"[$SSH_AUTH_SOCK]\"'", shell=AGENT),
    Case("-A for an agent that is gone", "-A server 'echo \"[$SSH_AUTH_SOCK]\"'", env={"SSH_AUTH_SOCK": "@home@/none"}),
    Case("ForwardAgent with a path", "server 'test -S \"$SSH_AUTH_SOCK\" && echo is there'", config="ForwardAgent @home@/agent", shell=AGENT),
    Case("ForwardAgent with a variable", "server 'test -S \"$SSH_AUTH_SOCK\" && echo is there'", config="ForwardAgent $SSH_AUTH_SOCK", shell=AGENT),
    # The way there
    Case("-J", "-J server target echo hi", config="Host target\n  HostName 127.0.0.1\n  Port @port@\n  User demo\n  IdentityFile @key@\n  UserKnownHostsFile @ssh@/known_hosts"),
    Case("-J through nowhere", "-J nowhere.invalid server echo hi", status=255, stderr=first_line),
    Case("ProxyCommand", "server echo hi", config="Host server\n  ProxyCommand ssh -F @config@ -W %h:%p -oProxyCommand=none server"),
    Case("ProxyCommand that fails", "server true", config="ProxyCommand sh -c 'read x; echo sorry >&2; exit 3'", status=255),
    Case("ProxyCommand that is missing", "server true", config="ProxyCommand /nonexistent/program", status=255, stderr=any_words),
    Case("ProxyCommand with tokens", "server true", config="ProxyCommand @ssh@/proxy %h %p %r %n %%", files={"proxy": '#!/bin/sh\nread x; echo "$@" > @home@/told\n'}, status=255),
    Case("ProxyCommand with a bad token", "server true", config="ProxyCommand echo %z", status=255, stderr=any_words),
    # The configuration
    Case("an unknown keyword", "server true", config="NoSuchThing yes", status=255),
    Case("IgnoreUnknown", "server echo hi", config="IgnoreUnknown NoSuch*\nNoSuchThing yes"),
    Case("a bad value", "server true", config="Port x", status=255),
    Case("an unbalanced quote", "server true", config='User "demo', status=255),
    Case("Include", "server whoami", config="Include @ssh@/more", files={"more": "Host serv*\n  SetEnv A=1\n  LogLevel ERROR\n"}),
    Case("IdentityFile with tokens", "server echo hi", config="Host server\n  IdentityFile @keys@/%%none\n  IdentityFile ~/.ssh/%r-%h-%p-%n-%u-%L-%l-%i-%k-%d"),
    Case("IdentityFile with a variable", "server echo hi", config="IdentityFile ${KEYS}/other", env={"KEYS": "@keys@"}),
    Case("UserKnownHostsFile with tokens", "server echo hi", config="UserKnownHostsFile ~/.ssh/%n-%h-%p", files={"server-127.0.0.1-@port@": ""}, status=255),
    Case("UserKnownHostsFile with an unset variable", "server echo hi", config="UserKnownHostsFile ${NO_SUCH}/x", status=255),
    Case("Hostname with tokens", "-oHostname=%h.invalid server true", status=255),
    Case("-q and a failure", "-q -p @free@ server true", status=255),
    Case("-E", "-E @ssh@/log -p @free@ server true", status=255),
    Case("-E that can't be written", "-E /nonexistent/log server true", status=1),
    *[
        Case(f"Match {name}", "server whoami", config=f"Match {criterion}\n  User nobody", server="closed account", status=255)
        for name, criterion in {
            "host": "host 127.0.0.1", "originalhost": "originalhost server", "all": "all", "exec": 'exec "test %n = server"',
            "localuser": "localuser x,!y,*", "not": "!host server", "user": "user x,demo", "final": "final host 127.*",
            "canonical": "canonical all", "unknown": "weather rain", "without a value": "host", "two": "host serv* user d*",
        }.items()
    ],
    # Answers without a connection
    *[Case(f"-Q {what}", f"-Q {what}") for what in ("cipher", "cipher-auth", "mac", "kex", "key", "key-cert", "key-plain", "key-sig", "protocol-version", "help", "Ciphers")],
    Case("-Q nonsense", "-Q nonsense", status=255),
    Case("-G", "-G server"),
    Case("-G with options", "-G -p 77 -l me -o 'SetEnv=\"A=b c\"' -L 80:a:80 -J jump -tt -C ssh://x@y:8"),
    Case("-G with a command", "-G server echo hi"),
    Case("-G of a canonical name", "-G -oCanonicalizeHostname=yes -oCanonicalDomains=invalid server"),
    Case("-G with an error", "-G -oNonsense=1 server", status=255),
    Case("-G bare", "-G server", bare=True),
    *SHELL_CASES,
    # X11, with a display: xssh has it on by default, and nothing else changes
    Case("X11: -Y", "-Y server 'echo ${DISPLAY%:*}; xprop -root >/dev/null && echo works'", x11=True),
    Case("X11: -X", "-X server 'echo ${DISPLAY%:*}'", x11=True),
    Case("X11: -x", "-x server 'echo \"[$DISPLAY]\"'", x11=True),
    Case("X11: streams and status", "-Y server 'cat; echo err >&2; exit 3'", stdin=BYTES, x11=True, status=3),
    Case("X11: -tt", "-Y -tt server 'echo ${DISPLAY%:*}; tty | cut -c1-8; exit 4'", x11=True, status=4),
    Case("X11: off on the server", "-X server 'echo \"[$DISPLAY]\"; exit 3'", server="no x11", x11=True, stderr=x11_refusal, status=3),
    Case("X11: a restricted key", "-Y server 'echo \"[$DISPLAY]\"; exit 3'", server="restricted key", x11=True, stderr=x11_refusal, status=3),
    Case("X11: forced by the key", ["-Y", "server", " a  'b' "], server="forced key", x11=True),
    Case("X11: a subsystem", "-Y -s server upper", server="subsystems", stdin=b"abc", x11=True),
]

# fmt: on


@pytest.fixture(scope="module")
def servers(key_ring: KeyRing, long_lived_processes: set[int]) -> Iterator[Servers]:
    """The servers of all variants, shared by the cases that this worker runs."""
    require_tool("sshd")
    if find_nss_wrapper() is None:
        skip_or_fail("libnss_wrapper is not installed (Debian: apt install libnss-wrapper)")
    directory = Path(tempfile.mkdtemp(prefix="xt-", dir="/tmp"))
    servers = Servers(directory, key_ring, VARIANTS, long_lived_processes.add)
    yield servers
    servers.stop()
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    "case",
    sorted(CASES, key=lambda case: list(VARIANTS).index(case.server)),
    ids=lambda case: case.name,
)
def test_xssh_does_as_ssh_does(
    case: Case,
    servers: Servers,
    client_home: ClientHome,
    spawn_in_pty: Callable[..., Terminal],
    request: pytest.FixtureRequest,
) -> None:
    xvfb: Xvfb | None = request.getfixturevalue("xvfb") if case.x11 else None
    Bench(client_home, servers, spawn_in_pty).compare(case, xvfb)


def test_no_two_cases_have_one_name() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 150
