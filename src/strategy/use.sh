# Who uses a card. Needs $R, the host's root prefix. Sourced; POSIX sh.

# amd_place PCI: domain and `location_id` of the card, as the compute driver counts.
amd_place() (
    rest=${1#*:}
    slot=${rest#*:}
    bus=0x${rest%%:*}
    domain=0x${1%%:*}
    slot=0x${slot%%.*}
    echo "$((domain)) $(((bus << 8) | (slot << 3)))"
)

# amd_nodes PCI: the render nodes of a card under amdgpu by number, one a line: one of each partition.
# Those of partitions stand at no PCI function.
amd_nodes() (
    place=$(amd_place "$1") || exit 1
    for file in "$R"/sys/class/kfd/kfd/topology/nodes/*/properties; do
        [ -r "$file" ] && cat "$file" && echo end
    done | awk -v domain="${place% *}" -v first="${place#* }" '
        $1 == "location_id" { location = $2 }
        $1 == "domain" { at = $2 }
        $1 == "drm_render_minor" { minor = $2 }
        $1 == "simd_count" { units = $2 }
        $1 == "end" {
            if (units > 0 && at == domain && location >= first && location < first + 8) print minor
            units = 0
        }'
)

# gpu_nodes PCI: the device nodes of a card or virtual function, one a line.
gpu_nodes() (
    device="$R/sys/bus/pci/devices/$1"
    minor=$(sed -n 's/^Device Minor:[[:space:]]*//p' \
        "$R/proc/driver/nvidia/gpus/$1/information" 2>/dev/null)
    if [ -n "$minor" ]; then
        echo "/dev/nvidia$minor"
    fi
    for entry in "$device"/drm/card* "$device"/drm/renderD*; do
        if [ -e "$entry" ]; then
            echo "/dev/dri/${entry##*/}"
        fi
    done
    for entry in "$device"/vfio-dev/vfio*; do
        if [ -e "$entry" ]; then
            echo "/dev/vfio/devices/${entry##*/}"
        fi
    done
    group=$(readlink "$device/iommu_group" 2>/dev/null) || group=
    driver=$(readlink "$device/driver" 2>/dev/null) || driver=
    if [ "${driver##*/}" = amdgpu ]; then
        # The compute driver changes nothing while any process has it open, whatever card it uses.
        echo /dev/kfd
        amd_nodes "$1" | sed 's|^|/dev/dri/renderD|'
    fi
    if [ -n "$group" ] && [ "${driver##*/}" = vfio-pci ]; then
        echo "/dev/vfio/${group##*/}"
    fi
    exit 0
)

# gpu_holders PCI [NODES [daemon]]: the processes that have one of its nodes open, one pid a line.
# nvidia-persistenced holds every card and is no user of it; it is told only if asked for. Fails
# where that cannot be told: nobody is only said where everybody was looked at.
gpu_holders() (
    nodes=${2:-$(gpu_nodes "$1")}
    if [ -z "$nodes" ]; then
        driver=$(readlink "$R/sys/bus/pci/devices/$1/driver" 2>/dev/null) || driver=
        [ "${driver##*/}" = nvidia ] || exit 0
        printf '%s\n' "GPU $1: who uses it cannot be told: its device node is not known" >&2
        exit 1
    fi
    cd "$R/proc" || exit 1
    hidden=0
    for fds in [0-9]*/fd; do
        # One that has just ended hides nothing.
        if [ ! -r "$fds" ] && [ -e "${fds%/fd}/comm" ]; then hidden=$((hidden + 1)); fi
    done
    # One process for all file descriptors. /dev/null makes sure that ls names the folders.
    # shellcheck disable=SC2012
    pids=$(ls -l /dev/null [0-9]*/fd 2>/dev/null | awk -v nodes="$nodes" -v root="$R" '
        BEGIN { count = split(nodes, list, "\n"); for (i = 1; i <= count; i++) wanted[list[i]] = 1 }
        /^[0-9]+\/fd:$/ { pid = $0; sub(/\/.*/, "", pid); next }
        {
            at = index($0, " -> ")
            if (!at) next
            target = substr($0, at + 4)
            if (root != "" && index(target, root "/") == 1) target = substr(target, length(root) + 1)
            if (target in wanted && !(pid in seen)) { seen[pid] = 1; print pid }
        }')
    users=
    for pid in $pids; do
        case $(cat "$pid/comm" 2>/dev/null) in
        nvidia-persiste*) [ -n "${3-}" ] || continue ;;
        # A daemon of ours: whoever uses the card through it has the card open too.
        nvidia-cuda-mps*) grep -q '/deploy-mps-' "$pid/cgroup" 2>/dev/null && continue ;;
        esac
        users=yes
        echo "$pid"
    done
    if [ -z "$users" ] && [ "$hidden" -gt 0 ]; then
        printf '%s\n' "GPU $1: who uses it cannot be told: $hidden processes cannot be looked at; become root" >&2
        exit 1
    fi
    exit 0
)

# gpu_idle PCI [NODES] [UNIT...]: succeeds if nobody uses the card, or these services alone; names
# who does otherwise. NODES are device nodes to look at instead of its own, one a line; the pids in
# DEPLOY_KEEPS do not count. After an undo
# the question is only whether all is as before, and who began to use it is no matter.
gpu_idle() (
    [ -z "${DEPLOY_AFTER_UNDO-}" ] || exit 0
    pci=$1
    shift
    nodes=
    case ${1-} in
    /*)
        nodes=$1
        shift
        ;;
    esac
    pids=$(gpu_holders "$pci" "$nodes") || exit 1
    status=0
    for pid in $pids; do
        kept=
        for other in ${DEPLOY_KEEPS-}; do
            if [ "$pid" = "$other" ]; then kept=1; fi
        done
        [ -z "$kept" ] || continue
        name=$(cat "$R/proc/$pid/comm" 2>/dev/null)
        group=$(cat "$R/proc/$pid/cgroup" 2>/dev/null)
        unit=$(printf '%s\n' "$group" | sed -n 's|.*/\([^/]*\.service\).*|\1|p' | tail -n 1)
        container=$(printf '%s\n' "$group" | sed -n 's|.*[/-]\([0-9a-f]\{64\}\).*|\1|p' | tail -n 1)
        known=
        for allowed in "$@"; do
            if [ "$unit" = "$allowed" ]; then known=1; fi
        done
        [ -z "$known" ] || continue
        status=1
        printf '%s\n' "GPU $pci is in use by pid $pid (${name:-unknown}${unit:+, unit $unit}${container:+, container $container})" >&2
    done
    exit "$status"
)
