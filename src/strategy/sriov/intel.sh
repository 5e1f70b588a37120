# Virtual functions of Intel's cards, and the share that each gets. by_sysfs.sh stands before
# it. Sourced; POSIX sh.
#
# A share is MEMORY QUANTUM TIMEOUT PRIORITY: device memory in MiB, turn in milliseconds, time
# to give way in microseconds, low or normal; - leaves one to the driver.

# intel_base PCI: the folder in which the card's driver takes shares.
intel_base() (
    device="$R/sys/bus/pci/devices/$1"
    for base in "$device/sriov_admin" "$device"/drm/card*/prelim_iov "$device"/drm/card*/iov; do
        if [ -d "$base/pf" ]; then
            printf '%s\n' "$base"
            exit 0
        fi
    done
    base="$R/sys/kernel/debug/dri/$1"
    if [ -d "$base/gt0/pf" ]; then
        printf '%s\n' "$base"
        exit 0
    fi
    exit 1
)

# intel_value FILE: what stands in it, in brackets or alone; nothing where it is not there.
intel_value() {
    value=
    [ -e "$1" ] || return 0
    { read -r value <"$1"; } 2>/dev/null
    case $value in
    *'['*']'*)
        value=${value#*'['}
        value=${value%%']'*}
        ;;
    esac
}

# intel_write FILE VALUE: says which file refused.
intel_write() {
    sysfs_write "$1" "$2" && return 0
    printf '%s\n' "$1 did not take $2" >&2
    return 1
}

# intel_sum A OPERATOR B [PAGE]: numbers of bytes, which not every shell can count; rounded down
# to whole pages.
intel_sum() {
    awk -v a="$1" -v op="$2" -v b="$3" -v page="${4:-1}" 'BEGIN {
        n = op == "+" ? a + b : op == "*" ? a * b : int(a / b)
        printf "%.0f\n", int(n / page) * page
    }'
}

# intel_share_of BASE FUNCTION: BYTES:QUANTUM:TIMEOUT:PRIORITY in $share; memory is summed over
# tiles, and - stands for what is not told.
intel_share_of() {
    bytes=- quantum=- timeout=- priority=-
    for folder in "$1/vf$2/profile" "$1/vf$2"/gt* "$1"/gt*/"vf$2"; do
        [ -d "$folder" ] || continue
        for file in "$folder/vram_quota" "$folder/lmem_quota"; do
            intel_value "$file"
            [ -n "$value" ] || continue
            [ "$bytes" != - ] || bytes=0
            if [ "$value" != 0 ]; then bytes=$(intel_sum "$bytes" + "$value"); fi
        done
        intel_value "$folder/exec_quantum_ms"
        if [ -n "$value" ]; then
            if [ "$quantum" = - ] || [ "$value" -gt "$quantum" ]; then quantum=$value; fi
        fi
        intel_value "$folder/preempt_timeout_us"
        if [ -n "$value" ]; then
            if [ "$timeout" = - ] || [ "$value" -gt "$timeout" ]; then timeout=$value; fi
        fi
        # debugfs has numbers, of which no document says what they mean.
        case $folder in
        */profile) intel_value "$folder/sched_priority" ;;
        *) value= ;;
        esac
        [ -z "$value" ] || priority=$value
    done
    share=$bytes:$quantum:$timeout:$priority
}

# intel_shares_are PCI FUNCTION:BYTES:QUANTUM:TIMEOUT:PRIORITY...: succeeds if all is so.
intel_shares_are() (
    pci=$1
    shift
    base=$(intel_base "$pci") || exit 1
    for wanted in "$@"; do
        intel_share_of "$base" "${wanted%%:*}"
        [ "${wanted#*:}" = "$share" ] && continue
        printf '%s\n' "GPU $pci: virtual function ${wanted%%:*} has $share, expected ${wanted#*:} (bytes:turn:timeout:priority)" >&2
        exit 1
    done
    exit 0
)

