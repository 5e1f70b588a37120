# What the steps for Incus and LXD call. PROGRAM is `incus` or `lxc`, NOUN `profile` or
# `instance`; both are asked through the client's `query`, which takes and gives JSON. A PATCH
# touches only the settings and devices that it names; a setting that becomes empty goes.
#
# A word may hold @MIG/CARD/PROFILE/N@ where a MIG device is meant whose UUID was not known
# while planning: the N-th, from 0 and by UUID, of this profile on this card (or on any: `*`).

# incus_client PROGRAM WORD...: Incus' client makes itself a folder in the home where it has none
# yet, which is no change that anybody asked for.
# shellcheck disable=SC2030,SC2031 # each function is a subshell of its own
incus_client() (
    if [ "$1" = incus ] && [ ! -e "${INCUS_CONF:-${HOME:-/root}/.config/incus}" ]; then
        INCUS_CONF=$RUN/incus
        export INCUS_CONF
        # With a file there it greets nobody.
        mkdir -p "$INCUS_CONF" && : >>"$INCUS_CONF/config.yml" || exit
    fi
    "$@"
)

# incus_ask PROGRAM METHOD PATH [BODY]: asks the daemon, which is started where a boot has not
# come to it yet.
incus_ask() (
    program=$1 method=$2 path=$3
    shift 3
    tries=0
    while :; do
        status=0
        out=$(incus_client "$program" query --wait -X "$method" ${1+-d "$1"} "local:$path" 2>&1 </dev/null) || status=$?
        [ "$status" -ne 0 ] || break
        case $out in
        *'connect: '* | *'daemon'*'running'* | *'socket'*) ;;
        *) break ;;
        esac
        tries=$((tries + 1))
        [ "$tries" -le 30 ] || break
        if [ "$tries" -eq 1 ] && command -v systemctl >/dev/null; then
            case $program in
            incus) units='incus.socket incus.service' ;;
            *) units='lxd.socket lxd.service snap.lxd.daemon.unix.socket snap.lxd.daemon.service' ;;
            esac
            for unit in $units; do
                systemctl start --job-mode=ignore-dependencies "$unit" >/dev/null 2>&1 </dev/null || :
            done
        fi
        sleep 1
    done
    [ -z "$out" ] || printf '%s\n' "$out"
    exit "$status"
)

# incus_tell PROGRAM METHOD PATH [BODY]: the same where only a failure has something to say.
incus_tell() (
    out=$(incus_ask "$@") && exit 0
    printf '%s\n' "$1: $out" >&2
    exit 1
)

# incus_path NOUN PROJECT NAME
incus_path() { printf '/1.0/%ss/%s?project=%s' "$1" "$3" "$2"; }

