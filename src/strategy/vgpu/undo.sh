# The way back to the vGPUs that were before, for runs. vgpu.sh stands before it. Sourced; POSIX sh.

# vgpu_lacks PCI WORD...: succeeds if none of these vGPUs exists.
vgpu_lacks() (
    pci=$1
    shift
    for word in $(vgpu_list "$pci"); do
        if vgpu_among "$word" "$@"; then
            printf '%s\n' "GPU $pci: the vGPU $word is still there" >&2
            exit 1
        fi
    done
    exit 0
)

# vgpu_off PCI: no vGPU and no virtual function.
vgpu_off() (
    if [ "$(vgpu_functions_are "$1")" = off ]; then exit 0; fi
    vgpu_set "$1" - || exit 1
    if [ "$(vgpu_functions_are "$1")" = - ]; then exit 0; fi
    vgpu_manage "$1" -d
)

# vgpu_save PCI FILE: which vGPUs there are, and in which mode.
vgpu_save() (
    mode=$(vgpu_mode "$1") || exit 1
    list=$(vgpu_list "$1") || exit 1
    {
        printf 'functions %s\n' "$(vgpu_functions_are "$1")"
        printf 'mode %s\n' "$mode"
        for word in $list; do printf 'vgpu %s\n' "$word"; done
    } >"$2"
)

# vgpu_restore PCI FILE: the same again.
vgpu_restore() (
    pci=$1
    [ -f "$2" ] || {
        printf '%s\n' "GPU $pci: there are no saved vGPUs at $2" >&2
        exit 1
    }
    functions=$(sed -n 's/^functions //p' "$2")
    mode=$(sed -n 's/^mode //p' "$2")
    # shellcheck disable=SC2046
    set -- $(sed -n 's/^vgpu //p' "$2")
    if [ "$functions" = off ]; then
        vgpu_off "$pci"
        exit
    fi
    if [ "$functions" = on ] && [ "$(vgpu_functions_are "$pci")" = off ]; then
        vgpu_manage "$pci" -e || exit 1
    fi
    vgpu_set "$pci" "${mode:--}" "$@"
)
