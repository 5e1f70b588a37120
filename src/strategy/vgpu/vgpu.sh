# vGPUs of one card. Needs $R; use.sh and sysfs.sh stand before it. Sourced; POSIX sh.
#
# A vGPU is a word N=TYPE:UUID: the number of the virtual function that carries it, or `card`
# where the card itself does, the id of its type, and the UUID that it has where it is a
# mediated device. Which of the two kinds it is, the function shows once it exists.

# vgpu_functions PCI: `NUMBER ADDRESS` of each function that can carry a vGPU, one a line.
vgpu_functions() (
    device="$R/sys/bus/pci/devices/$1"
    if [ ! -e "$device/sriov_numvfs" ]; then
        printf 'card %s\n' "$1"
        exit 0
    fi
    # One process for all links.
    # shellcheck disable=SC2012
    LC_ALL=C ls -l "$device/" | sed -n 's|^l.* virtfn\([0-9]*\) -> .*/\([^/]*\)$|\1 \2|p'
)

# vgpu_list PCI: the vGPUs that exist, one word a line; - stands for no UUID.
vgpu_list() (
    vgpu_functions "$1" | while read -r number function; do
        device="$R/sys/bus/pci/devices/$function"
        if [ -e "$device/nvidia/current_vgpu_type" ]; then
            type=
            read -r type <"$device/nvidia/current_vgpu_type" || :
            [ "${type:-0}" = 0 ] || printf '%s=%s:-\n' "$number" "$type"
        fi
        for link in "$device"/*/mdev_type; do
            [ -h "$link" ] || continue
            type=$(readlink "$link")
            link=${link%/mdev_type}
            printf '%s=%s:%s\n' "$number" "${type##*nvidia-}" "${link##*/}"
        done
    done | LC_ALL=C sort
)

# vgpu_same WORD WORD: whether both are the same vGPU.
vgpu_same() {
    [ "${1%%:*}" = "${2%%:*}" ] || return 1
    case "${1#*:} ${2#*:}" in
    '- '* | *' -') return 0 ;;
    *) [ "${1#*:}" = "${2#*:}" ] ;;
    esac
}

# vgpu_among WORD WORD...: whether the first is one of the others.
vgpu_among() {
    one=$1
    shift
    for other in "$@"; do
        if vgpu_same "$one" "$other"; then return 0; fi
    done
    return 1
}

# vgpu_functions_are PCI: on, off, or - where the card has none.
vgpu_functions_are() (
    count=$(cat "$R/sys/bus/pci/devices/$1/sriov_numvfs" 2>/dev/null) || count=-
    case $count in
    - | '') echo - ;;
    0) echo off ;;
    *) echo on ;;
    esac
)

# vgpu_mode PCI: whether vGPUs of different framebuffer may share the card: 1, 0, or - where the
# driver has no such mode.
vgpu_mode() (
    out=$(nvidia-smi -q -i "$1" 2>&1 </dev/null) || {
        printf '%s\n' "GPU $1: the vGPU mode cannot be read: $out" >&2
        exit 1
    }
    case $(printf '%s\n' "$out" | sed -n 's/^ *vGPU Heterogeneous Mode *: *//p') in
    Enabled*) echo 1 ;;
    Disabled*) echo 0 ;;
    *) echo - ;;
    esac
)

# vgpu_is PCI FUNCTIONS MODE WORD...: succeeds if the card has exactly these vGPUs; FUNCTIONS is
# on or off, MODE 0 or 1, and - no matter for either.
vgpu_is() (
    pci=$1 functions=$2 mode=$3
    shift 3
    have=$(vgpu_list "$pci") || exit 1
    wrong=
    # shellcheck disable=SC2086
    for word in "$@"; do vgpu_among "$word" $have || wrong=yes; done
    for word in $have; do vgpu_among "$word" "$@" || wrong=yes; done
    if [ -n "$wrong" ]; then
        printf '%s\n' "GPU $pci: the vGPUs are [$(printf '%s' "$have" | tr '\n' ' ')], expected [$*]" >&2
        exit 1
    fi
    if [ "$functions" != - ] && [ "$(vgpu_functions_are "$pci")" != "$functions" ]; then
        printf '%s\n' "GPU $pci: its virtual functions are $(vgpu_functions_are "$pci"), expected $functions" >&2
        exit 1
    fi
    [ "$mode" = - ] && exit 0
    is=$(vgpu_mode "$pci") || exit 1
    # A driver without the mode takes vGPUs of one size only.
    if [ "$is" = "$mode" ] || [ "$is$mode" = -0 ]; then exit 0; fi
    printf '%s\n' "GPU $pci: vGPU heterogeneous mode is $is, expected $mode" >&2
    exit 1
)

# vgpu_function PCI NUMBER: the address of the function.
vgpu_function() (
    if [ "$2" = card ]; then
        printf '%s\n' "$1"
        exit 0
    fi
    target=$(readlink "$R/sys/bus/pci/devices/$1/virtfn$2" 2>/dev/null) || {
        printf '%s\n' "GPU $1: there is no virtual function $2" >&2
        exit 1
    }
    printf '%s\n' "${target##*/}"
)

