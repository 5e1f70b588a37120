# Compute and memory partitions of AMD's cards, through sysfs. Needs $R; use.sh and sysfs.sh
# stand before it. Sourced; POSIX sh.

# partition_mode PCI compute|memory: the mode in force.
partition_mode() {
    cat "$R/sys/bus/pci/devices/$1/current_$2_partition"
}

# partition_is PCI COMPUTE MEMORY: succeeds if the card is in these modes; - is no matter.
partition_is() (
    for kind in compute memory; do
        case $kind in
        compute) want=$2 ;;
        *) want=$3 ;;
        esac
        [ "$want" != - ] || continue
        have=$(partition_mode "$1" "$kind") || exit 1
        [ "$have" != "$want" ] || continue
        printf '%s\n' "GPU $1: the $kind mode is $have, expected $want" >&2
        exit 1
    done
    exit 0
)

# partition_offers PCI compute|memory MODE: succeeds if the driver takes the mode now.
partition_offers() (
    list=$(cat "$R/sys/bus/pci/devices/$1/available_$2_partition" 2>/dev/null) || exit 0
    case ", $list," in
    *", $3,"*) exit 0 ;;
    esac
    printf '%s\n' "GPU $1: $2 mode $3 is not offered; there are $list" >&2
    exit 1
)

# partition_devices PCI COUNT: succeeds if the card has so many devices with a render node each.
partition_devices() (
    [ "$2" != - ] || exit 0
    found=0
    for minor in $(amd_nodes "$1"); do
        [ -e "$R/dev/dri/renderD$minor" ] && found=$((found + 1))
    done
    [ "$found" != "$2" ] || exit 0
    printf '%s\n' "GPU $1: $found of $2 partitions have a device node" >&2
    partition_room 64
    exit 1
)

# partition_room COUNT: succeeds if the kernel has so many render nodes for AMD's cards.
partition_room() (
    [ "$1" -ge 64 ] || exit 0
    if [ "$1" -gt 64 ]; then
        printf '%s\n' "$1 partitions need as many render nodes, and the kernel has 64 in all; cut fewer cards up, or into fewer parts" >&2
        exit 1
    fi
    [ -d "$R/sys/module/ast" ] || exit 0
    printf '%s\n' 'the kernel has 64 render nodes in all, and the driver ast (the display of the management controller) takes one of them: remove it first (modprobe -r ast) and keep it from being loaded' >&2
    exit 1
)

# partition_cards: the addresses of all cards of the driver amdgpu that have partition modes.
partition_cards() (
    for entry in "$R"/sys/bus/pci/drivers/amdgpu/*:*; do
        pci=${entry##*/}
        [ -e "$R/sys/bus/pci/devices/$pci/current_compute_partition" ] && echo "$pci"
    done
    exit 0
)

# partition_compute PCI MODE: sets the compute mode and reads it back.
partition_compute() (
    have=$(partition_mode "$1" compute) || exit 1
    if [ "$have" != "$2" ]; then
        partition_offers "$1" compute "$2" || exit 1
        if ! sysfs_write "$R/sys/bus/pci/devices/$1/current_compute_partition" "$2"; then
            printf '%s\n' "GPU $1: the driver refused compute mode $2; it does so while any process has /dev/kfd open, exporters and agents too" >&2
            exit 1
        fi
    fi
    partition_is "$1" "$2" -
)

# partition_reload: loads the driver anew. Whoever uses a card of it keeps it from that.
partition_reload() (
    for pci in $(partition_cards); do
        gpu_idle "$pci" || exit 1
    done
    # Without the module, a reload was cut short, and only its end is missing.
    if [ -d "$R/sys/module/amdgpu" ] && ! modprobe -r amdgpu </dev/null; then
        printf '%s\n' 'amdgpu cannot be removed, so the memory mode stays for now; a mode that was asked for takes effect whenever the driver is loaded next. What keeps it: lsmod, a display on the card, an exporter or agent (amd-metrics-exporter, gpuagent)' >&2
        exit 1
    fi
    if ! modprobe amdgpu </dev/null; then
        printf '%s\n' 'amdgpu was removed and cannot be loaded: AMD cards of this host are without a driver; see dmesg' >&2
        exit 1
    fi
    exit 0
)

# partition_wait PCI...: succeeds once the driver shows the cards again.
partition_wait() (
    for pci in "$@"; do
        tries=0
        until [ -e "$R/sys/bus/pci/devices/$pci/current_memory_partition" ]; do
            tries=$((tries + 1))
            if [ "$tries" -gt 60 ]; then
                printf '%s\n' "GPU $pci: amdgpu does not show it after it was loaded anew; see dmesg" >&2
                exit 1
            fi
            sleep 1
        done
    done
    exit 0
)

# partition_memory PCI MODE...: asks for memory modes, loads the driver anew where one
# differs, reads them back, and gives the other cards the compute modes that they had.
partition_memory() (
    pairs=$*
    cards=$(partition_cards)
    before=$(for pci in $cards; do echo "$pci $(partition_mode "$pci" compute)"; done)
    differs=
    while [ "$#" -ge 2 ]; do
        have=$(partition_mode "$1" memory) || exit 1
        if [ "$have" != "$2" ]; then
            partition_offers "$1" memory "$2" || exit 1
            differs=yes
        fi
        shift 2
    done
    [ -n "$differs" ] || exit 0
    # Nothing is asked for before it is clear that nobody is in the way: a request cannot be
    # taken back.
    for pci in $cards; do
        gpu_idle "$pci" || exit 1
    done
    # shellcheck disable=SC2086
    set -- $pairs
    while [ "$#" -ge 2 ]; do
        if ! sysfs_write "$R/sys/bus/pci/devices/$1/current_memory_partition" "$2"; then
            printf '%s\n' "GPU $1: the driver refused memory mode $2" >&2
            exit 1
        fi
        shift 2
    done
    partition_reload || exit 1
    # shellcheck disable=SC2086
    partition_wait $cards || exit 1
    # shellcheck disable=SC2086
    set -- $pairs
    while [ "$#" -ge 2 ]; do
        if ! partition_is "$1" - "$2"; then
            printf '%s\n' "GPU $1: the driver was loaded anew and took another memory mode than it was asked for: the firmware refused $2; see dmesg" >&2
            exit 1
        fi
        shift 2
    done
    printf '%s\n' "$before" | while read -r pci mode; do
        [ -n "$pci" ] || continue
        case " $pairs " in
        *" $pci "*) continue ;;
        esac
        partition_compute "$pci" "$mode" </dev/null || exit 1
    done
)

# boot_partition_memory PCI MODE: a memory mode after a boot.
boot_partition_memory() {
    partition_wait "$1" && partition_memory "$@"
}

# boot_partition_compute PCI MODE: a compute mode after a boot.
boot_partition_compute() {
    partition_wait "$1" && partition_compute "$@"
}
