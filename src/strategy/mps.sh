# NVIDIA's Multi-Process Service: one control daemon for each card or MIG device. Needs $R.
# Sourced; POSIX sh with awk.
#
# The pipes of a daemon lie in /run/deploy/mps/DEVICE, where DEVICE is the UUID of the card or
# MIG device, with `_` for `/`; beside them `settings` holds CARD DEVICE PERCENTAGE MIB: the
# card's UUID, the device's, the share of threads and the memory that a client may have (0: no
# limit). Sockets outlive a daemon that was killed: only one that answers counts as running.
# A daemon and its settings are one word: DEVICE:PERCENTAGE:MIB.

# mps_name DEVICE: its folder's and its unit's name.
mps_name() {
    case $1 in
    */*) printf '%s' "$1" | tr / _ ;;
    *) printf '%s' "$1" ;;
    esac
}

# mps_ask DEVICE COMMAND: what the daemon says to a command; fails where none runs.
mps_ask() (
    home=$R/run/deploy/mps/$(mps_name "$1")
    [ -d "$home" ] || exit 1
    printf '%s\n' "$2" | CUDA_MPS_PIPE_DIRECTORY=$home nvidia-cuda-mps-control 2>&1
)

# mps_word DEVICE: its daemon with the settings that it has; nothing where none runs.
mps_word() (
    percentage=$(mps_ask "$1" get_default_active_thread_percentage) || exit 0
    memory=0
    read -r _ _ _ memory <"$R/run/deploy/mps/$(mps_name "$1")/settings"
    case $percentage in
    '' | *[!0-9.]*)
        printf '%s\n' "MPS of $1: the control daemon says: $percentage" >&2
        exit 1
        ;;
    esac
    if [ "$memory" != 0 ]; then
        shown=$(mps_ask "$1" 'get_default_device_pinned_mem_limit 0') || exit 1
        case $shown in
        # From one GiB on it tells whole ones.
        [1-9]*G) [ "${shown%G}" = "$((memory / 1024))" ] || memory=$((${shown%G} * 1024)) ;;
        [1-9]*M) memory=${shown%M} ;;
        *)
            printf '%s\n' "MPS of $1: the control daemon says of the memory limit: $shown" >&2
            exit 1
            ;;
        esac
    fi
    printf '%s\n' "$1:${percentage%%.*}:$memory"
)

# mps_known CARD: the devices of a card for which there is a folder, one a line.
mps_known() (
    for file in "$R"/run/deploy/mps/*/settings; do
        [ -f "$file" ] || continue
        read -r card device _ <"$file"
        [ "$card" != "$1" ] || printf '%s\n' "$device"
    done
)

# mps_words CARD: the daemons that run on a card, one a line.
mps_words() (
    for device in $(mps_known "$1"); do
        mps_word "$device" || exit 1
    done
)

# mps_are CARD WORD...: succeeds if exactly these run on the card.
mps_are() (
    card=$1
    shift
    have=$(mps_words "$card") || exit 1
    have=$(printf '%s\n' "$have" | LC_ALL=C sort | tr '\n' ' ')
    want=$(printf '%s\n' "$@" | LC_ALL=C sort | tr '\n' ' ')
    [ "$have" = "$want" ] && exit 0
    printf '%s\n' "GPU $card: the MPS daemons are [${have% }], expected [${want% }]" >&2
    exit 1
)

# mps_end DEVICE: ends the daemon of a device, and what a killed one left.
mps_end() (
    name=$(mps_name "$1")
    mps_ask "$1" quit >/dev/null
    if [ -d "$R/run/systemd/system" ] && command -v systemctl >/dev/null 2>&1; then
        systemctl stop "deploy-mps-$name.service" >/dev/null 2>&1 </dev/null || :
    fi
    if mps_ask "$1" get_server_list >/dev/null; then
        printf '%s\n' "MPS of $1: the control daemon still answers" >&2
        exit 1
    fi
    rm -rf "$R/run/deploy/mps/$name"
)