# vgpu_free PCI WORD...: succeeds if no virtual machine uses one of these vGPUs.
vgpu_free() (
    pci=$1
    shift
    # shellcheck disable=SC2046
    set -- $(for word in $(vgpu_list "$pci"); do
        if vgpu_among "$word" "$@"; then printf '%s\n' "$word"; fi
    done)
    for word in "$@"; do
        function=$(vgpu_function "$pci" "${word%%=*}") || exit 1
        device="$R/sys/bus/pci/devices/$function"
        uuid=${word##*:}
        [ "$uuid" = - ] || device="$device/$uuid"
        vm=$(cat "$device/nvidia/vm_name" 2>/dev/null) || vm=
        if [ -n "$vm" ] && [ -z "${DEPLOY_AFTER_UNDO-}" ]; then
            printf '%s\n' "GPU $function is in use by the virtual machine $vm" >&2
            exit 1
        fi
        group=$(readlink "$device/iommu_group" 2>/dev/null) || continue
        gpu_idle "$function" "/dev/vfio/${group##*/}" || exit 1
    done
)

# vgpu_drop PCI WORD: takes a vGPU away that nobody uses.
vgpu_drop() (
    vgpu_free "$1" "$2" || exit 1
    function=$(vgpu_function "$1" "${2%%=*}") || exit 1
    device="$R/sys/bus/pci/devices/$function"
    uuid=${2##*:}
    if [ "$uuid" = - ]; then
        sysfs_write "$device/nvidia/current_vgpu_type" 0
    else
        sysfs_write "$device/$uuid/remove" 1
    fi || {
        printf '%s\n' "GPU $1: the vGPU $2 on $function cannot be taken away" >&2
        exit 1
    }
)

# vgpu_make PCI WORD: makes a vGPU in the way that the function shows.
vgpu_make() (
    function=$(vgpu_function "$1" "${2%%=*}") || exit 1
    type=${2#*=}
    uuid=${type#*:}
    type=${type%%:*}
    device="$R/sys/bus/pci/devices/$function"
    if [ -e "$device/mdev_supported_types/nvidia-$type" ]; then
        sysfs_write "$device/mdev_supported_types/nvidia-$type/create" "$uuid" && exit 0
        offer=$(grep -v ':0$' /dev/null "$device"/mdev_supported_types/*/available_instances |
            sed -n 's|.*/nvidia-\([0-9]*\)/available_instances.*|\1|p' | tr '\n' ' ')
    elif [ -e "$device/nvidia/current_vgpu_type" ]; then
        sysfs_write "$device/nvidia/current_vgpu_type" "$type" && exit 0
        offer=$(sed -n 's/^ *\([0-9][0-9]*\) *:.*/\1/p' "$device/nvidia/creatable_vgpu_types" | tr '\n' ' ')
    else
        printf '%s\n' "GPU $1: $function shows neither mdev_supported_types nor nvidia/current_vgpu_type; is the vGPU host driver running?" >&2
        exit 1
    fi
    printf '%s\n' "GPU $1: a vGPU of type $type cannot be made on $function; it takes now: ${offer:-none}" >&2
    exit 1
)

# vgpu_manage PCI SWITCH: virtual functions on (-e) or off (-d). The driver's lock is often held
# for a moment by whoever asks it something.
vgpu_manage() (
    case $2 in
    -e) want=on ;;
    *) want=off ;;
    esac
    tries=0
    while :; do
        status=0
        out=$("$R/usr/lib/nvidia/sriov-manage" "$2" "$1" 2>&1 </dev/null) || status=$?
        [ "$(vgpu_functions_are "$1")" = "$want" ] && exit 0
        tries=$((tries + 1))
        case $out in
        *unbindLock*) [ "$tries" -lt 20 ] || break ;;
        *) break ;;
        esac
        sleep 1
    done
    printf '%s\n' "GPU $1: sriov-manage $2 did not switch the virtual functions $want (status $status, tried $tries times): $out" >&2
    exit 1
)

# vgpu_set PCI MODE WORD...: exactly these vGPUs. Those that exist already are left alone.
vgpu_set() (
    pci=$1 mode=$2
    shift 2
    # After virtual functions were made the mode is 0.
    [ "$(vgpu_functions_are "$pci")" != off ] || [ $# -eq 0 ] || vgpu_manage "$pci" -e || exit 1
    is=-
    if [ "$mode" != - ]; then is=$(vgpu_mode "$pci") || exit 1; fi
    if [ "$is$mode" = -0 ]; then mode=-; fi
    for word in $(vgpu_list "$pci"); do
        if [ "$mode" = - ] || [ "$is" = "$mode" ]; then
            if vgpu_among "$word" "$@"; then continue; fi
        fi
        vgpu_drop "$pci" "$word" || exit 1
    done
    if [ "$mode" != - ] && [ "$is" != "$mode" ]; then
        status=0
        out=$(nvidia-smi vgpu -shm "$mode" -i "$pci" 2>&1 </dev/null) || status=$?
        if [ "$(vgpu_mode "$pci")" != "$mode" ]; then
            printf '%s\n' "GPU $pci: vGPU heterogeneous mode cannot be set to $mode (status $status): $out" >&2
            exit 1
        fi
    fi
    have=$(vgpu_list "$pci")
    for word in "$@"; do
        # shellcheck disable=SC2086
        vgpu_among "$word" $have || vgpu_make "$pci" "$word" || exit 1
    done
    vgpu_is "$pci" - "$mode" "$@"
)

# boot_vgpu PCI MODE WORD...: the vGPUs after a boot.
boot_vgpu() {
    vgpu_set "$@"
}
