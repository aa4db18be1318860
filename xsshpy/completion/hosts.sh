# The hosts that ssh knows by name, one a line: those of ssh_config(5), with what it includes, and
# those of the known_hosts files whose names are not hashed. $1: the file of -F, if one was given.
parse_configuration='
{
    sub(/\r$/, ""); sub(/^[ \t]+/, "")
    if (!match($0, /^[A-Za-z0-9]+/)) next
    keyword = tolower(substr($0, 1, RLENGTH)); rest = substr($0, RLENGTH + 1)
    kind = ""
    if (keyword == "host") kind = "H"
    if (keyword == "include") kind = "I"
    if (keyword == "userknownhostsfile" || keyword == "globalknownhostsfile") kind = "K"
    if (kind == "") next
    sub(/^[ \t]*=?[ \t]*/, "", rest)
    while (rest != "" && rest !~ /^#/) {
        if (rest ~ /^"/) {
            rest = substr(rest, 2); end = index(rest, "\"")
            if (!end) break
            word = substr(rest, 1, end - 1); rest = substr(rest, end + 1)
        } else {
            match(rest, /^[^ \t]+/)
            word = substr(rest, 1, RLENGTH); rest = substr(rest, RLENGTH + 1)
        }
        sub(/^[ \t]+/, "", rest)
        print kind word
    }
}'
parse_known_hosts='
{ names = $1 }
$1 ~ /^#/ || $1 == "@revoked" { next }
$1 == "@cert-authority" { names = $2 }
{
    count = split(names, found, ",")
    for (i = 1; i <= count; i++) {
        name = found[i]
        if (name ~ /^\[.*\]:[0-9]+$/) { sub(/^\[/, "", name); sub(/\]:[0-9]+$/, "", name) }
        print "H" name
    }
}'
# $1: the folder of relative names, $2: a file. Files that include each other are read once.
read_configuration() (
    case $including in *"|$2|"*) exit 0 ;; esac
    including="$including$2|"
    if [ ! -f "$2" ] || [ ! -r "$2" ]; then exit 0; fi
    awk "$parse_configuration" "$2" | while IFS= read -r line; do
        name=${line#?}
        case $line in
            I*)
                case $name in
                    "~/"*) name=$HOME/${name#??} ;;
                    /*) ;;
                    *) name=$1/$name ;;
                esac
                IFS=
                for file in $name; do read_configuration "$1" "$file"; done
                ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
)
read_known_hosts() {
    while IFS= read -r line; do
        case $line in
            "K~/"*) file=$HOME/${line#???} ;;
            K*) file=${line#?} ;;
            *) continue ;;
        esac
        if [ -f "$file" ] && [ -r "$file" ]; then awk "$parse_known_hosts" "$file"; fi
    done
}
own=$HOME/.ssh including="|"
configured=$(
    if [ -n "${1:-}" ]; then
        case $1 in "~/"*) set -- "$HOME/${1#??}" ;; esac
        read_configuration "$own" "$1"
    else
        read_configuration "$own" "$own/config"
        read_configuration /etc/ssh /etc/ssh/ssh_config
    fi
)
{
    printf '%s\n' "$configured"
    for file in "$own/known_hosts" "$own/known_hosts2" /etc/ssh/ssh_known_hosts \
        /etc/ssh/ssh_known_hosts2; do
        printf 'K%s\n' "$file"
    done | {
        cat
        printf '%s\n' "$configured"
    } | read_known_hosts
} | awk '
    # A pattern is no host, neither is a hash, and nothing comes from a file that a shell would read
    # as more than a word.
    /^H[A-Za-z0-9_:][A-Za-z0-9_:.@%+=-]*$/ { name = substr($0, 2) }
    name != "" && !(name in seen) { seen[name]; print name }
' | sort
