# Virtual functions under AMD's host driver gim, through its amd-smi. Needs $R; use.sh and
# by_sysfs.sh stand before it. Sourced; POSIX sh.

# gim_smi ARGUMENT...: calls the amd-smi of gim; another program of that name is refused.
gim_smi() (
    said=$(amd-smi version 2>&1 </dev/null)
    case $said in
    *TOOL_NAME*) ;;
    *)
        printf '%s\n' "the amd-smi that is found is not the one of gim: ${said:-it says nothing}" >&2
        exit 1
        ;;
    esac
    status=0
    said=$(amd-smi "$@" 2>&1 </dev/null) || status=$?
    if [ "$status" -ne 0 ]; then
        # Its codes are negative; a shell sees them modulo 256.
        printf '%s\n' "amd-smi $*: status $status: $said" >&2
        exit 1
    fi
    printf '%s\n' "$said"
)

# gim_value NAME: the first value of that name in the answer on standard input.
gim_value() {
    sed -n "s/^[[:space:]]*$1:[[:space:]]*//p" | sed -n 1p
}

# gim_modes PCI: number of functions, compute mode, memory mode; - where there is none.
gim_modes() (
    count=$(gim_smi static --gpu="$1" --num-vf) || exit 1
    modes=$(gim_smi partition --gpu="$1" --current) || exit 1
    count=$(printf '%s\n' "$count" | gim_value NUM_VF_ENABLED)
    compute=$(printf '%s\n' "$modes" | gim_value ACCELERATOR_PARTITION)
    memory=$(printf '%s\n' "$modes" | gim_value MEMORY_PARTITION)
    [ "$compute" != N/A ] || compute=-
    [ "$memory" != N/A ] || memory=-
    echo "${count:-?} ${compute:--} ${memory:--}"
)

# gim_is PCI COUNT COMPUTE MEMORY: succeeds if the card has so many functions, in these modes;
# - is no matter. The functions must be on the bus, too.
gim_is() (
    found=$(gim_modes "$1") || exit 1
    # shellcheck disable=SC2086
    set -- "$@" $found
    if [ "$5" != "$2" ]; then
        printf '%s\n' "GPU $1: has $5 virtual functions, expected $2" >&2
        exit 1
    fi
    for pair in "compute $6 $3" "memory $7 $4"; do
        kind=${pair%% *}
        pair=${pair#* }
        [ "${pair#* }" != - ] || continue
        [ "${pair% *}" != "${pair#* }" ] || continue
        printf '%s\n' "GPU $1: the $kind mode is ${pair% *}, expected ${pair#* }" >&2
        exit 1
    done
    sriov_is "$1" "$2" -
)

# gim_set PCI COUNT PROFILE COMPUTE MEMORY: memory mode first, as it decides which compute modes
# there are; the number of functions last, as it goes with both.
gim_set() (
    found=$(gim_modes "$1") || exit 1
    # shellcheck disable=SC2086
    set -- "$@" $found
    [ "$6 $7 $8" != "$2 $4 $5" ] || exit 0
    sriov_unused "$1" || exit 1
    if [ "$5" != - ] && [ "$8" != "$5" ]; then
        gim_smi set --gpu="$1" --memory-partition="$5" >/dev/null || exit 1
    fi
    if [ "$3" != - ] && [ "$7" != "$4" ]; then
        gim_smi set --gpu="$1" --accelerator-partition="$3" >/dev/null || exit 1
    fi
    gim_smi set --gpu="$1" --num-vf="$2" >/dev/null || exit 1
    gim_is "$1" "$2" "$4" "$5"
)

# boot_gim PCI COUNT PROBE PROFILE COMPUTE MEMORY: virtual functions after a boot; no driver of
# this host takes them, so that PROBE is no matter.
boot_gim() {
    gim_set "$1" "$2" "$4" "$5" "$6"
}
