# What setup sees of the other host: POSIX sh, on the standard input of one `sh -s`; steps.sh follows.
#
# Functions first; the calls follow line by line, as answers to what the functions say. Each answer
# is a line "xssh-setup NONCE WORDS". Given beforehand: xs_nonce, xs_user (the login), and where
# SSH_CONNECTION does not tell them xs_addr, xs_laddr, xs_lport. No program reads our standard input.

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
umask 022
say() { printf '%s\n' "xssh-setup $xs_nonce $*" 2>/dev/null; }

# --- What is there ------------------------------------------------------------------------------

survey() {
  read_connection
  say user "$(id -u)" "$xs_user"
  say connection "$SSH_CONNECTION"
  say system "$(uname -s)"
  say home "$HOME"
  for f in /etc/os-release /usr/lib/os-release; do
    if test -r $f; then
      grep -E '^ID(_LIKE)?=' $f | while read -r l; do say release "$l"; done
      break
    fi
  done
  for p in apt-get dnf yum zypper pacman apk brew; do
    command -v $p >/dev/null 2>&1 && say manager $p
  done
  test -e /run/ostree-booted && say image ostree
  test -n "$MPLBACKEND" && say mplbackend "$MPLBACKEND"
  say default "$(readlink -f /usr/bin/python3 2>/dev/null)"
  survey_rights
  for f in "$HOME/matplotlibrc" "$MATPLOTLIBRC" "$MATPLOTLIBRC/matplotlibrc" \
    "$MPLCONFIGDIR/matplotlibrc" "${XDG_CONFIG_HOME:-$HOME/.config}/matplotlib/matplotlibrc" \
    "$HOME/.matplotlib/matplotlibrc"; do
    if test -f "$f"; then
      say rcfile "$f"
      grep -nE '^[[:space:]]*backend[[:space:]]*:' "$f" | while read -r l; do say rcline "$l"; done
    fi
  done
  say rchome "${MPLCONFIGDIR:-${XDG_CONFIG_HOME:-$HOME/.config}/matplotlib}/matplotlibrc"
}

# What sshd is to be asked about: this very session.
read_connection() {
  set -- $SSH_CONNECTION
  xs_addr=$1 xs_laddr=$3 xs_lport=$4
}

# How to become root: "rights" says what it takes, "by" names the program.
survey_rights() {
  if test "$(id -u)" = 0; then say rights root; return; fi
  for r in sudo doas; do
    command -v $r >/dev/null 2>&1 || continue
    if words=$($r -n true 2>&1 </dev/null); then say by $r; say rights free; return; fi
    test -n "$asks" || asks=$r
    # sudo's requiretty comes before its question.
    case $r:$words in sudo:*tty*) say terminal sudo ;; esac
  done
  if test -n "$asks"; then say by $asks; say rights password; else say rights none; fi
}

parent_of() {
  if test -r "/proc/$1/status"; then sed -n 's/^PPid:[[:space:]]*//p' "/proc/$1/status"
  else ps -o ppid= -p "$1" 2>/dev/null | tr -d ' '
  fi
}

title_of() {
  if test -r "/proc/$1/cmdline"; then tr '\0' ' ' <"/proc/$1/cmdline"
  else ps -o args= -p "$1" 2>/dev/null
  fi
}

# The sshd that listens is the last of the row of sshds above this shell.
find_sshd() {
  sshd_pid= sshd_title= p=$$ n=0
  while test -n "$p" && test "$p" -gt 0 && test $n -lt 60; do
    t=$(title_of "$p")
    case $t in
    sshd:*|sshd-session:*|*/sshd|*/sshd\ *|*/sshd-session\ *) sshd_pid=$p sshd_title=$t ;;
    *) test -z "$sshd_pid" || break ;;
    esac
    p=$(parent_of "$p") n=$((n + 1))
  done
  case $sshd_title in
  # A long title may be cut off before its last words.
  *'[listener]'*|'sshd: /'*|/*/sshd|/*/sshd\ *) ;;
  *) sshd_pid= ;;
  esac
  read_title
}

