# For ~/.config/fish/config.fish:  source /path/to/xssh/scripts/shell/xssh.fish
# ssh means xssh, and Tab completes both. Nothing is started before the first Tab.

if status is-interactive
    alias ssh=xssh
    function __xssh_load
        functions --erase __xssh_load
        complete --erase --command xssh
        command xssh --completion fish | source
        complete --do-complete (commandline --current-process --cut-at-cursor)
    end
    complete --command xssh --no-files --arguments '(functions --query __xssh_load; and __xssh_load)'
end
