# Exporters of metrics. Sourced; POSIX sh.

# exporter_answers UNIT ADDRESS PORT open|asks SECONDS: the unit runs and gives metrics, or asks
# who wants them, within so many seconds.
exporter_answers() {
    left=$5 owner=
    while :; do
        exporter_runs "$1" || return 1
        exporter_said "$2" "$3"
        case $4:$code:$metrics in
        open:200:[1-9]* | asks:401:* | open:open:* | asks:open:*)
            # One that finds its port taken ends after its start, while whoever has it answers.
            exporter_owner "$1" "$3"
            if [ "$owner" != theirs ]; then
                exporter_runs "$1"
                return
            fi
            ;;
        asks:200:*)
            printf '%s\n' "port $3 gives /metrics without asking for a password" >&2
            return 1
            ;;
        open:401:*)
            printf '%s\n' "port $3 asks for a password: something else than ours listens there" >&2
            return 1
            ;;
        esac
        [ "$left" -gt 0 ] || break
        sleep 1
        left=$((left - 1))
    done
    if [ "${owner-}" = theirs ]; then
        printf '%s\n' "port $3 answers, and it is not $1 that listens there but $(exporter_holders)" >&2
        return 1
    fi
    case $code in
    000 | closed | '') why='nothing answers there' ;;
    200) why='what it gives are no metrics' ;;
    *) why="it answers $code" ;;
    esac
    printf '%s\n' "port $3 does not give /metrics after $5 s: $why" >&2
    return 1
}

exporter_runs() {
    podman_unit_is - "$1" active && return 0
    journalctl --no-pager -q -n 8 -o cat -u "$1" >&2 </dev/null
    return 1
}

# exporter_owner UNIT PORT: sets owner to `ours` where a process of the unit listens on the port,
# `theirs` where only others do, and `nobody` where no socket of the host does, as where packets
# are turned to a container on their way.
exporter_owner() {
    owner=nobody
    hex=$(printf ':%04X' "$2")
    sockets=
    for f in "$R"/proc/net/tcp "$R"/proc/net/tcp6; do
        [ ! -r "$f" ] || sockets="$sockets $(awk -v port="$hex" \
            '$4 == "0A" && substr($2, length($2) - 4) == port && $10 > 0 { print $10 }' "$f")"
    done
    case $sockets in
    *[0-9]*) owner=theirs ;;
    *) return 0 ;;
    esac
    group=$(systemctl show --property=ControlGroup -- "$1" </dev/null 2>/dev/null)
    group=${group#ControlGroup=}
    [ -n "$group" ] || return 0
    grep -lF ":$group" "$R"/proc/[0-9]*/cgroup 2>/dev/null | (
        while read -r f; do
            if exporter_within "$f" "$group" && exporter_holds "${f%/cgroup}"; then exit 0; fi
        done
        exit 1
    ) && owner=ours
    return 0
}
# exporter_within FILE GROUP: a process's list of control groups has this one, or one below it.
exporter_within() {
    while read -r line; do
        case $line in *":$2" | *":$2/"*) return 0 ;; esac
    done <"$1" 2>/dev/null
    return 1
}
# exporter_holds DIRECTORY: a process that has one of the sockets open.
exporter_holds() {
    open=$(ls -l "$1/fd" 2>/dev/null)
    for socket in $sockets; do
        case $open in *"socket:[$socket]"*) return 0 ;; esac
    done
    return 1
}
# exporter_holders: who has them.
exporter_holders() {
    who=
    for d in "$R"/proc/[0-9]*; do
        if exporter_holds "$d"; then
            name=
            read -r name 2>/dev/null <"$d/comm" || :
            who="$who, process ${d##*/}${name:+ ($name)}"
        fi
    done
    who=${who#, }
    printf '%s\n' "${who:-nobody who can be seen}"
}

# exporter_said ADDRESS PORT: sets code (of HTTP, 000 where nothing answers) and metrics (how many
# there are). Without a program that speaks HTTP code is open or closed: whether anything listens.
exporter_said() {
    code=000 metrics=0
    url=http://$1:$2/metrics
    if command -v curl >/dev/null 2>&1; then
        said=$(curl -s --noproxy '*' --max-time 10 -w '\n%{http_code}\n' "$url" </dev/null 2>/dev/null |
            awk '/^# TYPE /{n++} {l=$0} END{print l, n+0}')
        code=${said%% *} metrics=${said##* }
    elif command -v wget >/dev/null 2>&1; then
        # GNU's ends with 6 where it is asked for a password; busybox's says so.
        said=$(
            wget -q -T 10 -O - "$url" </dev/null 2>&1
            echo "status $?"
        )
        metrics=$(printf '%s\n' "$said" | grep -c '^# TYPE ')
        case $said in
        *'status 0') code=200 ;;
        *'status 6' | *' 401 '*) code=401 ;;
        esac
    else
        hex=$(printf ':%04X ' "$2")
        code=closed
        for f in "$R"/proc/net/tcp "$R"/proc/net/tcp6; do
            [ ! -r "$f" ] || ! grep -q "${hex}[0-9A-F:]* 0A " "$f" || code=open
        done
    fi
}
