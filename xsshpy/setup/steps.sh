# What setup does on the other host, behind program.sh: the record, the steps, and taking them back.
#
# Rules: a file is written beside and renamed; before that its old and new text lie in the record;
# nothing is renamed into sshd's configuration that sshd has not tested; sshd is told of it only
# where it will come back. Folders of the record are private to the one who runs this.

# --- The record ---------------------------------------------------------------------------------

# Runs a program; where it fails, $why is what it said last.
try() {
  why=$("$@" 2>&1 </dev/null) && return 0
  why=$(printf '%s\n' "$why" | tail -n 1)
  return 1
}

# A folder that nobody else can change: private, ours, no link. $why where it can't be had.
private_folder() {
  why="$1 is not a private folder"
  if test ! -d "$1"; then (umask 077; mkdir -p "$1") 2>/dev/null || { why="$1 could not be made"; return 1; }; fi
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
  private_folder "$record" || { say problem "$why"; return 1; }
}

begin_run() {
  test -z "$run" || return 0
  count=0
  run=$record/$(date -u +%Y%m%dT%H%M%SZ)-$$
  try mkdir -m 700 "$run" && try touch "$run/what" && return 0
  reason="$run could not be written: $why" run=
  return 1
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
  case $1 in *'|'*) why="its name has a |"; return 1 ;; esac
  if test -f "$1"; then try cp -p "$1" "$run/$count.old" || return 1; fi
  try cp -p "$2" "$run/$count.new" || return 1
  echo "file|$count|$3|$1" >>"$run/what" || return 1
  sync "$run"/* 2>/dev/null
  try mv -f "$2" "$1"
}

# Make $2, beside $1, which has its mode and owner, or those of a new file of sshd's.
beside_of() {
  rm -f "$2" 2>/dev/null
  if test -f "$1"; then try cp -p "$1" "$2"; else try touch "$2" && try chmod 644 "$2"; fi
}

# Put back the old file of entry $2 of run $1, whose place is $3.
put_back() {
  beside=${3%/*}/.xssh-new
  rm -f "$beside" 2>/dev/null
  if test -f "$1/$2.old"; then try cp -p "$1/$2.old" "$beside" && try mv -f "$beside" "$3"
  else try rm -f "$3"
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
  brew) "$3" list --versions "$2" >/dev/null 2>&1 ;;
  conda) ls "$4/conda-meta/$2"-[0-9]*.json >/dev/null 2>&1 ;;
  esac </dev/null
}

# Runs a command line; what it says goes to a file, so that nobody's absence stops it. Every 15
# seconds we tell what it said last: it may wait for somebody.
quietly() {
  : >"$run/busy"
  (
    n=0
    while sleep 1 && test -e "$run/busy" && kill -0 $$ 2>/dev/null; do
      n=$((n + 1))
      test $((n % ${xs_every:-15})) != 0 || say still "$n $(tail -n 1 "$run/log")"
    done
  ) </dev/null 2>/dev/null &
  (trap - INT TERM PIPE; eval "$1") </dev/null >>"$run/log" 2>&1
  status=$?
  rm -f "$run/busy"
  return $status
}

tell_log() {
  tail -n 6 "$run/log" | while read -r l; do say said "$l"; done
}

# install MANAGER NAMES COMMAND BEFORE-A-SECOND-TRY [PROGRAM PREFIX]
install() {
  for name in $2; do
    has_package "$1" "$name" "$5" "$6" || echo "package|$1|$name|$5|$6" >>"$run/what"
  done
  quietly "$3" || { test -n "$4" && { quietly "$4"; quietly "$3"; }; } ||
    { reason="the package manager failed"; tell_log; return 1; }
}

test_sshd() {
  ask_sshd -t -f "$1" </dev/null >"$run/test" 2>&1
  status=$?
  test $status = 0 || { head -n 3 "$run/test" | while read -r l; do say said "$l"; done; }
  return $status
}

# The sockets that listen on the port of this session; nothing where the system does not tell.
listening() {
  port=$(printf %04X "${xs_lport:-0}")
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
  sed -n "s/^ *[0-9]*: [0-9A-F]*:$port [0-9A-F:]* 0A  *[^ ]*  *[^ ]*  *[^ ]*  *[^ ]*  *[^ ]*  *\([0-9]*\).*/\1/p"
}

lives() {
  kill -0 "$1" 2>/dev/null || return 1
  ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# The sshd to tell, in sshd_pid; nothing where each connection starts one. A package manager may
# have put another one in the place of the one that was there.
find_listener() {
  find_sshd
  if test -z "$sshd_pid" && test -n "$xs_listener"; then
    f=$(effective "$sshd_config" </dev/null | sed -n 's/^pidfile //p')
    test -r "$f" && read -r sshd_pid <"$f"
    sshd_title=$(title_of "${sshd_pid:-none}")
    case $sshd_title in
    *'[listener]'*) read_title ;;
    *) sshd_pid= sshd_fragile="the one of this session is gone, and no other was found" ;;
    esac
  fi
  test -z "$sshd_fragile" && return 0
  reason="sshd would not come back from a reload: $sshd_fragile. Restart it by hand"
  return 1
}

