# The way back to the virtual functions that were before, for runs. by_sysfs.sh stands before it.
# Needs $R. Sourced; POSIX sh.

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
    # Functions that have just come back may still be waiting for udev to load their driver.
    if [ "$2" != - ]; then sysfs_settled "$device/driver" || sysfs_settled "$R/sys/bus/pci/drivers/$2"; fi
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
