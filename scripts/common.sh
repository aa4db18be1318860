# Read by the other scripts: what they say, which Python they take, what the system lacks.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
LOG=$(mktemp "${TMPDIR:-/tmp}/xssh-setup.XXXXXX")
trap 'rm -f "$LOG"' EXIT

say() { printf '%s\n' "$*" >&2; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Run a command quietly; show what it said only when it fails.
quietly() {
    "$@" >"$LOG" 2>&1 </dev/null || {
        local status=$?
        cat "$LOG" >&2
        return "$status"
    }
}

in_ci() { case "${CI:-}" in "" | 0 | false) return 1 ;; esac; }

platform() {
    case "$(uname -s)" in
        Darwin) echo brew ;;
        *) if command -v apt-get >/dev/null; then echo apt; else echo dnf; fi ;;
    esac
}

# --- Python -------------------------------------------------------------------------------------

# A Python that can make environments and draw with Tk; the demo's remote side needs both.
suits() {
    "$1" -c 'import sys, venv, ensurepip, _tkinter; sys.exit(sys.version_info < (3, 10))' \
        >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 \
        python3.10 /usr/bin/python3 /opt/homebrew/bin/python3 /usr/local/bin/python3; do
        if command -v "$candidate" >/dev/null && suits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# --- What the system lacks ----------------------------------------------------------------------

# One line for each need: name, Debian's package, Fedora's, Homebrew's ("-": no package, part of
# the system or not to be had there).
PACKAGES='
python       python3-venv,python3-tk python3,python3-tkinter          python-tk
ssh          openssh-client          openssh-clients                  -
sshd         openssh-server          openssh-server                   -
xauth        xauth                   xorg-x11-xauth                   xquartz
Xvfb         xvfb                    xorg-x11-server-Xvfb             xquartz
nss_wrapper  libnss-wrapper          nss_wrapper                      -
ps           procps                  procps-ng                        -
openssl      openssl                 openssl                          openssl
xterm        xterm                   xterm                            xquartz
xdpyinfo     x11-utils               xdpyinfo                         xquartz
xprop        x11-utils               xprop                            xquartz
xwininfo     x11-utils               xwininfo                         xquartz
xrandr       x11-xserver-utils       xrandr                           xquartz
xset         x11-xserver-utils       xset                             xquartz
setxkbmap    x11-xkb-utils           setxkbmap                        xquartz
xlsatoms     x11-utils               xlsatoms                         xquartz
openbox      openbox                 openbox                          -
xdotool      xdotool                 xdotool                          xdotool
nxagent      nxagent,nxproxy         -                                -
xpra         xpra                    xpra                             -
x11perf      x11-apps                xorg-x11-apps                    xquartz
import       imagemagick             ImageMagick                      imagemagick
tmux         tmux                    tmux                             tmux
git          git                     git                              git
rsync        rsync                   rsync                            rsync
ip           iproute2                iproute                          -
script       bsdutils                util-linux                       -
mount        mount                   util-linux-core                  -
chattr       e2fsprogs               e2fsprogs                        -
zsh          zsh                     zsh                              -
fish         fish                    fish                             fish
mandoc       mandoc                  mandoc                           mandoc
csh          csh                     tcsh                             -
tcsh         tcsh                    tcsh                             -
dash         dash                    dash                             -
dropbear     dropbear-bin            dropbear                         -
softhsm2-util softhsm2               softhsm                          softhsm
qt           libegl1,libgl1,libfontconfig1,libdbus-1-3,libxkbcommon-x11-0,libxcb-cursor0,libxcb-icccm4,libxcb-image0,libxcb-keysyms1,libxcb-render-util0,libxcb-shape0,libxcb-xinerama0 libglvnd-egl,libglvnd-glx,libxkbcommon-x11,xcb-util-cursor,xcb-util-wm,xcb-util-keysyms,xcb-util-image,xcb-util-renderutil -
gtk3         python3-gi,gir1.2-gtk-3.0 python3-gobject,gtk3         -
gtk3agg      python3-matplotlib,python3-gi-cairo,librsvg2-common python3-matplotlib-gtk3 -
qt5          python3-pyqt5,python3-matplotlib python3-qt5,python3-matplotlib-qt5 -
'

have_libraries() {
    local name
    for name in "$@"; do
        compgen -G "/usr/lib*/$name" >/dev/null || compgen -G "/usr/lib/*/$name" >/dev/null ||
            return 1
    done
}

have() {
    case "$1" in
        python) find_python >/dev/null ;;
        nss_wrapper) compgen -G '/usr/lib*/libnss_wrapper.so' >/dev/null ||
            compgen -G '/usr/lib/*/libnss_wrapper.so' >/dev/null ;;
        qt) [ "$(uname -s)" = Darwin ] || have_libraries libxcb-cursor.so.0 libxcb-icccm.so.4 \
            libxcb-keysyms.so.1 libxcb-xinerama.so.0 libxkbcommon-x11.so.0 libEGL.so.1 ;;
        gtk3) [ "$(uname -s)" = Darwin ] || /usr/bin/python3 -c \
            'import gi; gi.require_version("Gtk", "3.0"); from gi.repository import Gtk' \
            >/dev/null 2>&1 ;;
        gtk3agg) [ "$(uname -s)" = Darwin ] || /usr/bin/python3 -c \
            'import matplotlib.backends.backend_gtk3agg
