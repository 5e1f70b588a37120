# The way back to the virtual functions that were before under gim, for runs. gim.sh stands
# before it. Sourced; POSIX sh.

# gim_save PCI FILE: functions and modes, with the number of the compute mode.
gim_save() (
    found=$(gim_modes "$1") || exit 1
    rest=${found#* }
    compute=${rest% *}
    number=-
    if [ "$compute" != - ]; then
        table=$(gim_smi partition --gpu="$1" --global) || exit 1
        number=$(printf '%s\n' "$table" | awk -v mode="$compute" '
            NF == 4 { word = $2 }
            NF == 3 { word = $1 }
            (NF == 4 || NF == 3) && $1 != "GPU" { if (word == mode) { print row + 0; exit } row++ }')
    fi
    printf '%s %s %s\n' "${found%% *}" "${number:--}" "$rest" >"$2"
)

# gim_restore PCI FILE: the same again.
gim_restore() (
    [ -f "$2" ] || {
        printf '%s\n' "GPU $1: there is no saved number of virtual functions at $2" >&2
        exit 1
    }
    read -r count number compute memory <"$2" || exit 1
    gim_set "$1" "$count" "$number" "$compute" "$memory"
)
