# Cards that go to virtual machines whole. Needs $R; use.sh and sysfs.sh stand before it.
# FUNCTION... is a card and what goes with it; behind a `+` stand others that are handed over
# as well and may be in the same IOMMU groups. Sourced; POSIX sh.

# passthrough_whole FUNCTION... [+ OTHER...]: succeeds if nothing else in their IOMMU groups is
# at work on the host. A group is the least that can be handed over.
passthrough_whole() (
    all=" $* "
    for pci in "$@"; do
        [ "$pci" != + ] || break
        group="$R/sys/bus/pci/devices/$pci/iommu_group"
        if [ ! -d "$group/devices" ]; then
            printf '%s\n' "GPU $pci: it has no IOMMU group, so the IOMMU is off" >&2
            exit 1
        fi
        for member in "$group"/devices/*; do
            other=${member##*/}
            case $all in *" $other "*) continue ;; esac
            class=$(cat "$member/class" 2>/dev/null)
            case $class in 0x06*) continue ;; esac
            driver=$(pci_driver "$other")
            case $driver in - | vfio-pci | pci-stub) continue ;; esac
            printf '%s\n' "GPU $pci: shares its IOMMU group with $other (class $class, driver $driver), which must stay on the host" >&2
            exit 1
        done
    done
    exit 0
)

# passthrough_is FUNCTION... [+ OTHER...]: succeeds if these are on vfio-pci, and by address.
passthrough_is() (
    passthrough_whole "$@" || exit 1
    for pci in "$@"; do
        [ "$pci" != + ] || break
        driver=$(pci_driver "$pci")
        override=$(pci_override "$pci")
        [ "$driver $override" != 'vfio-pci vfio-pci' ] || continue
        printf '%s\n' "GPU $pci: its driver is $driver (driver_override $override), expected vfio-pci" >&2
        exit 1
    done
    exit 0
)

# passthrough_free PCI: succeeds once nobody has the function open: to take it from its driver
# would hang in the kernel until then. NVIDIA's persistence daemon is asked to let go.
passthrough_free() (
    gpu_idle "$1" || exit 1
    [ "$(pci_driver "$1")" = nvidia ] || exit 0
    nvidia-smi -i "$1" -pm 0 >/dev/null 2>&1 </dev/null
    tries=0
    while pids=$(gpu_holders "$1" "" daemon) && [ -n "$pids" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 10 ]; then
            printf '%s\n' "GPU $1: nvidia-persistenced does not let go of it; stop that service" >&2
            exit 1
        fi
        sleep 1
    done
    gpu_idle "$1"
)

# passthrough_bind FUNCTION... [+ OTHER...]: to vfio-pci.
passthrough_bind() (
    passthrough_whole "$@" || exit 1
    for pci in "$@"; do
        [ "$pci" != + ] || break
        if [ "$(pci_driver "$pci") $(pci_override "$pci")" = 'vfio-pci vfio-pci' ]; then continue; fi
        passthrough_free "$pci" || exit 1
        pci_bind "$pci" vfio-pci vfio-pci || exit 1
    done
    passthrough_is "$@"
)

# boot_passthrough FUNCTION... [+ OTHER...]: after a boot.
boot_passthrough() {
    passthrough_bind "$@"
}
