# Containers of podman as units of systemd. Sourced; POSIX sh.

# podman_as USER COMMAND...: as a login of the user would run it; - is root itself.
podman_as() (
    cd / || exit 1
    user=$1
    shift
    [ "$user" != - ] || exec "$@" </dev/null
    uid=$(id -u -- "$user") || exit 1
    exec runuser -u "$user" -- env "XDG_RUNTIME_DIR=/run/user/$uid" \
        "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$uid/bus" "$@" </dev/null
)

# podman_systemctl USER ARGUMENT...: the user's units, or with - the system's.
podman_systemctl() {
    if [ "$1" = - ]; then
        shift
        systemctl "$@"
        return
    fi
    of=$1
    shift
    podman_as "$of" systemctl --user "$@"
}

# podman_reload USER: has Quadlet make units of its files anew. Without a manager that runs
# there is nobody to be told, nor where the user is gone. At boot a user's manager may be on its
# way: it reads the files itself.
podman_reload() {
    if [ "$1" != - ]; then
        uid=$(id -u -- "$1" 2>/dev/null) || return 0
        systemctl is-active --quiet -- "user@$uid.service" || return 0
    fi
    podman_systemctl "$1" daemon-reload && return 0
    [ "$1" != - ] && [ -n "${DEPLOY_AT_BOOT-}" ]
}

# podman_unit_is USER UNIT active|inactive. One that failed, or that is not there, is inactive.
podman_unit_is() {
    now=$(podman_systemctl "$1" is-active -- "$2" 2>/dev/null)
    case $3:$now in
    active:active | inactive:inactive | inactive:failed | inactive:unknown | inactive:) return 0 ;;
    # After an undo at boot it is still to come.
    active:inactive | active:activating | active:unknown | active:)
        [ -z "${DEPLOY_AT_BOOT-}" ] || [ -z "${DEPLOY_AFTER_UNDO-}" ] || return 0
        ;;
    esac
    printf '%s\n' "unit $2: is ${now:-unknown}, not $3" >&2
    return 1
}

# podman_start USER UNIT start|restart [POD]: what the journal says last of it, or of its pod,
# where it does not start.
podman_start() {
    podman_reload "$1" || return 1
    for try in 1 2 3; do
        podman_systemctl "$1" reset-failed -- "$2" >/dev/null 2>&1 || :
        podman_systemctl "$1" "$3" -- "$2" && return 0
        # That a user's container runs, a process of podman's says that ends at once. Where systemd
        # has read its word only then, it cannot tell whose word it was and ends the unit.
        result=$(podman_systemctl "$1" show -p Result --value -- "$2" 2>/dev/null)
        case $try:$result in
        [12]:protocol | [12]:success) ;;
        *) break ;;
        esac
    done
    field=_SYSTEMD_USER_UNIT
    [ "$1" != - ] || field=_SYSTEMD_UNIT
    for of in "$2" ${4+"$4"}; do
        journalctl --no-pager -q -n 8 -o cat "$field=$of" + "USER_UNIT=$of" + "UNIT=$of" >&2 </dev/null
    done
    podman_systemctl "$1" stop -- "$2" >/dev/null 2>&1 || :
    return 1
}

# podman_put_back USER UNIT: runs again what ran, by the files as they were. At boot the slices
# are not back and the users' managers not up: those start their units themselves, and of
# root's systemd is told without waiting and in the units' own order, since it may not have
# known this one when the boot began.
podman_put_back() {
    podman_reload "$1" || return 1
    if [ -z "${DEPLOY_AT_BOOT-}" ]; then
        podman_systemctl "$1" restart -- "$2"
    elif [ "$1" = - ]; then
        command systemctl --no-block start -- "$2"
    fi
}

# podman_stop USER UNIT: also where the unit is gone already.
podman_stop() {
    if podman_unit_is "$1" "$2" inactive 2>/dev/null; then return 0; fi
    podman_systemctl "$1" stop -- "$2"
}

# podman_runs USER UNIT CONTAINER: the unit runs, and podman says that its container does.
podman_runs() {
    podman_unit_is "$1" "$2" active || return 1
    now=$(podman_as "$1" podman container inspect --format '{{.State.Status}}' -- "$3" 2>/dev/null)
    [ "$now" = running ] && return 0
    printf '%s\n' "container $3: podman says ${now:-that there is none}, not running" >&2
    return 1
}

# podman_cdi_snapshot KEY VENDOR ... the file of our own specification.
podman_cdi_is() { # VENDOR same|absent
    file=$R/etc/cdi/deploy-$1.json
    if [ "$2" = absent ]; then
        [ ! -e "$file" ] && return 0
        printf '%s\n' "$file is there" >&2
        return 1
    fi
    [ -f "$file" ] && [ "$(cat "$file")" = "$(cdi_spec "$1")" ] && return 0
    printf '%s\n' "$file: does not say what nodes the cards have" >&2
    return 1
}

# podman_cdi_names VENDOR NAME...: our own specification is there and names these.
podman_cdi_names() {
    vendor=$1
    shift
    podman_cdi_is "$vendor" same || return 1
    for name; do
        cdi_nodes "$vendor" | grep -q "^$name " && continue
        printf '%s\n' "$vendor.com/gpu=$name: the card has no such node" >&2
        return 1
    done
}