# incus_fill WORD: the word with each MIG device that it means.
incus_fill() (
    word=$1
    while :; do
        case $word in
        *@MIG/*@*) ;;
        *) break ;;
        esac
        mark=${word#*@MIG/}
        mark=${mark%%@*}
        number=${mark##*/} rest=${mark%/*}
        profile=${rest#*/} card=${rest%%/*}
        uuid=$(nvidia-smi -L 2>/dev/null </dev/null | awk -v card="$card" -v profile="$profile" '
            /^GPU / { mine = card == "*" || index($0, "(UUID: " card ")") }
            mine && /^ +MIG / && $2 == profile && match($0, /UUID: MIG-[^)]*/) {
                print substr($0, RSTART + 6, RLENGTH - 6)
            }' | sort | awk -v number="$number" 'NR == number + 1')
        if [ -z "$uuid" ]; then
            printf '%s\n' "there is no MIG device $profile number $number on card $card" >&2
            exit 1
        fi
        word=${word%%@MIG/*}$uuid${word#*@MIG/"$mark"@}
    done
    printf '%s' "$word"
)

# incus_there PROGRAM NOUN PROJECT NAME, incus_gone …: whether there is one.
incus_there() { incus_tell "$1" GET "$(incus_path "$2" "$3" "$4")"; }

incus_gone() (
    out=$(incus_ask "$1" GET "$(incus_path "$2" "$3" "$4")") && {
        printf '%s\n' "$2 $4 of project $3 is there already" >&2
        exit 1
    }
    case $out in
    *'not found'*) exit 0 ;;
    esac
    printf '%s\n' "$1: $out" >&2
    exit 1
)

# incus_patch PROGRAM NOUN PROJECT NAME BODY
incus_patch() (
    body=$(incus_fill "$5") || exit 1
    incus_tell "$1" PATCH "$(incus_path "$2" "$3" "$4")" "$body"
)

# incus_make PROGRAM NOUN PROJECT NAME BODY: where it is not there yet.
incus_make() (
    incus_ask "$1" GET "$(incus_path "$2" "$3" "$4")" >/dev/null && exit 0
    body=$(incus_fill "$5") || exit 1
    incus_tell "$1" POST "/1.0/${2}s?project=$3" "$body"
)

# incus_remove PROGRAM NOUN PROJECT NAME: where it is there.
incus_remove() (
    incus_ask "$1" GET "$(incus_path "$2" "$3" "$4")" >/dev/null || {
        incus_gone "$1" "$2" "$3" "$4"
        exit
    }
    incus_tell "$1" DELETE "$(incus_path "$2" "$3" "$4")"
)

# incus_create PROGRAM PROJECT NAME IMAGE [OPTION...]: a stopped instance from an image.
# shellcheck disable=SC2031
incus_create() (
    program=$1 project=$2 name=$3 image=$4
    shift 4
    incus_ask "$program" GET "$(incus_path instance "$project" "$name")" >/dev/null && exit 0
    verb=create
    [ "$program" != lxc ] || verb=init
    # Its own list of image servers, which stands in the file that `incus_client` makes empty.
    if [ "$program" = incus ] && [ ! -e "${INCUS_CONF:-${HOME:-/root}/.config/incus}" ]; then
        INCUS_CONF=$RUN/incus-images
        export INCUS_CONF
    fi
    out=$("$program" "$verb" --project "$project" "$@" -- "$image" "local:$name" 2>&1 </dev/null) && exit 0
    printf '%s\n' "$program $verb: $out" >&2
    exit 1
)

# incus_noun NOUN: the words of the client for settings and devices of its kind.
incus_noun() { [ "$1" = profile ] && echo profile || echo config; }

# incus_no_device PROGRAM NOUN PROJECT NAME DEVICE BODY: takes a device away, then patches.
incus_no_device() (
    incus_there "$1" "$2" "$3" "$4" || exit 1
    noun=$(incus_noun "$2")
    devices=$(incus_client "$1" "$noun" device list "local:$4" --project "$3" 2>&1 </dev/null) || {
        printf '%s\n' "$1: $devices" >&2
        exit 1
    }
    if printf '%s\n' "$devices" | grep -qxF -e "$5"; then
        out=$(incus_client "$1" "$noun" device remove "local:$4" "$5" --project "$3" 2>&1 </dev/null) || {
            printf '%s\n' "$1: $out" >&2
            exit 1
        }
    fi
    incus_patch "$1" "$2" "$3" "$4" "$6"
)

# incus_device_is PROGRAM NOUN PROJECT NAME DEVICE [KEY=VALUE...]: exactly these keys; none if
# the device is not there.
incus_device_is() (
    program=$1 noun=$(incus_noun "$2") project=$3 name=$4 device=$5
    what="device $5 of $2 $4 (project $3)"
    incus_there "$1" "$2" "$3" "$4" || exit 1
    shift 5
    have=$(incus_client "$program" "$noun" device show "local:$name" --project "$project" 2>&1 </dev/null) || {
        printf '%s\n' "$program: $have" >&2
        exit 1
    }
    count=$(printf '%s\n' "$have" | awk -v device="$device" '
        /^[^ ]/ { name = $0; sub(/: *(\{\})?$/, "", name); gsub(/"/, "", name); mine = name == device; next }
        mine && /^  [^ ]/ { n++ }
        END { print n + 0 }')
    if [ "$count" -ne $# ]; then
        printf '%s\n' "$what: has $count keys, expected $#" >&2
        exit 1
    fi
    for word in "$@"; do
        word=$(incus_fill "$word") || exit 1
        key=${word%%=*}
        found=$(incus_client "$program" "$noun" device get "local:$name" "$device" "$key" --project "$project" 2>&1 </dev/null) || {
            printf '%s\n' "$program: $found" >&2
            exit 1
        }
        [ "$found" = "${word#*=}" ] && continue
        printf '%s\n' "$what: $key is ${found:-not set}, expected ${word#*=}" >&2
        exit 1
    done
)

# incus_config_is PROGRAM NOUN PROJECT NAME KEY VALUE: empty is not set.
incus_config_is() (
    incus_there "$1" "$2" "$3" "$4" || exit 1
    have=$(incus_client "$1" "$(incus_noun "$2")" get "local:$4" "$5" --project "$3" 2>&1 </dev/null) || {
        printf '%s\n' "$1: $have" >&2
        exit 1
    }
    # The shell takes the last line ends away, from what was wanted as from what is there.
    want=$(printf '%s\n' "$6")
    [ "$have" = "$want" ] && exit 0
    printf '%s\n' "$5 of $2 $4 (project $3) is ${have:-not set}, expected ${6:-not set}" >&2
    exit 1
)

# incus_secret PROGRAM NOUN PROJECT NAME KEY VALUE: a setting whose value no process has for an
# argument. What the client says of it may hold the value and is not told.
incus_secret() (
    incus_there "$1" "$2" "$3" "$4" || exit 1
    printf '%s' "$6" |
        incus_client "$1" "$(incus_noun "$2")" set "local:$4" "$5=-" --project "$3" >/dev/null 2>&1 && exit 0
    printf '%s\n' "$1 refuses the value for $5 of $2 $4 (project $3)" >&2
    exit 1
)

# incus_secret_is PROGRAM NOUN PROJECT NAME KEY VALUE: empty is not set.
incus_secret_is() (
    incus_config_is "$@" >/dev/null 2>&1 && exit 0
    printf '%s\n' "$5 of $2 $4 (project $3) is not what was expected" >&2
    exit 1
)

# incus_profiles_are PROGRAM PROJECT NAME [PROFILE...]: an instance's, in order.
incus_profiles_are() (
    answer=$(incus_ask "$1" GET "$(incus_path instance "$2" "$3")") || {
        printf '%s\n' "$1: $answer" >&2
        exit 1
    }
    name=$3
    have=$(printf '%s\n' "$answer" | awk '
        /^\t"profiles": \[/ { mine = !/\]/; next }
        mine && /^\t\]/ { mine = 0 }
        mine { gsub(/[\t", ]/, ""); printf "%s ", $0 }')
    shift 3
    [ "$have" = "${*:+$* }" ] && exit 0
    printf '%s\n' "instance $name has the profiles $have, expected $*" >&2
    exit 1
)

# incus_status PROGRAM PROJECT NAME: Running, Stopped, …
incus_status() (
    answer=$(incus_ask "$1" GET "$(incus_path instance "$2" "$3")") || {
        case $answer in
        *'not found'*) echo Gone && exit 0 ;;
        esac
        printf '%s\n' "$1: $answer" >&2
        exit 1
    }
    printf '%s\n' "$answer" | awk -F '"' '/^\t"status": / { print $4 }'
)

# incus_idle PROGRAM PROJECT NAME: nobody works with what an instance has.
incus_idle() (
    status=$(incus_status "$1" "$2" "$3") || exit 1
    case $status in
    Stopped | Gone) exit 0 ;;
    esac
    printf '%s\n' "instance $3 (project $2) is $status; stop it first: $1 stop $3 --project $2" >&2
    exit 1
)

# incus_profile_idle PROGRAM PROJECT NAME: the same of all that use a profile.
incus_profile_idle() (
    answer=$(incus_ask "$1" GET "$(incus_path profile "$2" "$3")") || {
        case $answer in
        *'not found'*) exit 0 ;;
        esac
        printf '%s\n' "$1: $answer" >&2
        exit 1
    }
    for path in $(printf '%s\n' "$answer" | awk -F '"' '/^\t\t"\/1.0\/instances\// { print $2 }'); do
        name=${path#/1.0/instances/}
        project=default
        case $name in
        *project=*) project=${name##*project=} ;;
        esac
        incus_idle "$1" "$project" "${name%%\?*}" || exit 1
    done
)

# incus_answers PROGRAM PROJECT NAME: a running container sees a GPU. Where the image has no
# tool that asks the driver, the device nodes tell. One that was stopped since is not asked.
incus_answers() (
    status=$(incus_status "$1" "$2" "$3") || exit 1
    [ "$status" = Running ] || exit 0
    # shellcheck disable=SC2016 # expanded in the container
    out=$(incus_client "$1" exec "local:$3" --project "$2" -- sh -c '
        command -v nvidia-smi >/dev/null && exec nvidia-smi -L
        for node in /dev/nvidia[0-9]* /dev/dri/renderD* /dev/kfd; do
            [ ! -e "$node" ] || exit 0
        done
        echo "it has no nvidia-smi, and neither /dev/nvidia* nor /dev/dri" >&2
        exit 1' 2>&1 </dev/null) && exit 0
    printf '%s\n' "instance $3 (project $2): $out" >&2
    exit 1
)
