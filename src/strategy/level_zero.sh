# Compute engines of Intel's tiles. sysfs.sh and by_sysfs.sh stand before it. Sourced; POSIX sh.

# ccs_units PCI FUNCTION ARGUMENT...: calls FUNCTION FOLDER MODE for each graphics unit that has
# several compute slices, with the arguments in turn; the last is for all that are left.
ccs_units() {
    device="$R/sys/bus/pci/devices/$1" function=$2 found=
    shift 2
    for unit in "$device"/tile*/gt* "$device"/drm/card*/gt/gt*; do
        slices=1
        [ -e "$unit/ccs_mode" ] || continue
        { read -r slices <"$unit/num_cslices"; } 2>/dev/null
        [ "${slices:-1}" -gt 1 ] || continue
        "$function" "$unit" "$1" || return 1
        found=yes
        if [ $# -gt 1 ]; then shift; fi
    done
    [ -z "$found" ] || return 0
    printf '%s\n' "${device##*/} shows no compute engines that could be shared" >&2
    return 1
}

# ccs_unit_is FOLDER MODE
ccs_unit_is() {
    mode=$(cat "$1/ccs_mode") || return 1
    [ "$mode" = "$2" ] && return 0
    printf '%s\n' "$1 has $mode compute engines, expected $2" >&2
    return 1
}

# ccs_unit_set FOLDER MODE: the driver refuses while the card is open, and as an SR-IOV physical
# function.
ccs_unit_set() {
    mode=$(cat "$1/ccs_mode") || return 1
    if [ "$mode" != "$2" ]; then
        sysfs_write "$1/ccs_mode" "$2" || {
            printf '%s\n' "$1/ccs_mode did not take $2: somebody uses the card, or its driver is an SR-IOV physical function" >&2
            return 1
        }
    fi
    ccs_unit_is "$1" "$2"
}

# ccs_is PCI MODE...: succeeds if the units have these modes.
ccs_is() (
    pci=$1
    shift
    ccs_units "$pci" ccs_unit_is "$@"
)

# ccs_set PCI MODE...: sets them.
ccs_set() (
    pci=$1
    shift
    ccs_units "$pci" ccs_unit_set "$@"
)

# boot_ccs PCI MODE: the same after a boot, when the driver may still be on its way.
boot_ccs() {
    sysfs_settled "$R/sys/bus/pci/devices/$1/drm" || :
    ccs_set "$@"
}
