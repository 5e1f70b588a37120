# Writes to sysfs, and virtual functions through it. Needs $R; use.sh stands
# before it. Sourced; POSIX sh.

# sysfs_write PATH VALUE: one write of the whole value; the kernel's answer is the status.
sysfs_write() {
    printf '%s' "$2" | tee "$1" >/dev/null
}

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

# sriov_set PCI COUNT PROBE: the kernel takes another number only by way of 0, and looks
# at sriov_drivers_autoprobe when the functions appear.
sriov_set() (
    device="$R/sys/bus/pci/devices/$1"
    have=$(cat "$device/sriov_numvfs") || exit 1
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

# sriov_save PCI FILE: how many virtual functions there are, whether the kernel binds drivers
# to new ones, and which driver each has.
sriov_save() (
    device="$R/sys/bus/pci/devices/$1"
    count=$(cat "$device/sriov_numvfs") || exit 1
    probe=$(cat "$device/sriov_drivers_autoprobe" 2>/dev/null) || probe=-
    {
        printf 'count %s %s\n' "$count" "${probe:--}"
        for link in "$device"/virtfn*; do
            vf=$(readlink "$link" 2>/dev/null) || continue
            vf=${vf##*/}
            driver=$(readlink "$R/sys/bus/pci/devices/$vf/driver" 2>/dev/null) || driver=
            override=$(cat "$R/sys/bus/pci/devices/$vf/driver_override" 2>/dev/null) || override=
            [ "$override" != '(null)' ] || override=
            driver=${driver##*/}
            printf 'vf %s %s %s\n' "$vf" "${driver:--}" "${override:--}"
        done
    } >"$2"
)

# sriov_restore PCI FILE: the same again. Functions that were made anew have the drivers that
# the kernel gave them; those that somebody had bound by hand are bound so again.
sriov_restore() (
    [ -f "$2" ] || {
        printf '%s\n' "GPU $1: there is no saved number of virtual functions at $2" >&2
        exit 1
    }
    failed=0
    while read -r what first second third <&3; do
        case $what in
        count) sriov_set "$1" "$first" "$second" || exit 1 ;;
        vf) sriov_bind "$first" "$second" "$third" || failed=1 ;;
        esac
    done 3<"$2"
    exit "$failed"
)

# sriov_bind VF DRIVER OVERRIDE: - stands for none.
sriov_bind() (
    device="$R/sys/bus/pci/devices/$1"
    override=$(cat "$device/driver_override" 2>/dev/null) || override=
    [ "$override" != '(null)' ] || override=
    if [ "${override:--}" != "$3" ]; then
        # An empty line takes the override away.
        if [ "$3" = - ]; then echo | tee "$device/driver_override" >/dev/null
        else sysfs_write "$device/driver_override" "$3"; fi || exit 1
    fi
    now=$(readlink "$device/driver" 2>/dev/null) || now=
    now=${now##*/}
    [ "${now:--}" != "$2" ] || exit 0
    if [ -n "$now" ]; then sysfs_write "$device/driver/unbind" "$1" || exit 1; fi
    if [ "$2" != - ]; then sysfs_write "$R/sys/bus/pci/drivers/$2/bind" "$1" || exit 1; fi
    now=$(readlink "$device/driver" 2>/dev/null) || now=
    now=${now##*/}
    [ "${now:--}" != "$2" ] || exit 0
    printf '%s\n' "virtual function $1: its driver is ${now:-none}, expected $2 (- is none); bind it by /sys/bus/pci/drivers/$2/bind" >&2
    exit 1
)
