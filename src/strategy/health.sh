# Whether a card is there and answers. Needs $R. Sourced; POSIX sh.

# pci_answers PCI: the card answers on the bus; one that fell off it reads as all ones.
pci_answers() (
    device="$R/sys/bus/pci/devices/$1"
    if [ ! -d "$device" ]; then
        printf '%s\n' "GPU $1 is no longer on the PCI bus" >&2
        exit 1
    fi
    said=$(od -An -tx1 -N2 "$device/config" 2>/dev/null | tr -d ' \n')
    [ "$said" != ffff ] && exit 0
    printf '%s\n' "GPU $1 does not answer: its configuration space reads as ffff" >&2
    exit 1
)

# nvidia_answers PCI UUID: the driver tells the card's own UUID. The tool's exit status alone
# says little.
nvidia_answers() (
    said=$(nvidia-smi -i "$1" --query-gpu=uuid --format=csv,noheader 2>&1 </dev/null) || :
    [ "$said" = "$2" ] && exit 0
    printf '%s\n' "GPU $1 does not answer: $said" >&2
    exit 1
)
