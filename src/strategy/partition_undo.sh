# The way back to the partitions that were before, for runs. partition.sh stands before it.
# Needs $R. Sourced; POSIX sh.

# partition_save FILE: the modes and the hive of all cards.
partition_save() (
    for pci in $(partition_cards); do
        compute=$(partition_mode "$pci" compute) || exit 1
        memory=$(partition_mode "$pci" memory 2>/dev/null) || memory=-
        printf '%s %s %s\n' "$pci" "$compute" "${memory:--}"
    done >"$1"
)

# partition_whole_hive PCI...: succeeds if no other card is in a hive with one of these, as its
# memory mode would change with theirs.
partition_whole_hive() (
    named=" $* "
    for pci in "$@"; do
        hive=$(cat "$R/sys/bus/pci/devices/$pci/xgmi_hive_info/xgmi_hive_id" 2>/dev/null) || continue
        [ "${hive:-0}" != 0 ] || continue
        for other in $(partition_cards); do
            case $named in
            *" $other "*) continue ;;
            esac
            theirs=$(cat "$R/sys/bus/pci/devices/$other/xgmi_hive_info/xgmi_hive_id" 2>/dev/null)
            [ "$theirs" = "$hive" ] || continue
            printf '%s\n' "GPU $other is in one XGMI hive with GPU $pci and would change its memory mode too; give it the same" >&2
            exit 1
        done
    done
    exit 0
)

# partition_saved FILE: fails if there is no such file.
partition_saved() {
    [ -f "$1" ] && return 0
    printf '%s\n' "there are no saved partitions at $1" >&2
    return 1
}

# partition_restore FILE: memory modes as they were, by way of a reload where one differs, and
# then all compute modes.
partition_restore() (
    partition_saved "$1" || exit 1
    # A reload that was cut short has left the cards without a driver.
    if [ ! -d "$R/sys/module/amdgpu" ]; then
        modprobe amdgpu </dev/null || exit 1
        while read -r pci _ <&3; do partition_wait "$pci" || exit 1; done 3<"$1"
    fi
    pairs=
    while read -r pci _ memory <&3; do
        [ "$memory" != - ] || continue
        have=$(partition_mode "$pci" memory) || exit 1
        [ "$have" = "$memory" ] || pairs="$pairs $pci $memory"
    done 3<"$1"
    if [ -n "$pairs" ]; then
        # shellcheck disable=SC2086
        partition_memory $pairs || exit 1
    fi
    while read -r pci compute _ <&3; do
        partition_compute "$pci" "$compute" || exit 1
    done 3<"$1"
)

# partition_restore_one PCI FILE with-memory|alone: this card's compute mode as it was. While the
# memory mode is another, the old compute mode may not be offered: either the step that changed
# the memory mode brings both back, or there is none and it is done here.
partition_restore_one() (
    partition_saved "$2" || exit 1
    if [ -d "$R/sys/module/amdgpu" ]; then
        while read -r pci compute memory <&3; do
            [ "$pci" = "$1" ] || continue
            have=$(partition_mode "$pci" memory 2>/dev/null) || have=-
            if [ "$have" = "$memory" ]; then
                partition_compute "$pci" "$compute"
                exit
            fi
        done 3<"$2"
    fi
    [ "$3" = alone ] || exit 0
    partition_restore "$2"
)
