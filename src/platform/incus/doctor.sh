# PROGRAM PROJECT NAME as $1 to $3: what is wrong with the GPU of a running container, as exit
# status: 0 nothing, 10 no device node, 11 no nvidia-smi, 12 its libraries are of another version
# than the host's driver, 13 nvidia-smi fails. Its output the client may lose, its status not.
if [ "$1" = incus ] && [ ! -e "${INCUS_CONF:-${HOME:-/root}/.config/incus}" ]; then
    INCUS_CONF=$(mktemp -d) || exit
    export INCUS_CONF
    trap 'rm -rf "$INCUS_CONF"' EXIT
fi
# shellcheck disable=SC2016 # expanded in the container
"$1" exec "local:$3" --project "$2" -- sh -c '
    for node in /dev/nvidia[0-9]* /dev/dri/renderD* /dev/kfd; do
        [ ! -e "$node" ] || break
    done
    case $node in
    /dev/nvidia*) ;;
    *) [ -e "$node" ] && exit 0 || exit 10 ;;
    esac
    [ -e "$node" ] || exit 10
    command -v nvidia-smi >/dev/null || exit 11
    out=$(nvidia-smi -L 2>&1) && exit 0
    case $out in
    *mismatch* | *"Failed to initialize NVML"*) exit 12 ;;
    esac
    exit 13' </dev/null
