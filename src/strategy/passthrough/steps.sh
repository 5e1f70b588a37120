# The way back from virtual machines, for runs. passthrough.sh stands before it. Sourced; POSIX sh.

# passthrough_was PCI DRIVER OVERRIDE: succeeds if the function is so; - stands for none.
passthrough_was() (
    now="$(pci_driver "$1") $(pci_override "$1")"
    [ "$now" != "$2 $3" ] || exit 0
    printf '%s\n' "PCI function $1: its driver and driver_override are $now, expected $2 $3" >&2
    exit 1
)

# unless_handed_over PCI CALL...: the call, unless the card is with virtual machines.
unless_handed_over() {
    if [ "$(pci_driver "$1")" = vfio-pci ]; then return 0; fi
    shift
    "$@"
}

# passthrough_idle FUNCTION...: succeeds if nobody uses any of them.
passthrough_idle() (
    for pci in "$@"; do gpu_idle "$pci" || exit 1; done
)

# passthrough_save FILE FUNCTION...: what each is bound to, whether NVIDIA's driver keeps the
# card awake, and whether vfio-pci is loaded.
passthrough_save() (
    file=$1
    shift
    {
        if [ -d "$R/sys/module/vfio_pci" ]; then echo 'module yes'; else echo 'module no'; fi
        for pci in "$@"; do
            mode=
            if [ "$(pci_driver "$pci")" = nvidia ]; then
                mode=$(nvidia-smi -i "$pci" --query-gpu=persistence_mode --format=csv,noheader 2>/dev/null </dev/null)
            fi
            printf 'function %s %s %s %s\n' "$pci" "$(pci_driver "$pci")" "$(pci_override "$pci")" "${mode:--}"
        done
    } >"$file"
)

# passthrough_restore FILE: the same again. The module goes if it came with this run and nothing
# is bound to it any more.
passthrough_restore() (
    [ -f "$1" ] || {
        echo "passthrough: what the functions were bound to was not saved at $1" >&2
        exit 1
    }
    failed=0
    module=yes
    while read -r what first second third mode <&3; do
        case $what in
        module) module=$first ;;
        function)
            if [ "$(pci_driver "$first") $(pci_override "$first")" != "$second $third" ]; then
                if ! passthrough_free "$first" || ! pci_bind "$first" "$second" "$third"; then
                    failed=1
                    continue
                fi
            fi
            if [ "$mode" = Enabled ]; then nvidia-smi -i "$first" -pm 1 >/dev/null 2>&1 </dev/null; fi
            ;;
        esac
    done 3<"$1"
    if [ "$module" = no ] && [ -d "$R/sys/module/vfio_pci" ]; then
        for bound in "$R"/sys/bus/pci/drivers/vfio-pci/*:*; do
            [ ! -e "$bound" ] || exit "$failed"
        done
        modprobe -r vfio-pci || failed=1
    fi
    exit "$failed"
)

# passthrough_release FUNCTION...: to whatever driver the kernel picks for them.
passthrough_release() (
    for pci in "$@"; do
        [ "$(pci_driver "$pci") $(pci_override "$pci")" != '- -' ] || continue
        if [ "$(pci_driver "$pci")" = vfio-pci ]; then
            gpu_idle "$pci" || exit 1
            pci_bind "$pci" - - || exit 1
        else
            pci_bind "$pci" "$(pci_driver "$pci")" - || exit 1
            continue
        fi
        sysfs_write "$R/sys/bus/pci/drivers_probe" "$pci" || exit 1
    done
    passthrough_released "$@"
)

# passthrough_released FUNCTION...: succeeds if none of them is on vfio-pci any more.
passthrough_released() (
    for pci in "$@"; do
        driver=$(pci_driver "$pci")
        override=$(pci_override "$pci")
        if [ "$driver" != vfio-pci ] && [ "$override" = - ]; then continue; fi
        printf '%s\n' "GPU $pci: its driver is still $driver (driver_override $override)" >&2
        exit 1
    done
    exit 0
)