# intel_has_share PCI BASE FUNCTION SHARE...: succeeds if the function has it; drivers round
# memory up to whole pages of at most 2 MiB.
intel_has_share() {
    intel_share_of "$2" "$3"
    if [ "$4" != - ]; then
        awk -v have="$bytes" -v mib="$4" 'BEGIN {
            least = mib * 1048576
            exit !(have != "-" && have + 0 >= least && have + 0 < least + 2097152)
        }' || {
            printf '%s\n' "GPU $1: virtual function $3 has $bytes bytes of memory, expected $4 MiB" >&2
            return 1
        }
    fi
    intel_is "$1" "$3" 'a turn of' "$quantum" "$5" &&
        intel_is "$1" "$3" 'a timeout of' "$timeout" "$6" &&
        intel_is "$1" "$3" priority "$priority" "$7"
}

# intel_is PCI FUNCTION WHAT HAVE WANTED: - is wanted where it does not matter.
intel_is() {
    [ "$5" != - ] && [ "$5" != "$4" ] || return 0
    printf '%s\n' "GPU $1: virtual function $2 has $3 $4, expected $5" >&2
    return 1
}

# intel_given PCI COUNT SHARE...: succeeds if each of the first COUNT functions has the share.
intel_given() (
    base=$(intel_base "$1") || exit 1
    pci=$1 count=$2
    shift 2
    n=1
    while [ "$n" -le "$count" ]; do
        intel_has_share "$pci" "$base" "$n" "$@" || exit 1
        n=$((n + 1))
    done
    exit 0
)

# intel_part FILE LEFT PAGE: an equal part of what is free for as many as are left.
intel_part() {
    intel_value "$1"
    intel_sum "${value:-0}" / "$2" "$3"
}

# intel_give_memory FOLDER MEMORY PARTS LEFT AVAILABLE: a function's memory on one unit. i915
# divides nothing by itself once a quota was written, so that all of them have to be.
intel_give_memory() {
    bytes=$(intel_sum "$(intel_sum "$2" '*' 1048576)" / "$3")
    if [ -e "$1/vram_quota" ]; then
        intel_write "$1/vram_quota" "$bytes"
        return
    fi
    [ -e "$1/lmem_quota" ] || return 0
    [ -d "$5" ] || {
        intel_write "$1/lmem_quota" "$bytes"
        return
    }
    contexts=$(intel_part "$5/contexts_free" "$4" 1)
    # As many as the vendor's profiles give.
    if [ "$contexts" -gt 1024 ]; then contexts=1024; fi
    intel_write "$1/lmem_quota" "$bytes" &&
        intel_write "$1/ggtt_quota" "$(intel_part "$5/ggtt_free" "$4" 4096)" &&
        intel_write "$1/doorbells_quota" "$(intel_part "$5/doorbells_free" "$4" 1)" &&
        intel_write "$1/contexts_quota" "$contexts"
}

