# What setup runs on the other host: POSIX sh, on the standard input of one `sh -s`.
#
# Functions first; the calls follow line by line, as answers to what the functions say. Each answer
# is a line "xssh-setup NONCE WORDS". Given beforehand: xs_nonce, xs_user (the login), and where
# SSH_CONNECTION does not tell them xs_addr, xs_laddr, xs_lport. Rules: a file is written beside and renamed; before that its old and new
# text lie in the record; nothing is renamed into sshd's configuration that sshd has not tested; no
# program reads our standard input. Folders of the record are private to the one who runs this.

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

survey_rights() {
  if test "$(id -u)" = 0; then say rights root
  elif command -v sudo >/dev/null 2>&1; then
    if sudo -n true >/dev/null 2>&1 </dev/null; then say rights sudo; else say rights password; fi
  else say rights none
  fi
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
  sshd_pid= sshd_title= sshd_bin= sshd_config=/etc/ssh/sshd_config sshd_options= p=$$ n=0
  while test -n "$p" && test "$p" -gt 0 && test $n -lt 60; do
    t=$(title_of "$p")
    case $t in
    sshd:*|sshd-session:*|*/sshd|*/sshd\ *|*/sshd-session\ *) sshd_pid=$p sshd_title=$t ;;
    *) test -z "$sshd_pid" || break ;;
    esac
    p=$(parent_of "$p") n=$((n + 1))
  done
  case $sshd_title in
  *'[listener]'*|/*/sshd|/*/sshd\ *) ;;
  *) sshd_pid= ;;
  esac
  set -f
  set -- $sshd_title
  set +f
  while test $# -gt 0; do
    case $1 in
    -f) sshd_config=$2 ;;
    -f*) sshd_config=${1#-f} ;;
    -o) sshd_options="$sshd_options -o$2" ;;
    -o*) sshd_options="$sshd_options $1" ;;
    /*/sshd) sshd_bin=${sshd_bin:-$1} ;;
    esac
    shift
  done
  test -n "$sshd_bin" || sshd_bin=$(command -v sshd)
  case $sshd_config in
  /*) ;;
  *) sshd_config=$(readlink "/proc/$sshd_pid/cwd" 2>/dev/null)/$sshd_config ;;
  esac
}

# First argument: a configuration; prints what counts for this very session.
effective() {
  set -f
  "$sshd_bin" -T -f "$1" $sshd_options -C \
    "user=$xs_user,host=$xs_addr,addr=$xs_addr,laddr=$xs_laddr,lport=$xs_lport" 2>&1 </dev/null
  set +f
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
  say listener "$sshd_pid"
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
    effective "$sshd_config" | grep -E '^(x11forwarding|disableforwarding|addressfamily|acceptenv|xauthlocation) ' |
    while read -r l; do say effective "$l"; done
    { echo 'X11Forwarding yes'; cat "$sshd_config"; } | composed
  fi
  xauth=$(effective "$sshd_config" | sed -n 's/^xauthlocation //p')
  test -x "${xauth:-/usr/bin/xauth}" && say xauth "${xauth:-/usr/bin/xauth}"
  command -v xauth >/dev/null 2>&1 && say otherxauth "$(command -v xauth)"
}

# What came out if sshd's configuration began with our line? Only a Match block can say no then.
composed() {
  set -f
  l=$("$sshd_bin" -T -f /dev/stdin $sshd_options -C \
    "user=$xs_user,host=$xs_addr,addr=$xs_addr,laddr=$xs_laddr,lport=$xs_lport" 2>/dev/null |
    grep '^x11forwarding ')
  set +f
  test -n "$l" && say composed "$l"
}

# --- The record ---------------------------------------------------------------------------------

# A folder that nobody else can change: private, ours, no link.
private_folder() {
  test -d "$1" || (umask 077; mkdir -p "$1") || return 1
  test -L "$1" && return 1
  set -- "$1" $(ls -ldn "$1")
  case $2 in drwx------*) test "$4" = "$(id -u)" ;; *) return 1 ;; esac
}

record_folder() {
  if test "$1" = root; then echo /var/lib/xssh/setup
  else echo "${XDG_STATE_HOME:-$HOME/.local/state}/xssh/setup"
  fi
}

# From here on our caller's end must not be ours in the midst of a step.
open_record() {
  trap '' HUP INT TERM PIPE
  record=$(record_folder "$1")
  run=
  private_folder "$record" || { say problem "$record is not a private folder"; return 1; }
}

begin_run() {
  test -z "$run" || return 0
  count=0
  run=$record/$(date -u +%Y%m%dT%H%M%SZ)-$$
  (umask 077; mkdir "$run") || return 1
  : >"$run/what"
}

same() {
  test -f "$1" && test -f "$2" || return 1
  test "$(cat "$1"; echo x)" = "$(cat "$2"; echo x)" || return 1
  a=$(ls -ldn "$1" | { read -r m _ u g _; echo "$m $u $g"; })
  b=$(ls -ldn "$2" | { read -r m _ u g _; echo "$m $u $g"; })
  test "$a" = "$b"
}

# Put a new file in the place of $1; it waits as $2, in the same folder. The record comes first.
exchange() {
  count=$((count + 1))
  if test -f "$1"; then cp -p "$1" "$run/$count.old" || return 1; fi
  cp -p "$2" "$run/$count.new" || return 1
  echo "file|$count|$3|$1" >>"$run/what" || return 1
  sync "$run"/* 2>/dev/null
  mv -f "$2" "$1"
}

# Put back the old file of entry $2 of run $1, whose place is $3.
put_back() {
  beside=${3%/*}/.xssh-new
  rm -f "$beside"
  if test -f "$1/$2.old"; then cp -p "$1/$2.old" "$beside" && mv -f "$beside" "$3"
  else rm -f "$3"
  fi
}

make_folder() {
  test -d "$1" && return 0
  make_folder "${1%/*}" || return 1
  mkdir "$1" && echo "folder|$1" >>"$run/what"
}

# --- Steps --------------------------------------------------------------------------------------

step() {
  number=$1
  shift
  reason=
  say begin "$number"
  if begin_run && "$@"; then say done "$number"
  else say failed "$number" "${reason:-it did not work}"
  fi
}

has_package() {
  case $1 in
  apt-get) dpkg-query -W -f='${Status}' "$2" 2>/dev/null | grep -q ' ok installed' ;;
  dnf|yum|zypper) rpm -q "$2" >/dev/null 2>&1 ;;
  pacman) pacman -Q "$2" >/dev/null 2>&1 ;;
  apk) apk info -e "$2" >/dev/null 2>&1 ;;
  brew) brew list --versions "$2" >/dev/null 2>&1 ;;
  conda) ls "$4/conda-meta/$2"-*.json >/dev/null 2>&1 ;;
  esac </dev/null
}

# Runs a command line; what it says goes to a file, so that nobody's absence stops it.
quietly() {
  (trap - HUP INT TERM PIPE; trap '' HUP; eval "$1") </dev/null >>"$run/log" 2>&1
}

tell_log() {
  tail -n 6 "$run/log" | while read -r l; do say said "$l"; done
}

# install MANAGER NAMES COMMAND BEFORE-A-SECOND-TRY [PROGRAM PREFIX]
install() {
  for name in $2; do
    has_package "$1" "$name" "$5" "$6" || echo "package|$1|$name|$5|$6" >>"$run/what"
  done
  quietly "$3" || { test -n "$4" && quietly "$4" && quietly "$3"; } ||
    { reason="the package manager failed"; tell_log; return 1; }
}

test_sshd() {
  set -f
  "$sshd_bin" -t -f "$1" $sshd_options </dev/null >"$run/test" 2>&1
  status=$?
  set +f
  test $status = 0 || { head -n 3 "$run/test" | while read -r l; do say said "$l"; done; }
  return $status
}

reload_sshd() {
  find_sshd
  test -n "$sshd_pid" || return 0
  kill -HUP "$sshd_pid" || { reason="sshd could not be told to read its settings"; return 1; }
  sleep 0.3 2>/dev/null || sleep 1
  kill -0 "$sshd_pid" 2>/dev/null && return 0
  reason="sshd ended when it was told to read its settings: start it before you log out"
  return 1
}

# configure dropin|block PLACE TEXT: the text is a file of its own, or goes before the file's own.
configure() {
  find_sshd
  test "$1" = block || test -f "$sshd_config" || { reason="no $sshd_config"; return 1; }
  beside=${2%/*}/.xssh-new
  rm -f "$beside"
  if test -f "$2"; then cp -p "$2" "$beside"; else (umask 077; : >"$beside"); chmod 644 "$beside"; fi || return 1
  {
    printf %s "$3"
    test ! -f "$2" || sed '/^# xssh --setup: begin/,/^# xssh --setup: end/d' "$2"
  } >"$beside" || return 1
  if test "$1" = dropin; then cat "$beside" "$sshd_config"; else cat "$beside"; fi >"$run/whole" || return 1
  command -v restorecon >/dev/null 2>&1 && restorecon "$beside" >/dev/null 2>&1
  if ! test_sshd "$run/whole"; then
    reason="sshd -t does not accept it: nothing was changed"
    rm -f "$beside"
    return 1
  fi
  exchange "$2" "$beside" sshd || { reason="$2 could not be written"; rm -f "$beside"; return 1; }
  if ! test_sshd "$sshd_config"; then
    reason="sshd -t failed: the old settings are back"
  elif ! effective "$sshd_config" | grep -q '^x11forwarding yes'; then
    reason="another line still wins: the old settings are back"
  elif reload_sshd; then return 0
  fi
  put_back "$run" "$count" "$2"
  kill -0 "${sshd_pid:-$$}" 2>/dev/null || { set -f; "$sshd_bin" -f "$sshd_config" $sshd_options </dev/null >/dev/null 2>&1; set +f; }
  return 1
}

# choose_backend PLACE BACKEND: matplotlib's settings, of which one line changes.
choose_backend() {
  place=$1
  test -L "$place" && place=$(readlink -f "$place")
  make_folder "${place%/*}" || { reason="${place%/*} could not be made"; return 1; }
  beside=${place%/*}/.xssh-new
  rm -f "$beside"
  if test -f "$place"; then
    cp -p "$place" "$beside" &&
      sed "s/^[[:space:]]*backend[[:space:]]*:.*/backend: $2/" "$place" >"$beside"
  else echo "backend: $2" >"$beside"
  fi && exchange "$place" "$beside" home ||
    { reason="$place could not be written"; rm -f "$beside"; return 1; }
}

