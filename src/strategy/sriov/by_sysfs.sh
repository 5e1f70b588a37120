# Virtual functions through sysfs. Needs $R; use.sh and sysfs.sh stand before it.
# Sourced; POSIX sh.

# sriov_is PCI COUNT PROBE: succeeds if the card has so many virtual functions; PROBE is
# 0 or 1 for whether the kernel binds drivers to new ones, or - for no matter.
sriov_is() (
    device="$R/sys/bus/pci/devices/$1"
    have=$(cat "$device/sriov_numvfs") || exit 1
    links=0
    for link in "$device"/virtfn*; do
        if [ -e "$link" ] || [ -h "$link" ]; then
            links=$((links + 1))
        fi
    done
    if [ "$have" != "$2" ] || [ "$links" != "$2" ]; then
        printf '%s\n' "GPU $1: has $have virtual functions ($links to be seen), expected $2" >&2
        exit 1
    fi
    [ "$3" = - ] && exit 0
    probe=$(cat "$device/sriov_drivers_autoprobe") || exit 1
    [ "$probe" = "$3" ] && exit 0
    printf '%s\n' "GPU $1: sriov_drivers_autoprobe is $probe, expected $3" >&2
    exit 1
)

# sriov_unused PCI: succeeds if nobody uses one of the card's virtual functions.
sriov_unused() (
    for link in "$R/sys/bus/pci/devices/$1"/virtfn*; do
        target=$(readlink "$link" 2>/dev/null) || continue
        gpu_idle "${target##*/}" || exit 1
    done
    exit 0
)

# sriov_has PCI VF...: succeeds if these PCI addresses are among the card's virtual functions.
sriov_has() (
    pci=$1
    shift
    for vf in "$@"; do
        found=
        for link in "$R/sys/bus/pci/devices/$pci"/virtfn*; do
            target=$(readlink "$link" 2>/dev/null) || continue
            [ "${target##*/}" = "$vf" ] && found=1
        done
        [ -n "$found" ] && continue
        printf '%s\n' "GPU $pci: $vf is none of its virtual functions" >&2
        exit 1
    done
    exit 0
)

# sriov_driver PCI: succeeds once a driver is bound to the card: without one the kernel has
# nobody to ask for functions. Early in a boot udev is still loading it.
sriov_driver() (
    driver="$R/sys/bus/pci/devices/$1/driver"
    sysfs_settled "$driver" && exit 0
    printf '%s\n' "GPU $1: no kernel driver is bound to it, so it can have no virtual functions" >&2
    exit 1
)

# sriov_set PCI COUNT PROBE: the kernel takes another number only by way of 0, and looks
# at sriov_drivers_autoprobe when the functions appear.
sriov_set() (
    device="$R/sys/bus/pci/devices/$1"
    have=$(cat "$device/sriov_numvfs") || exit 1
    if [ "$have" != "$2" ]; then sriov_driver "$1" || exit 1; fi
    if [ "$have" != "$2" ] && [ "$have" != 0 ]; then
        sriov_unused "$1" || exit 1
        sysfs_write "$device/sriov_numvfs" 0 || exit 1
    fi
    if [ "$3" != - ] && [ "$(cat "$device/sriov_drivers_autoprobe")" != "$3" ]; then
        sysfs_write "$device/sriov_drivers_autoprobe" "$3" || exit 1
    fi
    if [ "$have" != "$2" ] && [ "$2" != 0 ]; then
        sysfs_write "$device/sriov_numvfs" "$2" || exit 1
    fi
    sriov_is "$1" "$2" "$3"
)

# boot_sriov PCI COUNT PROBE: virtual functions after a boot.
boot_sriov() {
    sriov_set "$@"
}