# What its title tells of how it was started; sshd_fragile: why it would not come back from SIGHUP,
# for which it starts itself again by the same words, in the root folder.
read_title() {
  sshd_bin= sshd_config=/etc/ssh/sshd_config sshd_options= sshd_fragile= option=
  set -f
  set -- $sshd_title
  set +f
  while test $# -gt 0; do
    case $1 in
    -f) sshd_config=$2 option= ;;
    -f*) sshd_config=${1#-f} option= ;;
    -[ohpc]) add_option "$1$2" ;;
    -[ohpc]*|-4|-6) add_option "$1" ;;
    /*/sshd) sshd_bin=${sshd_bin:-$1} option= ;;
    -*|'[listener]') option= ;;
    # A value of several words, such as AcceptEnv's.
    *) if test -n "$option"; then sshd_options="$sshd_options $1"; fi ;;
    esac
    case $1 in -[fohpc]) if test $# -gt 1; then shift; fi ;; esac
    shift
  done
  if test -n "$sshd_pid"; then
    case $sshd_config in
    /*) ;;
    *) sshd_fragile="it was started with -f $sshd_config, a name that holds in one folder only" ;;
    esac
    if test -z "$sshd_bin"; then sshd_fragile="it was started without its full path"
    elif test ! -x "$sshd_bin"; then sshd_fragile="its program, $sshd_bin, is gone"
    fi
  fi
  test -n "$sshd_bin" || sshd_bin=$(command -v sshd)
  sshd_unit=
  if test -d /run/systemd/system && test -r "/proc/$sshd_pid/cgroup"; then
    sshd_unit=$(sed -n 's,.*/\(ssh[^/]*\.service\)$,\1,p' "/proc/$sshd_pid/cgroup" | head -n 1)
  fi
}

# Options stand one a line.
add_option() {
  option=$1
  sshd_options="$sshd_options
$1"
}

# Asks the program of sshd, with the options that the one that listens was given.
ask_sshd() {
  words=$IFS
  IFS='
'
  set -f
  set -- "$@" $sshd_options
  set +f
  IFS=$words
  "$sshd_bin" "$@"
}

# First argument: a configuration; prints what counts for this very session.
effective() {
  ask_sshd -T -f "$1" -C \
    "user=$xs_user,host=$xs_addr,addr=$xs_addr,laddr=$xs_laddr,lport=$xs_lport" 2>&1
}

survey_lines() {
  test -r "$1" || return
  say file "$1"
  grep -niE '^[[:space:]]*(include|match|x11forwarding|disableforwarding|addressfamily|acceptenv|xauthlocation)[[:space:]=]' "$1" |
  while read -r l; do say line "$1|$l"; done
}

survey_own() {
  test -r "$1" || return
  say present "$1"
  sed -n '/^# xssh --setup: begin/,/^# xssh --setup: end/p' "$1" |
  while read -r l; do say own "$1|$l"; done
}

survey_sshd() {
  find_sshd
  xs_listener=$sshd_pid
  say listener "$sshd_pid"
  test -n "$sshd_fragile" && say fragile "$sshd_fragile"
  say sshd "$sshd_bin"
  say config "$sshd_config"
  test -L "$sshd_config" && say linked "$sshd_config"
  survey_lines "$sshd_config"
  test -r "$sshd_config" && sed -n 's/^[[:space:]]*[Ii][Nn][Cc][Ll][Uu][Dd][Ee][[:space:]=]*//p' "$sshd_config" |
  tr -d '"' | tr ' \t' '\n\n' | while read -r g; do
    case $g in '') continue ;; /*) ;; *) g=/etc/ssh/$g ;; esac
    test -d "${g%/*}" && say folder "$g" && survey_own "${g%/*}/00-xssh.conf"
    for f in $g; do test -f "$f" && survey_lines "$f"; done
  done
  survey_own "$sshd_config"
  if test -e /proc/net/if_inet6; then
    if grep -q . /proc/net/if_inet6; then say inet6 yes; else say inet6 half; fi
  fi
  if test "$(id -u)" = 0 && test -n "$sshd_bin"; then
    effective "$sshd_config" </dev/null | grep -E '^(x11forwarding|disableforwarding|addressfamily|acceptenv|xauthlocation) ' |
    while read -r l; do say effective "$l"; done
    { echo 'X11Forwarding yes'; cat "$sshd_config"; } | composed
  fi
  xauth=$(effective "$sshd_config" </dev/null | sed -n 's/^xauthlocation //p')
  test -x "${xauth:-/usr/bin/xauth}" && say xauth "${xauth:-/usr/bin/xauth}"
  command -v xauth >/dev/null 2>&1 && say otherxauth "$(command -v xauth)"
}

# What came out if sshd's configuration began with our line? Only a Match block can say no then.
composed() {
  l=$(effective /dev/stdin | grep '^x11forwarding ')
  test -n "$l" && say composed "$l"
}