# mps_begin CARD WORD: starts a daemon and gives it its settings, before any client comes.
mps_begin() (
    device=${2%%:*}
    memory=${2##*:}
    percentage=${2#*:}
    percentage=${percentage%:*}
    name=$(mps_name "$device")
    home=$R/run/deploy/mps/$name
    logs=$R/var/log/deploy-mps/$name
    # Clients are other users' processes.
    mkdir -p "$home" "$logs" &&
        chmod 755 "$R/run/deploy" "$R/run/deploy/mps" "$home" "$R/var/log/deploy-mps" "$logs" &&
        printf '%s\n' "$1 $device $percentage $memory" >"$home/settings" || exit 1
    status=0
    if [ -d "$R/run/systemd/system" ] && command -v systemd-run >/dev/null 2>&1; then
        # A unit of its own, so that it does not end with whoever starts it. It waits for
        # nothing, as it may be started while the host boots.
        systemctl reset-failed "deploy-mps-$name.service" >/dev/null 2>&1 </dev/null || :
        said=$(systemd-run --quiet --collect --unit="deploy-mps-$name" \
            --description="MPS of $device" --property=Type=forking \
            --property=DefaultDependencies=no --property=Conflicts=shutdown.target \
            --property=Before=shutdown.target --setenv=CUDA_VISIBLE_DEVICES="$device" \
            --setenv=CUDA_MPS_PIPE_DIRECTORY="$home" --setenv=CUDA_MPS_LOG_DIRECTORY="$logs" \
            nvidia-cuda-mps-control -d 2>&1 </dev/null) || status=$?
    else
        said=$(CUDA_VISIBLE_DEVICES=$device CUDA_MPS_PIPE_DIRECTORY=$home \
            CUDA_MPS_LOG_DIRECTORY=$logs nvidia-cuda-mps-control -d 2>&1 </dev/null) || status=$?
    fi
    left=50
    while [ "$status" -eq 0 ] && ! mps_ask "$device" get_server_list >/dev/null; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || status=1
        sleep 0.2 2>/dev/null || sleep 1
    done
    if [ "$status" -ne 0 ]; then
        printf '%s\n' "MPS of $device: the control daemon does not start: $said $(tail -n 3 "$logs/control.log" 2>/dev/null)" >&2
        exit 1
    fi
    [ "$percentage" = 100 ] ||
        said=$(mps_ask "$device" "set_default_active_thread_percentage $percentage") || status=$?
    [ "$memory" = 0 ] ||
        said=$(mps_ask "$device" "set_default_device_pinned_mem_limit 0 ${memory}M") || status=$?
    have=$(mps_word "$device") || exit 1
    if [ "$status" -ne 0 ] || [ "$have" != "$2" ]; then
        printf '%s\n' "MPS of $device is [$have], expected [$2]: $said" >&2
        exit 1
    fi
)

# mps_make CARD WORD...: makes the daemons of a card exactly these. One whose settings are as
# wanted goes on.
mps_make() (
    card=$1
    shift
    for device in $(mps_known "$card"); do
        have=$(mps_word "$device") || have=
        keep=
        for word in "$@"; do
            [ "$word" = "$have" ] && keep=1
        done
        [ -n "$keep" ] || mps_end "$device" || exit 1
    done
    for word in "$@"; do
        have=$(mps_word "${word%%:*}") || exit 1
        [ "$have" = "$word" ] || mps_begin "$card" "$word" || exit 1
    done
    mps_are "$card" "$@"
)

# mps_back CARD WORD...: the same for an undo. What runs on a device that is not there yet
# comes with the undo that brings the device back.
mps_back() (
    card=$1
    shift
    listed=$(nvidia-smi -L 2>/dev/null </dev/null)
    there=
    for word in "$@"; do
        case ${word%%:*} in
        "$card") [ "$(mig_mode_of "$card" 2>/dev/null)" = 'Enabled Enabled' ] && continue ;;
        *) case $listed in *"${word%%:*}"*) ;; *) continue ;; esac ;;
        esac
        there="$there $word"
    done
    # shellcheck disable=SC2086
    mps_make "$card" $there
)

# mps_slices CARD PERCENTAGE MIB: a word for each MIG device of the card.
mps_slices() (
    status=0
    out=$(nvidia-smi -L 2>&1 </dev/null) || status=$?
    words=$(printf '%s\n' "$out" | awk -v card="(UUID: $1)" -v rest=":$2:$3" '
        /^GPU / { mine = index($0, card) }
        mine && /^ +MIG / && match($0, /UUID: MIG-[^)]*/) { print substr($0, RSTART + 6, RLENGTH - 6) rest }')
    if [ "$status" -ne 0 ] || [ -z "$words" ]; then
        printf '%s\n' "GPU $1: there is no MIG device for MPS (status $status): $out" >&2
        exit 1
    fi
    printf '%s\n' "$words"
)

# mps_fill CARD PERCENTAGE MIB, mps_filled CARD PERCENTAGE MIB: such a daemon on each MIG device.
mps_fill() (
    words=$(mps_slices "$@") || exit 1
    # shellcheck disable=SC2086
    mps_make "$1" $words
)

mps_filled() (
    words=$(mps_slices "$@") || exit 1
    # shellcheck disable=SC2086
    mps_are "$1" $words
)

# compute_mode_of GPU: Default, Exclusive_Process, Exclusive_Thread or Prohibited.
compute_mode_of() (
    status=0
    out=$(nvidia-smi -i "$1" --query-gpu=compute_mode --format=csv,noheader 2>&1 </dev/null) || status=$?
    case $status,$out in
    0,Default | 0,Exclusive_Process | 0,Exclusive_Thread | 0,Prohibited) printf '%s\n' "$out" ;;
    *)
        printf '%s\n' "GPU $1: the compute mode cannot be read (status $status): $out" >&2
        exit 1
        ;;
    esac
)

# compute_mode_is GPU WORD, compute_mode_set GPU WORD
compute_mode_is() (
    have=$(compute_mode_of "$1") || exit 1
    [ "$have" = "$2" ] && exit 0
    printf '%s\n' "GPU $1: the compute mode is $have, expected $2" >&2
    exit 1
)

compute_mode_set() (
    have=$(compute_mode_of "$1") || exit 1
    [ "$have" = "$2" ] && exit 0
    case $2 in
    Exclusive_Thread) mode=1 ;;
    Prohibited) mode=2 ;;
    Exclusive_Process) mode=3 ;;
    *) mode=0 ;;
    esac
    # Its status says little: a mode that the card does not take is a warning.
    out=$(nvidia-smi -i "$1" -c "$mode" 2>&1 </dev/null) || :
    compute_mode_is "$1" "$2" && exit 0
    printf '%s\n' "$out" >&2
    exit 1
)

# boot_mps GPU whole|mig PERCENTAGE MIB: the daemons of a card after a boot.
boot_mps() {
    case $2 in
    mig) mps_fill "$1" "$3" "$4" ;;
    *) compute_mode_set "$1" Exclusive_Process && mps_make "$1" "$1:$3:$4" ;;
    esac
}
