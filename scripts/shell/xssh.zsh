# For ~/.zshrc, after compinit:  . /path/to/xssh/scripts/shell/xssh.zsh
# ssh means xssh, and Tab completes both. Nothing is started before the first Tab.

alias ssh=xssh
_xssh() {
    unfunction _xssh
    eval "$(command xssh --completion zsh)" && _xssh "$@"
}
compdef _xssh xssh
