# The way back to the virtual functions of Intel's cards that were before, for runs. intel.sh
# and by_sysfs_undo.sh stand before it. Sourced; POSIX sh.

# intel_shares_text PCI: all that is set, a line a file: `share NAME VALUE`, `auto VALUE`.
intel_shares_text() (
    base=$(intel_base "$1") || exit 0
    intel_value "$base/pf/auto_provisioning"
    printf 'auto %s\n' "${value:--}"
    intel_value "$base/pf/profile/sched_priority"
    printf 'pf %s\n' "${value:--}"
    intel_value "$base/vf1/profile/sched_priority"
    printf 'priority %s\n' "${value:--}"
    for folder in "$base"/vf*/profile "$base"/vf*/gt* "$base"/gt*/vf*; do
        [ -d "$folder" ] || continue
        for name in vram_quota lmem_quota ggtt_quota contexts_quota doorbells_quota \
            exec_quantum_ms preempt_timeout_us; do
            intel_value "$folder/$name"
            case $value in
            '' | 0) ;;
            *) printf 'share %s %s\n' "${folder#"$base"/}/$name" "$value" ;;
            esac
        done
    done
)

# intel_sriov_save PCI FILE: the functions with their drivers, and what they were given.
intel_sriov_save() {
    sriov_save "$1" "$2" && intel_shares_text "$1" >"$2.shares"
}

# intel_shares_put PCI FILE WHICH: writes what was saved while there are no functions; with
# WHICH times only what does not say how the card is divided.
intel_shares_put() (
    base=$(intel_base "$1") || exit 0
    while read -r what name value <&3; do
        case $what,$3,$name in
        priority,*,- | pf,*,-) ;;
        priority,*)
            word=$name
            intel_value "$base/vf1/profile/sched_priority"
            if [ "$value" != "$word" ]; then
                intel_write "$base/.bulk_profile/sched_priority" "$word" || exit 1
            fi
            ;;
        share,times,*_quota) ;;
        share,*) intel_write "$base/$name" "$value" || exit 1 ;;
        esac
    done 3<"$2.shares"
    # All functions have the same priority but the card itself, which may have another.
    saved=$(sed -n 's/^pf //p' "$2.shares")
    intel_value "$base/pf/profile/sched_priority"
    if [ "${saved:--}" != - ] && [ "$saved" != "$value" ]; then
        intel_write "$base/pf/profile/sched_priority" "$saved" || exit 1
    fi
    exit 0
)

# intel_sriov_restore PCI FILE: the same functions with the same shares again. Where the driver
# had divided the card by itself it does so again: it gives more than a share has files for.
intel_sriov_restore() (
    if [ ! -f "$2" ] || [ ! -f "$2.shares" ]; then
        printf '%s\n' "GPU $1: there are no saved virtual functions at $2" >&2
        exit 1
    fi
    saved=$(cat "$2.shares")
    read -r _ count probe <"$2"
    device="$R/sys/bus/pci/devices/$1"
    have=$(cat "$device/sriov_numvfs") || exit 1
    if [ "$have" != "$count" ] || [ "$(intel_shares_text "$1")" != "$saved" ]; then
        which='times'
        case $saved in
        'auto 0'*) which=all ;;
        esac
        while :; do
            if [ "$(cat "$device/sriov_numvfs")" != 0 ]; then
                sriov_unused "$1" || exit 1
                intel_write "$device/sriov_numvfs" 0 || exit 1
            fi
            intel_clear "$1" || exit 1
            intel_shares_put "$1" "$2" "$which" || exit 1
            sriov_set "$1" "$count" "$probe" || exit 1
            [ "$(intel_shares_text "$1")" != "$saved" ] || break
            [ "$which" = times ] || {
                printf '%s\n' "GPU $1: the shares of its virtual functions are not what they were; they stand in $2.shares" >&2
                exit 1
            }
            which=all
        done
    fi
    sriov_restore "$1" "$2"
)