# podman_cdi_nvidia FILE: by NVIDIA's tool, with names that do not change with the order of the
# cards; tools before 1.15 have only numbers unless they are asked.
podman_cdi_nvidia() {
    nvidia-ctk cdi generate --output="$1" </dev/null || return 1
    grep -q -e 'name: GPU-' -e 'name: MIG-' -e '"name": *"\(GPU\|MIG\)-' "$1" && return 0
    nvidia-ctk cdi generate --output="$1" --device-name-strategy=uuid </dev/null
}

# podman_cdi_nvidia_names NAME...: NVIDIA's tool lists these, and in any case a card or slice.
podman_cdi_nvidia_names() {
    list=$(nvidia-ctk cdi list 2>/dev/null </dev/null) || return 1
    if ! printf '%s\n' "$list" | grep '^nvidia\.com/gpu=' | grep -qvxF nvidia.com/gpu=all; then
        printf '%s\n' 'nvidia-ctk cdi list: has no card' >&2
        return 1
    fi
    for name; do
        printf '%s\n' "$list" | grep -qxF "$name" && continue
        printf '%s\n' "nvidia-ctk cdi list: has no $name" >&2
        return 1
    done
}

# podman_mig CARD PROFILE ORDINAL: the UUID of the MIG device that is so manieth of its profile
# on the card, in the driver's order.
podman_mig() {
    list=$(nvidia-smi -L </dev/null) || return 1
    printf '%s\n' "$list" | awk -v card="(UUID: $1)" -v profile="$2" -v nth="$3" '
        /^GPU / { here = index($0, card) > 0 }
        here && $1 == "MIG" && $2 == profile && ++seen == nth {
            uuid = $NF
            sub(/\)$/, "", uuid)
            print uuid
            found = 1
        }
        END { exit !found }' && return 0
    printf '%s\n' "GPU $1 has no MIG device $2 number $3" >&2
    return 1
}

# podman_devices FILE CARD PROFILE ORDINAL ...: the names of a container's MIG devices, for its
# unit.
podman_devices() {
    file=$1
    shift
    podman_device_lines "$@" >"$file.new" && chmod 644 "$file.new" && mv -f "$file.new" "$file" && return 0
    rm -f "$file.new"
    return 1
}
podman_devices_are() {
    file=$1
    shift
    lines=$(podman_device_lines "$@") || return 1
    [ "$lines" = "$(cat "$file")" ] && return 0
    printf '%s\n' "$(shown "$file"): names other MIG devices than there are" >&2
    return 1
}
podman_device_lines() {
    echo '# Written by deploy: the MIG devices of a container.'
    number=0
    while [ $# -ge 3 ]; do
        number=$((number + 1))
        uuid=$(podman_mig "$1" "$2" "$3") || return 1
        printf 'GPU_%s=%s\n' "$number" "$uuid"
        shift 3
    done
}

# podman_member_is USER GROUP yes|no; podman_leave USER GROUP
podman_member_is() {
    case " $(id -Gn -- "$1") " in
    *" $2 "*) now=yes ;;
    *) now=no ;;
    esac
    [ "$now" = "$3" ] && return 0
    printf '%s\n' "user $1: member of $2: $now" >&2
    return 1
}
podman_leave() {
    if podman_member_is "$1" "$2" no 2>/dev/null; then return 0; fi
    gpasswd -d "$1" "$2" >/dev/null
}

# podman_linger USER UID: the user's systemd runs now and at each boot.
podman_linger() {
    loginctl enable-linger -- "$1" </dev/null && systemctl start -- "user@$2.service"
}
podman_lingers() {
    [ -e "$R/var/lib/systemd/linger/$1" ] && unit_is "user@$2.service" active
}
# podman_linger_undo USER UID LINGERED RAN
podman_linger_undo() {
    if [ "$3" = no ]; then loginctl disable-linger -- "$1" </dev/null || return 1; fi
    [ "$4" = yes ] || systemctl stop -- "user@$2.service"
}

# podman_linger_is USER yes|no
podman_linger_is() {
    now=no
    [ ! -e "$R/var/lib/systemd/linger/$1" ] || now=yes
    [ "$now" = "$2" ] && return 0
    printf '%s\n' "user $1: linger: $now" >&2
    return 1
}
# podman_unlinger USER UID: the user's systemd runs while there is a login. Without one it ends
# now: it would take logind some seconds.
podman_unlinger() {
    loginctl disable-linger -- "$1" </dev/null || return 1
    for session in $(loginctl show-user --property=Sessions --value -- "$1" 2>/dev/null </dev/null); do
        case $(loginctl show-session --property=Class --value -- "$session" 2>/dev/null </dev/null) in
        '' | manager*) ;;
        *) return 0 ;;
        esac
    done
    systemctl stop -- "user@$2.service"
}
# podman_unlinger_undo USER UID RAN. At boot logind starts it, by the file alone.
podman_unlinger_undo() {
    if [ -n "${DEPLOY_AT_BOOT-}" ]; then
        mkdir -p "$R/var/lib/systemd/linger" && : >"$R/var/lib/systemd/linger/$1"
        return
    fi
    loginctl enable-linger -- "$1" </dev/null || return 1
    [ "$3" = no ] || systemctl start -- "user@$2.service"
}

# podman_undone USER UNIT active|inactive: after a file of it was put back. What ran runs again
# by it.
podman_undone() {
    if [ "$3" = active ]; then podman_put_back "$1" "$2"; else podman_reload "$1"; fi
}

# podman_sebool_is NAME on|off
podman_sebool_is() {
    now=$(getsebool "$1" </dev/null) || return 1
    [ "${now##* }" = "$2" ] && return 0
    printf '%s\n' "SELinux boolean $1: is ${now##* }, not $2" >&2
    return 1
}