# --- Taking it back -----------------------------------------------------------------------------

state_of() { # RUN NUMBER PLACE
  if test ! -e "$3" && test ! -f "$1/$2.old"; then echo gone
  elif test -f "$1/$2.old" && same "$3" "$1/$2.old"; then echo old
  elif same "$3" "$1/$2.new"; then echo new
  else echo changed
  fi
}

# The newest run first, and its last entry first.
entries() {
  ls -r "$record" 2>/dev/null | while read -r r; do
    test -f "$record/$r/what" || continue
    sed '1!G;h;$!d' "$record/$r/what" | while read -r e; do echo "$r|$e"; done
  done
}

list_record() {
  record=$(record_folder "$1")
  for f in "${record%/*}" "$record"; do
    if test -d "$f" && test ! -x "$f"; then say closed "$f"; return; fi
  done
  test -d "$record" || return
  private_folder "$record" || { say problem "$record is not a private folder"; return; }
  entries | while IFS='|' read -r r kind a b c d; do
    case $kind in
    file) say undo "$r|file|$a|$b|$c|$(state_of "$record/$r" "$a" "$c")" ;;
    package) if has_package "$a" "$b" "$c" "$d"; then say undo "$r|package|$a|$b|$c|$d"; fi ;;
    esac
  done
}

