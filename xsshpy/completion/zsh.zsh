#compdef xssh
# zsh completion for xssh. In ~/.zshrc, after compinit:  eval "$(xssh --completion zsh)"
# or, loaded when it is needed, as a file named _xssh in a folder of $fpath.

__xssh_host_names() { command sh -c @HOSTS@ xssh-hosts "$1" 2>/dev/null }

__xssh_hosts() {
    local -a names
    compset -P 'ssh://'
    compset -P '*@'
    names=(${(f)"$(__xssh_host_names ${(Q)opt_args[-F]})"})
    _wanted hosts expl 'remote host' compadd -M 'm:{a-zA-Z}={A-Za-z} r:|.=* r:|=*' -a names
}

__xssh_jumps() {
    compset -P '*,'
    __xssh_hosts
}

__xssh_algorithms() {
    compset -P '*,'
    local -a names
    names=(${(f)"$(command ssh -Q $1 2>/dev/null)"})
    _wanted algorithms expl "$1" compadd -a names
}

__xssh_keywords() {
    local -a values
    if compset -P '(#b)([^=]##)='; then
        case ${(L)match[1]} in
@KEYWORD_VALUES@
            *) _message 'value' && return ;;
        esac
        _wanted values expl 'value' compadd -a values
        return
    fi
    _wanted keywords expl 'keyword' compadd -M 'm:{a-zA-Z}={A-Za-z}' -S '=' -q -- @KEYWORDS@
}

# Options may come after the host too, until the command begins.
__xssh_after_host() {
    if [[ $CURRENT == 1 && $PREFIX == -* && -z $final ]]; then
        words=(xssh "$words[@]")
        CURRENT=2
        _arguments -S -s $options
        return
    fi
    _message 'command'
}

_xssh() {
    emulate -L zsh
    setopt extended_glob
    local context curcontext=$curcontext state line expl
    local -a match mbegin mend
    typeset -A opt_args
    # What is after the host belongs to the script, or to a command.
    local final=${words[(r)(--|--script*)]}
    local -a options=(
@ARGUMENTS@
    )
    _arguments -C -S -s $options ':remote host:__xssh_hosts' '*:::command:__xssh_after_host'
}

if [[ ${funcstack[1]-} == _xssh ]]; then
    _xssh "$@"
elif (( $+functions[compdef] )); then
    compdef _xssh xssh
    # Where aliases are completed by their own name.
    if [[ -o complete_aliases && ${aliases[ssh]-} == *xssh* ]]; then compdef _xssh ssh; fi
fi