from gi.repository import GdkPixbuf
raise SystemExit("svg" not in [each.get_name() for each in GdkPixbuf.Pixbuf.get_formats()])' \
            >/dev/null 2>&1 ;;
        qt5) [ "$(uname -s)" = Darwin ] || /usr/bin/python3 -c \
            'import PyQt5.QtWidgets, matplotlib' >/dev/null 2>&1 ;;
        *) PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin:/opt/X11/bin command -v "$1" >/dev/null ;;
    esac
}

missing() {
    local need
    for need in "$@"; do have "$need" || printf '%s ' "$need"; done
}

# The packages that bring the needs named, on this platform (or the one named by $1).
packages_for() {
    local manager=$1 name apt dnf brew packages=""
    shift
    while read -r name apt dnf brew; do
        case " $* " in *" $name "*) ;; *) continue ;; esac
        case "$manager" in
            apt) packages="$packages,$apt" ;;
            dnf) packages="$packages,$dnf" ;;
            brew) packages="$packages,$brew" ;;
        esac
    done <<<"$PACKAGES"
    tr ',' '\n' <<<"$packages" | grep -vx -e '-' -e '' | sort -u | paste -s -d ' ' -
}

how_to_install() {
    say "  Debian, Ubuntu:  sudo apt-get install $(packages_for apt "$@")"
    say "  Fedora:          sudo dnf install $(packages_for dnf "$@")"
    say "  macOS:           brew install $(packages_for brew "$@")"
}

# Install what is missing of the needs named, where that can be done without asking: by apt, as
# root. Anywhere else nothing is changed; the caller looks at what is still missing.
install_missing() {
    local lack package
    read -ra lack <<<"$(missing "$@")"
    if [ ${#lack[@]} = 0 ] || [ "$(platform)" != apt ] || [ "$(id -u)" != 0 ]; then return; fi
    local packages
    read -ra packages <<<"$(packages_for apt "${lack[@]}")"
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local start_no_daemons=/usr/sbin/policy-rc.d
    if [ -e $start_no_daemons ]; then start_no_daemons=""; fi
    # A package's own sshd must not start listening on this machine because of a test.
    if [ -n "$start_no_daemons" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$start_no_daemons"
        chmod 755 "$start_no_daemons"
    fi
    quietly apt-get update || true
    if ! quietly apt-get install -y --no-install-recommends "${packages[@]}"; then
        for package in "${packages[@]}"; do
            quietly apt-get install -y --no-install-recommends "$package" || true
        done
    fi
    if [ -n "$start_no_daemons" ]; then rm -f "$start_no_daemons"; fi
    case " ${lack[*]} " in
        *" sshd "*)
            if command -v systemctl >/dev/null; then
                systemctl disable ssh.service ssh.socket >/dev/null 2>&1 || true
            fi
            ;;
    esac
}

# --- An environment of our own ------------------------------------------------------------------

# make_environment DIRECTORY PIP-ARGUMENT…: a venv with these packages; kept while pyproject.toml,
# the Python and the arguments stay the same.
make_environment() {
    local directory=$1 python stamp
    shift
    python=$(find_python)
    stamp=$({
        "$python" -VV
        printf '%s\n' "$directory" "$@"
        cat "$ROOT/pyproject.toml"
    } | cksum)
    if [ "$(cat "$directory/stamp" 2>/dev/null)" = "$stamp" ]; then return; fi
    say "making a Python environment in ${directory#"$ROOT"/}"
    rm -rf "$directory"
    quietly "$python" -m venv "$directory"
    # --group came with pip 25.1.
    quietly "$directory/bin/python" -m pip install --upgrade "pip>=25.1"
    (cd "$ROOT" && quietly "$directory/bin/python" -m pip install "$@")
    printf '%s\n' "$stamp" >"$directory/stamp"
}
