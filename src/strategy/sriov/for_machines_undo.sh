# The way back from virtual machines, for runs. by_sysfs_undo.sh and for_machines.sh stand before
# it. Needs $R. Sourced; POSIX sh.

# vf_restore PCI FILE: the drivers that sriov_save saw. Functions that are new are left without
# one: they go, or their makers' undo gives them theirs.
vf_restore() (
    [ -f "$2" ] || {
        printf '%s\n' "GPU $1: the drivers of its virtual functions were not saved at $2" >&2
        exit 1
    }
    list=$(vf_list "$1")
    failed=0
    while read -r vf <&4; do
        [ -n "$vf" ] || continue
        driver=-
        override=-
        while read -r what first second third <&3; do
            if [ "$what $first" = "vf $vf" ]; then
                driver=$second
                override=$third
            fi
        done 3<"$2"
        [ "$(pci_driver "$vf") $(pci_override "$vf")" != "$driver $override" ] || continue
        if [ "$(pci_driver "$vf")" = vfio-pci ]; then gpu_idle "$vf" || exit 1; fi
        pci_bind "$vf" "$driver" "$override" || failed=1
    done 4<<EOF
$list
EOF
    exit "$failed"
)
