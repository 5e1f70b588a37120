# What only a run needs, and the boot script does not: a mode that a reboot is to change, and
# the way back to what was before. mig.sh stands before it. Sourced; POSIX sh.

# mig_nodes MINOR GI: the device nodes of a GPU instance and of what is in it, one a line.
mig_nodes() {
    for access in "$R/proc/driver/nvidia/capabilities/gpu$1/mig/gi$2"/access \
        "$R/proc/driver/nvidia/capabilities/gpu$1/mig/gi$2"/ci*/access; do
        sed -n 's|^DeviceFileMinor:[[:space:]]*|/dev/nvidia-caps/nvidia-cap|p' "$access" 2>/dev/null
    done
    return 0
}

# mig_idle PCI GPU WORDS [UNIT...]: succeeds if nobody uses the GPU instances at the places of
# these words, or these services alone. Whoever has the card open and no instance of it may
# use any of them. Where the driver does not tell the instances' nodes, nobody may use the card.
mig_idle() (
    [ -z "${DEPLOY_AFTER_UNDO-}" ] || exit 0
    pci=$1
    words=$3
    minor=$(sed -n 's/^Device Minor:[[:space:]]*//p' \
        "$R/proc/driver/nvidia/gpus/$pci/information" 2>/dev/null)
    gpu=$2
    shift 3
    # Where they cannot be listed, as on a card that another driver has, all of it must be idle.
    if ! gis=$(mig_gis "$gpu" 2>/dev/null); then
        gpu_idle "$pci" "$@"
        exit
    fi
    going=$(gpu_nodes "$pci")
    staying=
    taken=
    for row in $gis; do
        nodes=
        [ -z "$minor" ] || nodes=$(mig_nodes "$minor" "${row%%@*}")
        if [ -z "$nodes" ]; then
            gpu_idle "$pci" "$@"
            exit
        fi
        goes=
        for word in $words; do
            if [ "${word%%/*}" = "${row#*@}" ]; then goes=1; fi
        done
        if [ -n "$goes" ]; then
            taken="$taken$nodes
"
        else
            staying="$staying$nodes
"
        fi
    done
    # Of those who have the card open, the ones that keep to what stays are in nobody's way.
    keeps=
    if [ -n "$staying" ]; then
        keeps=$(gpu_holders "$pci" "$staying") || exit 1
    fi
    if [ -n "$keeps" ] && [ -n "$taken" ]; then
        lost=$(gpu_holders "$pci" "$taken") || exit 1
        keeps=$(printf '%s\n' "$keeps" | awk -v lost="$lost" '
            BEGIN { count = split(lost, list); for (i = 1; i <= count; i++) gone[list[i]] = 1 }
            !($1 in gone)')
    fi
    # shellcheck disable=SC2034 # gpu_idle reads it
    DEPLOY_KEEPS=$keeps
    gpu_idle "$pci" "$going
$taken" "$@"
)

# mig_mode_pends GPU MODE: succeeds if this is the mode after the next reset or reboot.
mig_mode_pends() (
    have=$(mig_mode_of "$1") || exit 1
    [ "${have#* }" = "$2" ] && exit 0
    printf '%s\n' "GPU $1: MIG mode is ${have#* } after a reset, expected $2" >&2
    exit 1
)

# mig_mode_prepare GPU 0|1: has the next reboot switch the mode; whether it is in force
# at once does not matter.
mig_mode_prepare() (
    want=Disabled
    [ "$2" = 1 ] && want=Enabled
    have=$(mig_mode_of "$1") || exit 1
    [ "${have#* }" = "$want" ] && exit 0
    out=$(nvidia-smi -i "$1" -mig "$2" 2>&1 </dev/null) || :
    printf '%s\n' "$out"
    mig_mode_pends "$1" "$want" && exit 0
    printf '%s\n' "GPU $1: MIG mode could not be prepared for the reboot: $out" >&2
    exit 1
)

# mig_mode_back GPU 0|1 [reset]: switches the mode back, for an undo. What a reboot has put
# in force, another one may have to take away: that is told.
mig_mode_back() (
    said=$(mig_mode "$@" 2>&1) && exit 0
    want=Disabled
    [ "$2" = 1 ] && want=Enabled
    have=$(mig_mode_of "$1") || exit 1
    if [ "${have#* }" = "$want" ]; then
        printf '%s\n' "GPU $1: MIG mode is still ${have% *}; it is set back and becomes $want at the next reboot: restart the host, then run this again" >&2
    fi
    printf '%s\n' "$said" >&2
    exit 1
)

# mig_daemon_save FILE, mig_daemon_restore FILE: whether the persistence daemon runs, which
# a reset stops for a moment.
mig_daemon_save() {
    if systemctl is-active --quiet nvidia-persistenced.service 2>/dev/null; then
        echo active >"$1"
    else
        echo inactive >"$1"
    fi
}

mig_daemon_restore() {
    [ "$(cat "$1")" = active ] || return 0
    systemctl is-active --quiet nvidia-persistenced.service 2>/dev/null && return 0
    systemctl start nvidia-persistenced.service </dev/null
}

# mig_save GPU FILE, mig_restore GPU FILE: the layout into a file, and back from it. A card
# that lost its mode with the power gets it back first; one that had it off loses its instances.
mig_save() (
    have=$(mig_mode_of "$1") || exit 1
    rows=$(mig_rows "$1") || exit 1
    printf 'mode %s\n%s\n' "${have% *}" "$rows" | sed 's/^[0-9]/gi &/' >"$2"
)

mig_restore() (
    [ -f "$2" ] || {
        printf '%s\n' "GPU $1: there is no saved layout at $2" >&2
        exit 1
    }
    words=$(awk '$1 == "gi" { print $3 }' "$2")
    if grep -q '^mode Enabled$' "$2"; then
        have=$(mig_mode_of "$1") || exit 1
        if [ "${have% *}" != Enabled ] && ! mig_mode_back "$1" 1; then
            printf '%s\n' "GPU $1: its MIG instances cannot be made again while MIG mode is off: $(printf '%s' "$words" | tr '\n' ' ')" >&2
            exit 1
        fi
    fi
    # shellcheck disable=SC2086
    mig_ensure "$1" $words && mig_ids "$1" "$2"
)

# mig_ids GPU FILE: gives instances that came back under another id, and with it another UUID,
# their own. The driver hands the ids of a profile out in an order of its own, which shows in
# those that it gave: made again in the order that goes with it, each gets the right one.
mig_ids() (
    rows=$(mig_rows "$1") || exit 1
    plan=$({ printf '%s\n' "$rows" | sed 's/^/now /'; cat "$2"; } | awk '
        { place = $3; sub(/\/.*/, "", place); profile = place; sub(/:.*/, "", profile) }
        $1 == "now" { now[place] = $2 }
        $1 == "gi" { count++; id[count] = $2; word[count] = $3; kind[count] = profile; at[count] = place }
        END {
            for (k = 1; k <= count; k++)
                if (now[at[k]] == id[k]) keep = keep " " word[k]
                else wrong[k] = 1
            for (k = 1; k <= count; k++) if (k in wrong) {
                found = 0
                for (j = 1; j <= count; j++)
                    if ((j in wrong) && kind[j] == kind[k] && id[j] == now[at[k]]) { again = again " " word[j]; found = 1 }
                if (!found) { print "none"; exit }
            }
            if (again != "") print "keep" keep "\nagain" again
        }')
    [ -n "$plan" ] || exit 0
    if [ "$plan" != none ]; then
        keep=$(printf '%s\n' "$plan" | sed -n 's/^keep//p')
        again=$(printf '%s\n' "$plan" | sed -n 's/^again//p')
        # shellcheck disable=SC2086
        mig_ensure "$1" $keep && mig_ensure "$1" $keep $again || exit 1
        rows=$(mig_rows "$1") || exit 1
        [ "$(printf '%s\n' "$rows" | cut -d / -f 1)" = "$(sed -n 's/^gi //p' "$2" | cut -d / -f 1)" ] && exit 0
    fi
    printf '%s\n' "GPU $1: the MIG instances are as before, but the driver gave some of them other ids, so that their UUIDs are others" >&2
)