# It is up again when its sockets are new ones. Sockets that systemd keeps stay the same.
reload_sshd() {
  find_listener || return 1
  test -n "$sshd_pid" || return 0
  sockets=$(listening) n=0
  try kill -HUP "$sshd_pid" || { reason="sshd could not be told: $why"; return 1; }
  while test $n -lt 30; do
    sleep 0.1 2>/dev/null || sleep 1
    n=$((n + 1)) now=$(listening)
    lives "$sshd_pid" || break
    if test -n "$now" && test "$now" != "$sockets"; then return 0; fi
    if test -z "$sockets" && test $n = 10; then return 0; fi
  done
  if lives "$sshd_pid" && test -n "$now"; then return 0; fi
  reason="sshd did not come back when it was told to read its settings"
  return 1
}

# Behind a reload that failed, with the old settings in their place.
revive_sshd() {
  if test -z "$sshd_pid" || { lives "$sshd_pid" && test -n "$(listening)"; }; then return 0; fi
  by="$sshd_bin -f $sshd_config" n=0
  if test -n "$sshd_unit"; then
    by="systemctl restart $sshd_unit"
    $by </dev/null >/dev/null 2>&1
  else ask_sshd -f "$sshd_config" </dev/null >/dev/null 2>&1
  fi
  while test $n -lt 30; do
    sleep 0.1 2>/dev/null || sleep 1
    n=$((n + 1))
    if test -n "$(listening)"; then
      reason="$reason; it was started again with the old ones"
      return 0
    fi
  done
  reason="$reason. NO SSHD LISTENS THERE NOW: before this login ends, there: $by"
  return 1
}

# configure dropin|block PLACE TEXT: the text is a file of its own, or goes before the file's own.
configure() {
  find_listener || return 1
  test "$1" = block || test -f "$sshd_config" || { reason="no $sshd_config"; return 1; }
  beside=${2%/*}/.xssh-new
  beside_of "$2" "$beside" || { reason="${2%/*} can't be written: $why"; return 1; }
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
  exchange "$2" "$beside" sshd || { reason="$2 can't be written: $why"; rm -f "$beside"; return 1; }
  if ! test_sshd "$sshd_config"; then
    reason="sshd -t failed: the old settings are back"
  elif ! effective "$sshd_config" </dev/null | grep -q '^x11forwarding yes'; then
    reason="another line still wins: the old settings are back"
  elif reload_sshd; then return 0
  fi
  put_back "$run" "$count" "$2" || reason="$reason; $2 COULD NOT BE PUT BACK, its old text is $run/$count.old"
  revive_sshd
  return 1
}

# choose_backend PLACE BACKEND: matplotlib's settings, of which one line changes.
choose_backend() {
  place=$1
  test -L "$place" && place=$(readlink -f "$place")
  make_folder "${place%/*}" || { reason="${place%/*} could not be made"; return 1; }
  beside=${place%/*}/.xssh-new
  rm -f "$beside" 2>/dev/null
  if test -f "$place"; then
    try cp -p "$place" "$beside" &&
      sed "s|^[[:space:]]*backend[[:space:]]*:.*|backend: $2|" "$place" >"$beside"
  else try touch "$beside" && echo "backend: $2" >"$beside"
  fi && exchange "$place" "$beside" home ||
    { reason="$place can't be written: $why"; rm -f "$beside"; return 1; }
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
  private_folder "$record" || { say problem "$why"; return; }
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
  find_listener || return 1
  run=$old
  if test -f "$old/$2.old" && test "$4" = "$sshd_config" && ! test_sshd "$old/$2.old"; then
    reason="sshd -t does not accept the old file: left as it is"
    return 1
  fi
  put_back "$old" "$2" "$4" || { reason="$4 can't be written: $why"; return 1; }
  if test_sshd "$sshd_config" && reload_sshd; then return 0; fi
  reason=${reason:-"sshd -t does not accept the old settings: left as it is"}
  beside=${4%/*}/.xssh-new
  cp -p "$old/$2.new" "$beside" && mv -f "$beside" "$4"
  revive_sshd
  return 1
}

# Only this package, and not where another one needs it by now.
remove_package() { # RUN MANAGER NAME PROGRAM PREFIX
  run=$record/$1 xs_name=$3 xs_program=$4 xs_prefix=$5
  has_package "$2" "$3" "$4" "$5" || return 0
  case $2 in
  apt-get) quietly "dpkg --remove $3" ;;
  dnf|yum|zypper) quietly "rpm -e $3" ;;
  pacman) quietly "pacman -R --noconfirm $3" ;;
  apk) quietly "apk del $3" ;;
  brew) quietly '"$xs_program" uninstall "$xs_name"' ;;
  conda) quietly '"$xs_program" remove -y -p "$xs_prefix" "$xs_name"' ;;
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
