# Writes to sysfs. Sourced; POSIX sh.

# sysfs_write PATH VALUE: one write of the whole value; the kernel's answer is the status.
sysfs_write() {
    printf '%s' "$2" | tee "$1" >/dev/null
}

# sysfs_settled PATH: waits until it is there, or until udev has nothing more to do; succeeds
# if it is there.
sysfs_settled() {
    if [ -e "$1" ] || [ -h "$1" ]; then return 0; fi
    udevadm settle --timeout=90 --exit-if-exists="$1" >/dev/null 2>&1
    [ -e "$1" ] || [ -h "$1" ]
}

# pci_driver PCI: its kernel driver; pci_override PCI: the only one that may take it. - is none.
pci_driver() (
    driver=$(readlink "$R/sys/bus/pci/devices/$1/driver" 2>/dev/null) || driver=
    driver=${driver##*/}
    printf '%s\n' "${driver:--}"
)
pci_override() (
    name=$(cat "$R/sys/bus/pci/devices/$1/driver_override" 2>/dev/null) || name=
    [ "$name" != '(null)' ] || name=
    printf '%s\n' "${name:--}"
)

# pci_bind PCI DRIVER OVERRIDE: whoever has it open must be gone. - stands for none.
pci_bind() (
    device="$R/sys/bus/pci/devices/$1"
    if [ "$2" = vfio-pci ] && [ ! -d "$R/sys/module/vfio_pci" ]; then
        modprobe vfio-pci || exit 1
    fi
    if [ "$(pci_override "$1")" != "$3" ]; then
        # An empty line takes the override away.
        if [ "$3" = - ]; then echo | tee "$device/driver_override" >/dev/null
        else sysfs_write "$device/driver_override" "$3"; fi || exit 1
    fi
    now=$(pci_driver "$1")
    [ "$now" != "$2" ] || exit 0
    if [ "$now" != - ]; then
        # A driver takes its cards first and can be asked to let go a moment later, which
        # matters early in a boot.
        sysfs_settled "$device/driver/unbind"
        sysfs_write "$device/driver/unbind" "$1" || exit 1
    fi
    if [ "$2" != - ]; then
        if [ "$2" = "$3" ]; then sysfs_write "$R/sys/bus/pci/drivers_probe" "$1"
        else sysfs_write "$R/sys/bus/pci/drivers/$2/bind" "$1"; fi || exit 1
    fi
    now=$(pci_driver "$1")
    [ "$now" != "$2" ] || exit 0
    printf '%s\n' "PCI function $1: its driver is $now, expected $2 (- is none)" >&2
    exit 1
)