# intel_give PCI COUNT SHARE...: writes the share of the first COUNT functions. On a card of
# several tiles a function lies on one of them, in turn, and a single one on all.
intel_give() (
    [ "$3$4$5$6" != ---- ] || exit 0
    base=$(intel_base "$1") || {
        printf '%s\n' "GPU $1: its driver takes no shares of virtual functions" >&2
        exit 1
    }
    count=$2 memory=$3 quantum=$4 timeout=$5 priority=$6
    units=0
    for unit in "$base"/pf/gt*; do
        if [ -d "$unit" ]; then units=$((units + 1)); fi
    done
    spread=
    if [ "$units" -gt 1 ] && [ "$count" -gt 1 ]; then spread=yes; fi
    parts=1
    if [ "$units" -gt 1 ] && [ -z "$spread" ]; then parts=$units; fi
    n=1
    while [ "$n" -le "$count" ]; do
        left=$((count - n + 1))
        if [ -n "$spread" ]; then left=$(((count - n) / units + 1)); fi
        at=0
        for folder in "$base/vf$n/profile" "$base/vf$n"/gt* "$base"/gt*/"vf$n"; do
            [ -d "$folder" ] || continue
            if [ -n "$spread" ] && [ $((n % units)) -ne "$at" ]; then
                at=$((at + 1))
                continue
            fi
            at=$((at + 1))
            if [ "$memory" != - ]; then
                intel_give_memory "$folder" "$memory" "$parts" "$left" \
                    "$base/pf/${folder##*/}/available" || exit 1
            fi
            if [ "$quantum" != - ]; then
                intel_write "$folder/exec_quantum_ms" "$quantum" || exit 1
            fi
            if [ "$timeout" != - ]; then
                intel_write "$folder/preempt_timeout_us" "$timeout" || exit 1
            fi
        done
        n=$((n + 1))
    done
    if [ "$priority" != - ]; then
        # The firmware takes one priority for all functions.
        intel_write "$base/.bulk_profile/sched_priority" "$priority" || exit 1
    fi
    exit 0
)

# intel_clear PCI: takes all shares back and leaves them to the driver again. Only where there
# are no functions; xe has forgotten them then, and i915 has not.
intel_clear() (
    base=$(intel_base "$1") || exit 0
    for folder in "$base"/vf*/profile "$base"/vf*/gt* "$base"/gt*/vf*; do
        [ -d "$folder" ] || continue
        for name in vram_quota lmem_quota ggtt_quota contexts_quota doorbells_quota \
            exec_quantum_ms preempt_timeout_us; do
            intel_value "$folder/$name"
            case $value in
            '' | 0) ;;
            *) intel_write "$folder/$name" 0 || exit 1 ;;
            esac
        done
    done
    intel_value "$base/vf1/profile/sched_priority"
    case $value in
    '' | low) ;;
    *) intel_write "$base/.bulk_profile/sched_priority" low || exit 1 ;;
    esac
    intel_value "$base/pf/auto_provisioning"
    case $value in
    0) intel_write "$base/pf/auto_provisioning" 1 || exit 1 ;;
    esac
    exit 0
)

# intel_sriov_set PCI COUNT PROBE SHARE...: shares first, then whether drivers are bound, then
# the number: the kernel looks at both when the functions appear. Turns can be changed while
# functions run; for other memory they have to go first.
intel_sriov_set() (
    pci=$1 count=$2 probe=$3
    shift 3
    device="$R/sys/bus/pci/devices/$pci"
    # Early in a boot the driver may still be on its way to make the folders of shares.
    sriov_driver "$pci" || exit 1
    sysfs_settled "$device/drm" || :
    have=$(cat "$device/sriov_numvfs") || exit 1
    keep=
    if [ "$have" = "$count" ] && [ "$have" != 0 ]; then
        if [ "$1" = - ] || intel_given "$pci" "$count" "$1" - - - 2>/dev/null; then keep=yes; fi
    fi
    if [ -n "$keep" ]; then
        intel_given "$pci" "$count" - "$2" "$3" "$4" 2>/dev/null ||
            intel_give "$pci" "$count" - "$2" "$3" "$4" || exit 1
    else
        if [ "$have" != 0 ]; then
            sriov_unused "$pci" || exit 1
            intel_write "$device/sriov_numvfs" 0 || exit 1
        fi
        intel_clear "$pci" || exit 1
        if [ "$count" != 0 ]; then intel_give "$pci" "$count" "$@" || exit 1; fi
    fi
    sriov_set "$pci" "$count" "$probe" || exit 1
    [ "$count" != 0 ] && [ "$*" != '- - - -' ] || exit 0
    intel_given "$pci" "$count" "$@"
)

# boot_intel_sriov PCI COUNT PROBE SHARE...: the same after a boot.
boot_intel_sriov() {
    intel_sriov_set "$@"
}
