# fish completion for xssh. In ~/.config/fish/completions/xssh.fish:  xssh --completion fish | source

function __xssh_hosts --description 'Hosts that ssh knows, after what was typed before them'
    set -l typed (commandline --current-token)
    set -l head (string match --regex '^(?:ssh://)?(?:.*@)?' -- $typed)
    set -l config
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    for position in (seq (count $words))
        if test "$words[$position]" = -F
            set config $words[(math $position + 1)]
        else if string match --quiet --regex '^-F.' -- $words[$position]
            set config (string sub --start 3 -- $words[$position])
        end
    end
    printf '%s\n' $head(command sh -c @HOSTS@ xssh-hosts "$config" 2>/dev/null)
end

function __xssh_jumps
    set -l head (string match --regex '^(?:-J)?(?:.*,)?' -- (commandline --current-token))
    set -l hosts (__xssh_hosts | string replace --regex '^.*,' '')
    printf '%s\n' (string replace --regex '^-J' '' -- $head)$hosts
end

function __xssh_algorithms
    set -l typed (string replace --regex '^-[cm]' '' -- (commandline --current-token))
    set -l head (string match --regex '^(?:.*,)?' -- $typed)
    printf '%s\n' $head(command ssh -Q $argv[1] 2>/dev/null)
end

function __xssh_keywords
    set -l typed (string replace --regex '^-o' '' -- (commandline --current-token))
    set -l keyword (string match --regex '^[^=]+=' -- $typed)
    if test -z "$keyword"
        printf '%s\n' @KEYWORDS@
        return
    end
    set -l values
    switch (string lower -- $keyword)
@KEYWORD_VALUES@
    end
    printf '%s\n' $keyword$values
end

# Prints how far the words before the cursor go: options, command (nothing of ours is after it).
function __xssh_place
    set -l words (commandline --tokenize --cut-at-cursor --current-process)
    set -l wanted
    set -l host
    set -l ended
    set -l script
    for word in $words[2..-1]
        if test -n "$wanted"
            set wanted
        else if test -n "$host" -a -n "$script"
            echo command
            return
        else if test -n "$ended"
            test -n "$host"; and echo command; and return
            set host 1
        else if test "$word" = --
            test -n "$host"; and echo command; and return
            set ended 1
        else if string match --quiet -- '--*' $word
            string match --quiet -- '--script*' $word; and set script 1
            contains -- $word @VALUED@; and set wanted 1
        else if string match --quiet --regex '^-.' -- $word
            string match --quiet --regex '^-[^@LETTER_CLASS@]*[@LETTER_CLASS@]$' -- $word; and set wanted 1
        else if test -n "$host"
            echo command
            return
        else
            set host 1
        end
    end
    if test -z "$host"
        echo host
    else if test -n "$script" -o -n "$ended"
        echo command
    else
        echo options
    end
end

function __xssh_at
    contains -- (__xssh_place) $argv
end

complete --command xssh --no-files
complete --command xssh --no-files --condition '__xssh_at host' --arguments '(__xssh_hosts)'
@COMPLETE@
