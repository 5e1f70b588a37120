# Virtual functions for virtual machines. Needs $R; passthrough.sh stands beside it. Sourced;
# POSIX sh.

# vf_list PCI: the addresses of a card's virtual functions, one a line.
vf_list() (
    for link in "$R/sys/bus/pci/devices/$1"/virtfn*; do
        target=$(readlink "$link" 2>/dev/null) || continue
        printf '%s\n' "${target##*/}"
    done
)

# vf_all CALL PCI: the call with all of them, as some may share an IOMMU group.
vf_all() (
    call=$1
    list=$(vf_list "$2")
    set --
    while read -r vf; do
        [ -z "$vf" ] || set -- "$@" "$vf"
    done <<EOF
$list
EOF
    [ "$#" -eq 0 ] || "$call" "$@"
)

# vf_bind PCI: to vfio-pci; vf_bound PCI: succeeds if all are.
vf_bind() {
    vf_all passthrough_bind "$1"
}
vf_bound() {
    vf_all passthrough_is "$1"
}

# boot_vf_driver PCI: after a boot.
boot_vf_driver() {
    vf_bind "$1"
}
