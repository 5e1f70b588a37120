# The host's side of the wire: one long-lived `sh` that evaluates requests and
# answers in frames. It is sent inside the command that starts it, as
#   sh -c LOOP deploy TOKEN ROOT FIRST
# and runs on dash, bash, busybox sh and mksh. Comment lines and indentation
# are taken out before it is sent.
#
# A frame is its payload, a line feed, and a line that starts with "@@" and a
# name that nobody on the host can know: it is drawn here and told to the
# controller only. The standard error of each call ends with the same line.
# Commands never read the loop's own standard input.

d_token=$1 d_root=$2 d_first=$3
# shellcheck disable=SC2034 # requests use them
R=$d_root RUN='' d_version=1
LC_ALL=C
PATH=${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin:/usr/bin:/bin
# Scripts that a request names find the root prefix in their environment.
export LC_ALL PATH R
unset IFS CDPATH ENV BASH_ENV
set -f
d_nl='
'

# d_noise is a spelling of "/" that no file's content can guess: the headers
# that `head` prints between files carry it.
d_name='' d_seed=''
{ read -r d_name && read -r d_seed < /proc/sys/kernel/random/uuid; } 2> /dev/null < /proc/sys/kernel/random/uuid
[ -n "$d_seed" ] || { d_name=$d_token d_seed=$d_token; }
d_noise=
while [ -n "$d_seed" ]; do
    case $d_seed in
    -*) ;;
    [0-7]*) d_noise=$d_noise/ ;;
    *) d_noise=$d_noise/. ;;
    esac
    d_seed=${d_seed#?}
done
d_name=@@$d_name

d_frame() { printf '\n%s %s\n' "$d_name" "$*"; }
d_mark() { printf '\n%s %s\n' "$d_name" "${1:-.}" >&2; }

if command -v timeout > /dev/null 2>&1; then
    d_timed() { timeout -s KILL "$@"; }
else
    # Seconds, then the command, with this function's standard input.
    d_timed() {
        d_seconds=$1
        shift
        { "$@" <&5 & } 5<&0
        d_pid=$!
        (
            sleep "$d_seconds"
            kill -9 "$d_pid"
        ) > /dev/null 2>&1 < /dev/null &
        d_watch=$!
        wait "$d_pid" 2> /dev/null
        d_status=$?
        kill "$d_watch" 2> /dev/null
        return "$d_status"
    }
fi

# Sets d_c to what stands at a path: f, d, b, c, p, s, o, a for nothing, u for
# a folder on the way that may not be entered.
d_kind() {
    if [ -f "$1" ]; then d_c=f
    elif [ -d "$1" ]; then d_c=d
    elif [ -b "$1" ]; then d_c=b
    elif [ -c "$1" ]; then d_c=c
    elif [ -p "$1" ]; then d_c=p
    elif [ -S "$1" ]; then d_c=s
    elif [ -e "$1" ]; then d_c=o
    else
        d_c=a
        d_up=${1%/*}
        while [ -n "$d_up" ] && [ ! -e "$d_up" ]; do d_up=${d_up%/*}; done
        if [ -n "$d_up" ] && [ -d "$d_up" ] && [ ! -x "$d_up" ]; then d_c=u; fi
    fi
}

# BYTES PATH...: the kinds, and one `head` for all. A pipe or device among
# them could block, so then each plain file gets its own `head`.
d_files() {
    d_bytes=$1
    shift
    d_kinds=
    for d_path; do
        d_kind "$d_path"
        d_kinds=$d_kinds$d_c
    done
    case $d_kinds in
    *[bcpso]*)
        for d_path; do
            if [ -f "$d_path" ]; then head -c "$d_bytes" "$d_path" "$d_noise/dev/null" < /dev/null; fi
        done
        ;;
    *f*) head -c "$d_bytes" "$@" "$d_noise/dev/null" < /dev/null ;;
    esac
    d_frame f "$d_kinds"
    d_mark
}

# Finds the path d_want among those from number d_at on; sets d_at to it.
d_find() {
    while [ "$d_at" -le "$d_count" ]; do
        eval "d_path=\$d_p$d_at"
        if [ "$d_path" = "$d_want" ]; then return 0; fi
        d_at=$((d_at + 1))
    done
    return 1
}

# (BYTES UNLESS PATH)...: kinds, targets of links, one `stat` and one
# `sha256sum` for all, and one `head` for the files that differ from UNLESS.
d_states() {
    d_count=0 d_most=0 d_kinds='' d_there='' d_plain='' d_differ=''
    while [ $# -gt 0 ]; do
        d_count=$((d_count + 1))
        eval "d_l$d_count=\$1 d_u$d_count=\$2 d_p$d_count=\$3 d_s$d_count="
        if [ "$1" -gt "$d_most" ]; then d_most=$1; fi
        if [ -L "$3" ]; then d_c=l; else d_kind "$3"; fi
        d_kinds=$d_kinds$d_c
        case $d_c in
        f)
            d_there="$d_there \"\$d_p$d_count\""
            d_plain="$d_plain \"\$d_p$d_count\""
            ;;
        d) d_there="$d_there \"\$d_p$d_count\"" ;;
        esac
        shift 3
    done
    d_frame s "$d_kinds"
    d_at=0 d_left=$d_kinds
    while [ -n "$d_left" ]; do
        d_at=$((d_at + 1))
        case $d_left in
        l*)
            eval "readlink -n \"\$d_p$d_at\"" < /dev/null
            d_frame l
            ;;
        esac
        d_left=${d_left#?}
    done
    d_stats='' d_sums=''
    if [ -n "$d_there" ]; then d_stats=$(eval "stat -c %f:%s:%u:%g:%U:%G:%n $d_there" < /dev/null); fi
    if [ -n "$d_plain" ]; then d_sums=$(eval "sha256sum $d_plain" < /dev/null); fi
    printf '%s' "$d_stats"
    d_frame t
    printf '%s' "$d_sums"
    d_frame h
    IFS=$d_nl
    d_at=1
    for d_line in $d_stats; do
        d_want=${d_line#*:*:*:*:*:*:}
        d_keep=$d_at
        d_line=${d_line#*:}
        if d_find; then
            eval "d_s$d_at=\${d_line%%:*}"
            d_at=$((d_at + 1))
        else
            d_at=$d_keep
        fi
    done
    d_at=1
    for d_line in $d_sums; do
        d_hash=${d_line%% *}
        d_want=${d_line#*  }
        d_keep=$d_at
        case $d_hash in
        \\*)
            # A name with a backslash is spelt otherwise here: take the next such name.
            d_hash=${d_hash#?}
            while [ "$d_at" -le "$d_count" ]; do
                eval "d_want=\$d_p$d_at"
                case $d_want in *\\*) break ;; esac
                d_at=$((d_at + 1))
            done
            ;;
        esac
        if ! d_find; then
            d_at=$d_keep
            continue
        fi
        eval "d_size=\$d_s$d_at d_bytes=\$d_l$d_at d_want=\$d_u$d_at"
        if [ "$d_hash" != "$d_want" ] && [ -n "$d_size" ] && [ "$d_size" -le "$d_bytes" ]; then
            d_differ="$d_differ \"\$d_p$d_at\""
        fi
        d_at=$((d_at + 1))
    done
    unset IFS
    if [ -n "$d_differ" ]; then eval "head -c $d_most $d_differ \"\$d_noise/dev/null\"" < /dev/null; fi
    d_frame c
    d_mark
}

# PATH...: those that exist, as the pattern before was expanded by the caller.
d_glob() {
    for d_path; do
        if [ -e "$d_path" ] || [ -L "$d_path" ]; then printf '%s\000' "${d_path#"$R"}"; fi
    done
    d_frame g
    d_mark
}

# SECONDS BYTES WORD...: a command that changes nothing.
d_run() {
    d_bytes=$2
    d_seconds=$1
    shift 2
    {
        d_rc=$(
            {
                {
                    d_timed "$d_seconds" "$@" < /dev/null 3>&- 4>&-
                    printf '%s' $? >&3
                } | head -c "$d_bytes" >&4 3>&- 4>&-
            } 3>&1
        )
    } 4>&1
    d_frame r "$d_rc"
    d_mark
}

# What a group's shell starts with. The name comes on its input, where nobody
# can see it; d_r is called after each command.
# shellcheck disable=SC2016
d_inner='read -r d_name
exec < /dev/null
R=$1 RUN=
set -f
d_r() {
    printf "\n%s r %s\n" "$d_name" "$?"
    printf "\n%s .\n" "$d_name" >&2
}
'

# SECONDS BYTES TEXT: several commands that change nothing, each with a d_r
# after it, under one time limit and one limit of output: starting programs is
# what a batch costs. Those that are not answered are asked for again, alone.
d_group() {
    printf '%s\n' "$d_name" | d_timed "$1" sh -c "$d_inner$3" deploy "$d_root" | head -c "$2"
    d_frame G
    d_mark G
}

# SECONDS BYTES WORD...: a command that gets so many bytes of our input. What
# it leaves unread is thrown away, so that the next request is found.
d_exec() {
    d_seconds=$1
    d_bytes=$2
    shift 2
    if [ "$d_bytes" = 0 ]; then
        d_timed "$d_seconds" "$@" < /dev/null
        d_rc=$?
    else
        head -c "$d_bytes" | (
            d_timed "$d_seconds" "$@"
            d_rc=$?
            cat > /dev/null
            exit "$d_rc"
        )
        d_rc=$?
    fi
    d_frame x "$d_rc"
    d_mark
}

# FILE FOLDER: the calls that the last run left, if only we could write them.
d_remembered() {
    d_sure=no
    if [ -f "$1" ] && [ ! -L "$1" ] && [ ! -L "$2" ] && [ -O "$1" ] && [ -O "$2" ]; then
        d_sure=yes
        for d_line in $(stat -c %a "$1" "$2" < /dev/null) x; do
            case $d_line in
            x) ;;
            *[2367] | *[2367]?) d_sure=no ;;
            *[0145][0145]) ;;
            *) d_sure=no ;;
            esac
        done
    fi
    # shellcheck disable=SC1090
    if [ "$d_sure" = yes ]; then (. "$1"); fi
    d_frame m "$d_sure"
    d_mark
}

# TEXT: what the remembered calls answer, in the controller's own words.
d_note() {
    printf '%s' "$1"
    d_frame n
}

d_end() {
    d_frame end
    printf '\n%s end\n' "$d_name" >&2
}

printf '\n%s %s %s %s\n' "@@$d_token" hello "${d_name#@@}" "$d_noise"
if [ -n "$d_first" ]; then
    eval "$d_first"
    d_end
fi
while read -r d_size d_line; do
    case $d_size in
    x) eval "$d_line" ;;
    *)
        d_line=$(
            head -c "$d_size"
            printf x
        )
        eval "${d_line%x}"
        ;;
    esac
    d_end
done