# take_back RUN NUMBER KIND PLACE
take_back() {
  old=$record/$1
  case $(state_of "$old" "$2" "$4") in
  gone|old) return 0 ;;
  changed) reason="$4 was changed since: left as it is"; return 1 ;;
  esac
  if test "$3" != sshd; then put_back "$old" "$2" "$4"; return; fi
  find_sshd
  run=$old
  if test -f "$old/$2.old" && test "$4" = "$sshd_config" && ! test_sshd "$old/$2.old"; then
    reason="sshd -t does not accept the old file: left as it is"
    return 1
  fi
  put_back "$old" "$2" "$4" || return 1
  if test_sshd "$sshd_config" && reload_sshd; then return 0; fi
  reason=${reason:-"sshd -t does not accept the old settings: left as it is"}
  beside=${4%/*}/.xssh-new
  cp -p "$old/$2.new" "$beside" && mv -f "$beside" "$4"
  return 1
}

# Only this package, and not where another one needs it by now.
remove_package() { # RUN MANAGER NAME PROGRAM PREFIX
  run=$record/$1
  has_package "$2" "$3" "$4" "$5" || return 0
  case $2 in
  apt-get) quietly "dpkg --remove $3" ;;
  dnf|yum|zypper) quietly "rpm -e $3" ;;
  pacman) quietly "pacman -R --noconfirm $3" ;;
  apk) quietly "apk del $3" ;;
  brew) quietly "brew uninstall $3" ;;
  conda) quietly "'$4' remove -y -p '$5' $3" ;;
  esac || { reason="the package manager keeps it"; tell_log; return 1; }
}

undo() {
  number=$1
  shift
  reason=
  say begin "$number"
  if "$@"; then say done "$number"; else say failed "$number" "${reason:-it did not work}"; fi
}

# Forget what is back in its old state; what is not stays in the record.
close_record() {
  for r in "$record"/*; do
    test -f "$r/what" || continue
    left=
    while IFS='|' read -r kind a b c d; do
      case $kind in
      file) case $(state_of "$r" "$a" "$c") in new|changed) left=1 ;; esac ;;
      package) if has_package "$a" "$b" "$c" "$d"; then test "$1" = keep || left=1; fi ;;
      esac
    done <"$r/what"
    test -z "$left" || continue
    sed -n '1!G;h;$p' "$r/what" | while IFS='|' read -r kind a _; do
      if test "$kind" = folder; then rmdir "$a" 2>/dev/null; fi
    done
    rm -rf "$r"
  done
  rmdir "$record" "${record%/*}" 2>/dev/null
}
