# bash completion for xssh. In ~/.bashrc:  eval "$(xssh --completion bash)"
# or, loaded when it is needed:  xssh --completion bash > ~/.local/share/bash-completion/completions/xssh

__xssh_hosts() { command sh -c @HOSTS@ xssh-hosts "$1" 2>/dev/null; }

# Offer the words from $2 on that begin with $1, with the head before them that was typed.
__xssh_offer() {
    local typed=$1 word
    shift
    for word; do
        if [[ $word == "$typed"* ]]; then COMPREPLY+=("$head$word"); fi
    done
}

__xssh_offer_files() {
    local IFS=$'\n' file typed=$1
    # What begins with a tilde is looked for below the home folder.
    for file in $(compgen -f -- "${typed/#\~\//$HOME/}"); do
        if [[ $typed == "~/"* ]]; then file="~/${file#"$HOME/"}"; fi
        COMPREPLY+=("$head$file")
    done
    compopt -o filenames 2>/dev/null
}

# The value of a keyword, as with -o.
__xssh_offer_keywords() {
    local keyword values
    if [[ $1 == *=* ]]; then
        case $(LC_ALL=C tr A-Z a-z <<<"${1%%=*}") in
@KEYWORD_VALUES@
            *) return ;;
        esac
        head=$head${1%%=*}=
        # shellcheck disable=SC2086
        __xssh_offer "${1#*=}" $values
        return
    fi
    compopt -o nospace 2>/dev/null
    shopt -q nocasematch || { local was_off=1; shopt -s nocasematch; }
    for keyword in @KEYWORDS@; do
        if [[ $keyword == "$1"* ]]; then COMPREPLY+=("$head$keyword="); fi
    done
    if [[ ${was_off-} ]]; then shopt -u nocasematch; fi
}

# What may stand after an option: its letter or name, and what was typed of it. What is typed may
# have more in front of it, in $head.
__xssh_offer_value() {
    local typed=$2
    case $1 in
        E | F | I | i | S | script) __xssh_offer_files "$typed" ;;
        J)
            if [[ $typed == *,* ]]; then head=$head${typed%,*},; fi
            __xssh_offer_host "${typed##*,}"
            ;;
        W) __xssh_offer_host "$typed" ;;
        c | m)
            local kind=cipher
            if [[ $1 == m ]]; then kind=mac; fi
            if [[ $typed == *,* ]]; then head=$head${typed%,*},; fi
            # shellcheck disable=SC2046
            __xssh_offer "${typed##*,}" $(command ssh -Q $kind 2>/dev/null)
            ;;
        l)
            # shellcheck disable=SC2046
            __xssh_offer "$typed" $(compgen -u)
            ;;
        o) __xssh_offer_keywords "$typed" ;;
@VALUES@
    esac
}

# A host, after a user's name or the beginning of an address.
__xssh_offer_host() {
    local typed=$1
    if [[ $typed == ssh://* ]]; then head=${head}ssh:// typed=${typed#ssh://}; fi
    if [[ $typed == *@* ]]; then head=$head${typed%@*}@ typed=${typed##*@}; fi
    # shellcheck disable=SC2046
    __xssh_offer "$typed" $(__xssh_hosts "$config")
}

__xssh_offer_options() {
    local row
    # Asked for the list (the second Tab), bash shows what each is for.
    while IFS=$'\t' read -r option row; do
        if [[ $option != "$1"* ]]; then continue; fi
        if [[ ${COMP_TYPE-} == 63 ]]; then
            printf -v option '%-14s %s' "$option" "$row"
            COMPREPLY+=("${option:0:$((${COLUMNS:-80} - 2))}")
        else
            COMPREPLY+=("$option")
        fi
    done <<<@OPTIONS@
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *' '* ]]; then
        COMPREPLY=("${COMPREPLY[0]%% *}")
    fi
}

# Split what was typed where a shell does. bash itself splits at @, = and : too.
__xssh_split() {
    local line=${COMP_LINE:0:COMP_POINT} position word gap count=-1
    words=()
    for ((position = 0; position <= COMP_CWORD; position++)); do
        word=${COMP_WORDS[position]}
        gap=${line%%[![:space:]]*}
        line=${line#"$gap"}
        if [[ $position == "$COMP_CWORD" ]]; then word=$line; fi
        line=${line#"$word"}
        if [[ $gap || $position == 0 ]]; then count=$((count + 1)) words[count]=$word
        else words[count]=${words[count]}$word; fi
        last=$word
    done
}

# Read the words before the last one as the program does; sets what is wanted next.
__xssh_read() {
    local position word letters
    for ((position = 1; position < ${#words[@]} - 1; position++)); do
        word=${words[position]}
        if [[ $wanted ]]; then
            if [[ $wanted == F ]]; then config=$word; fi
            wanted=
        elif [[ $host && $script ]]; then
            command=1
        elif [[ $ended ]]; then
            if [[ $host ]]; then command=1; else host=$word; fi
        elif [[ $word == -- ]]; then
            ended=1
            if [[ $host ]]; then command=1; fi
        elif [[ $word == --* ]]; then
            if [[ $word == --script* ]]; then script=1; fi
            case $word in @VALUED@) wanted=${word#--} ;; esac
        elif [[ $word == -?* ]]; then
            for ((letters = 1; letters < ${#word}; letters++)); do
                if [[ @LETTERS@ == *"${word:letters:1}"* ]]; then
                    if [[ $letters == $((${#word} - 1)) ]]; then wanted=${word:letters:1}
                    elif [[ ${word:letters:1} == F ]]; then config=${word:letters + 1}; fi
                    break
                fi
            done
        elif [[ $host ]]; then
            command=1
        else
            host=$word
        fi
        if [[ $command ]]; then return; fi
    done
}

_xssh() {
    local words last='' wanted='' host='' script='' ended='' command='' config='' head='' option
    COMPREPLY=()
    __xssh_split
    __xssh_read
    if [[ $command ]]; then return; fi
    local typed=${words[${#words[@]} - 1]}
    if [[ $wanted ]]; then
        __xssh_offer_value "$wanted" "$typed"
    elif [[ $typed == --*=* && ! $ended ]]; then
        option=${typed%%=*} head=${typed%%=*}=
        __xssh_offer_value "${option#--}" "${typed#*=}"
    elif [[ $typed == -[@LETTER_CLASS@]?* && ! $ended ]]; then
        head=${typed:0:2}
        __xssh_offer_value "${typed:1:1}" "${typed:2}"
    elif [[ $typed == -* && ! $ended && ! ($host && $script) ]]; then
        __xssh_offer_options "$typed"
    elif [[ ! $host ]]; then
        __xssh_offer_host "$typed"
    fi
    # bash replaces only what stands after the last of its own word breaks, and an @ as well.
    local before=${typed%"$last"} position
    case $last in [=:@]) before=$typed ;; esac
    before=${before%@}
    for ((position = 0; position < ${#COMPREPLY[@]}; position++)); do
        COMPREPLY[position]=${COMPREPLY[position]#"$before"}
    done
}

complete -F _xssh xssh
# Whoever calls xssh by ssh's name gets the same.
case $(alias ssh 2>/dev/null) in *xssh*) complete -F _xssh ssh ;; esac
