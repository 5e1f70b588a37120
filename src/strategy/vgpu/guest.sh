# The vGPU licence of a virtual machine. Needs $R. Sourced; POSIX sh.

# vgpu_tokens: SHA-256 of each client configuration token, one a line.
vgpu_tokens() (
    for token in "$R"/etc/nvidia/ClientConfigToken/client_configuration_token_*.tok; do
        if [ -f "$token" ]; then sha256sum <"$token" | sed 's/ .*//'; fi
    done
)

# vgpu_setting NAME: its value in gridd.conf; nothing if it has none.
vgpu_setting() (
    sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*\(.*[^[:space:]]\)[[:space:]]*\$/\1/p" \
        "$R/etc/nvidia/gridd.conf" 2>/dev/null | tail -n 1
)

# vgpu_licence_is FEATURE SERVER HASH: succeeds if the daemon's settings are these; - is no
# server, and no token in particular.
vgpu_licence_is() (
    feature=$(vgpu_setting FeatureType)
    server=$(vgpu_setting ServerAddress)
    if [ "${feature:-0}" != "$1" ] || [ "${server:--}" != "$2" ]; then
        printf '%s\n' "gridd.conf says FeatureType=${feature:-0} and ServerAddress=${server:-nothing}, expected $1 and $2 (- is nothing)" >&2
        exit 1
    fi
    [ "$3" = - ] && exit 0
    for hash in $(vgpu_tokens); do [ "$hash" != "$3" ] || exit 0; done
    printf '%s\n' "the client configuration token is not there" >&2
    exit 1
)

# vgpu_licence_set FEATURE SERVER [FILE]: the daemon's settings, and the token in FILE. What
# else stands in gridd.conf stays.
vgpu_licence_set() (
    conf="$R/etc/nvidia/gridd.conf"
    mkdir -p "$R/etc/nvidia" || exit 1
    if [ -f "$conf" ]; then
        grep -v -e '^[[:space:]]*FeatureType[[:space:]]*=' -e '^[[:space:]]*ServerAddress[[:space:]]*=' "$conf"
    fi >"$conf.deploy-new"
    {
        [ "$2" = - ] || printf 'ServerAddress=%s\n' "$2"
        printf 'FeatureType=%s\n' "$1"
    } >>"$conf.deploy-new" && mv -f "$conf.deploy-new" "$conf" || exit 1
    if [ -n "${3-}" ]; then
        folder="$R/etc/nvidia/ClientConfigToken"
        mkdir -p "$folder" || exit 1
        # The mode that NVIDIA asks for; the daemon may run as another user than root.
        cp "$3" "$folder/client_configuration_token_deploy.tok.new" &&
            chmod 0744 "$folder/client_configuration_token_deploy.tok.new" &&
            mv -f "$folder/client_configuration_token_deploy.tok.new" "$folder/client_configuration_token_deploy.tok" || exit 1
    fi
    vgpu_licence_again
)

# vgpu_licence_again: has the daemon read its settings.
vgpu_licence_again() (
    out=$(systemctl restart nvidia-gridd.service 2>&1 </dev/null) && exit 0
    printf '%s\n' "nvidia-gridd.service cannot be started anew: $out" >&2
    exit 1
)

# vgpu_licensed: waits for the licence, which the daemon gets in the background.
vgpu_licensed() (
    tries=0
    while :; do
        out=$(nvidia-smi -q 2>&1 </dev/null | sed -n 's/^ *License Status *: *//p' | sort -u)
        case $out in
        Unlicensed* | '') ;;
        Licensed*) exit 0 ;;
        esac
        tries=$((tries + 1))
        [ "$tries" -lt 20 ] || break
        sleep 1
    done
    printf '%s\n' "no vGPU licence was given: nvidia-smi says \`${out:-nothing}\`; see journalctl -u nvidia-gridd" >&2
    exit 1
)

# vgpu_licence_save FOLDER: settings and our token as they are.
vgpu_licence_save() (
    mkdir -p "$1" || exit 1
    chmod 0700 "$1" || exit 1
    for file in "$R/etc/nvidia/gridd.conf" "$R/etc/nvidia/ClientConfigToken/client_configuration_token_deploy.tok"; do
        if [ -f "$file" ]; then cp -p "$file" "$1/" || exit 1; fi
    done
)

# vgpu_licence_restore FOLDER: the same again.
vgpu_licence_restore() (
    [ -d "$1" ] || {
        printf '%s\n' "there are no saved settings of the vGPU licence at $1" >&2
        exit 1
    }
    for file in "$R/etc/nvidia/gridd.conf" "$R/etc/nvidia/ClientConfigToken/client_configuration_token_deploy.tok"; do
        if [ -f "$1/${file##*/}" ]; then
            mkdir -p "${file%/*}" && cp -p "$1/${file##*/}" "$file.deploy-new" && mv -f "$file.deploy-new" "$file" || exit 1
        else
            rm -f "$file" || exit 1
        fi
    done
    vgpu_licence_again
)
