# MIG mode and layout of one card. Sourced; POSIX sh with awk and sort.
#
# A layout is a list of words PROFILE:START:SIZE/COMPUTE, one for each GPU
# instance: profile id, first unit of the placement grid, units, and the compute
# instances in it, each `full` or `1c`, `2c`, …, joined by commas. Nothing is
# believed by exit status alone: what was done is read back.

# mig_none TEXT: whether a listing says that there is nothing. Without permission it begins
# with the same words.
mig_none() {
    case $1 in
    *'Insufficient Permissions'*) return 1 ;;
    *'No GPU instances found'* | *'No compute instances found'* | *'No MIG-enabled devices found'*) return 0 ;;
    *) return 1 ;;
    esac
}

# mig_gis GPU: the GPU instances that exist, as ID@PROFILE:START:SIZE, one a line.
mig_gis() (
    status=0
    out=$(nvidia-smi mig -i "$1" -lgi 2>&1 </dev/null) || status=$?
    mig_none "$out" && exit 0
    rows=$(printf '%s\n' "$out" | awk '
        /^\|/ && /MIG / {
            gsub(/\|/, " ")
            if (split($NF, place, ":") == 2 && $(NF - 1) ~ /^[0-9]+$/ && $(NF - 2) ~ /^[0-9]+$/)
                print $(NF - 1) "@" $(NF - 2) ":" place[1] ":" place[2]
        }')
    if [ "$status" -ne 0 ] || [ -z "$rows" ]; then
        printf '%s\n' "GPU $1: the GPU instances cannot be listed: $out" >&2
        exit 1
    fi
    printf '%s\n' "$rows"
)

# mig_cis GPU: the compute instances that exist, as GI:ID:WORD, one a line.
mig_cis() (
    status=0
    out=$(nvidia-smi mig -i "$1" -lci 2>&1 </dev/null) || status=$?
    mig_none "$out" && exit 0
    rows=$(printf '%s\n' "$out" | awk '
        /^\|/ {
            gsub(/\|/, " ")
            if ($1 !~ /^[0-9]+$/ || $2 !~ /^[0-9]+$/ || $3 != "MIG" || $6 !~ /^[0-9]+$/) next
            word = "full"
            if ($4 ~ /^[0-9]+c\./) { word = $4; sub(/\..*/, "", word) }
            print $2 ":" $6 ":" word
        }')
    if [ "$status" -ne 0 ] || [ -z "$rows" ]; then
        printf '%s\n' "GPU $1: the compute instances cannot be listed: $out" >&2
        exit 1
    fi
    printf '%s\n' "$rows"
)

# mig_parts GI CIS: one GPU instance's compute instances in the order of their ids,
# joined by commas.
mig_parts() (
    gi=$1
    shift
    words=
    for ci in "$@"; do
        if [ "${ci%%:*}" = "$gi" ]; then words="$words${words:+,}${ci##*:}"; fi
    done
    printf '%s' "$words"
)

# mig_sorted PARTS: the same in alphabetical order, by which layouts are compared.
mig_sorted() {
    case $1 in
    *,*) printf '%s\n' "$1" | tr ',' '\n' | LC_ALL=C sort | awk 'NF { printf "%s%s", comma, $0; comma = "," }' ;;
    *) printf '%s' "$1" ;;
    esac
}

# mig_rows GPU: the GPU instances that exist as `ID WORD`, one a line, in the order of the
# ids, and the compute instances of each in the order of theirs.
mig_rows() (
    gis=$(mig_gis "$1") || exit 1
    [ -n "$gis" ] || exit 0
    cis=$(mig_cis "$1") || exit 1
    gis=$(printf '%s\n' "$gis" | sort -n)
    cis=$(printf '%s\n' "$cis" | sort -t : -k 1,1n -k 2,2n)
    for row in $gis; do
        # shellcheck disable=SC2086
        printf '%s %s/%s\n' "${row%%@*}" "${row#*@}" "$(mig_parts "${row%%@*}" $cis)"
    done
)

# mig_layout GPU: the layout as it is, one word a line.
mig_layout() (
    rows=$(mig_rows "$1") || exit 1
    printf '%s\n' "$rows" | awk 'NF { print $2 }'
)

# mig_compared WORD...: words so that equal layouts are equal texts.
mig_compared() (
    for word in "$@"; do
        printf '%s/%s\n' "${word%%/*}" "$(mig_sorted "${word#*/}")"
    done | LC_ALL=C sort
)

# mig_is GPU WORD...: succeeds if the layout is exactly this.
mig_is() (
    gpu=$1
    shift
    have=$(mig_layout "$gpu") || exit 1
    # shellcheck disable=SC2086
    have=$(mig_compared $have)
    want=$(mig_compared "$@")
    [ "$have" = "$want" ] && exit 0
    have=$(printf '%s' "$have" | tr '\n' ' ')
    want=$(printf '%s' "$want" | tr '\n' ' ')
    printf '%s\n' "GPU $gpu: the MIG layout is [$have], expected [$want]" >&2
    exit 1
)

# mig_do ARGUMENTS: nvidia-smi mig, its words passed on; they tell why where it fails.
mig_do() (
    status=0
    out=$(nvidia-smi mig "$@" 2>&1 </dev/null) || status=$?
    if [ "$status" -ne 0 ]; then
        printf '%s\n' "nvidia-smi mig $*: status $status: $out" >&2
        case "$3 $out" in
        -cgi*'Invalid Argument'*)
            names=$(nvidia-smi mig -i "$2" -lgip 2>/dev/null </dev/null | awk '
                /^\|/ && /MIG / { gsub(/\|/, " "); printf "%s%s", comma, $3; comma = ", " }')
            [ -z "$names" ] || printf '%s\n' "this driver offers only $names; a newer one may have more" >&2
            ;;
        esac
        exit 1
    fi
    printf '%s\n' "$out"
)

# mig_drop_cis GPU GI: destroys the compute instances of one GPU instance.
mig_drop_cis() (
    cis=$(mig_cis "$1") || exit 1
    ids=
    for ci in $cis; do
        if [ "${ci%%:*}" = "$2" ]; then
            ci=${ci#*:}
            ids="$ids${ids:+,}${ci%%:*}"
        fi
    done
    [ -n "$ids" ] || exit 0
    mig_do -i "$1" -gi "$2" -ci "$ids" -dci
)

# mig_make_cis GPU GI WORDS: creates compute instances, by the profile ids that the driver lists.
mig_make_cis() (
    status=0
    out=$(nvidia-smi mig -i "$1" -gi "$2" -lcip 2>&1 </dev/null) || status=$?
    ids=$(printf '%s\n' "$out" | awk -v wanted="$3" '
        /^\|/ {
            gsub(/\|/, " ")
            if ($1 !~ /^[0-9]+$/ || $3 != "MIG" || $5 !~ /^[0-9]+\*?$/) next
            id = $5
            sub(/\*/, "", id)
            word = "full"
            if ($4 ~ /^[0-9]+c\./) { word = $4; sub(/\..*/, "", word) }
            # The star marks the one that takes the whole GPU instance.
            if ($5 ~ /\*/) word = "full"
            if (!(word in known) || $5 ~ /\*/) known[word] = id
        }
        END {
            count = split(wanted, words, ",")
            for (i = 1; i <= count; i++) {
                if (!(words[i] in known)) exit 1
                printf "%s%s", (i > 1 ? "," : ""), known[words[i]]
            }
        }') || status=1
    if [ "$status" -ne 0 ] || [ -z "$ids" ]; then
        printf '%s\n' "GPU $1: GPU instance $2 offers no compute instances $3: $out" >&2
        exit 1
    fi
    mig_do -i "$1" -gi "$2" -cci "$ids"
)

# mig_ensure GPU WORD...: makes the layout exactly this, in the order of the words.
# Instances that are in both the present and the wanted layout are not touched.
mig_ensure() (
    gpu=$1
    shift
    gis=$(mig_gis "$gpu") || exit 1
    for row in $gis; do
        keep=
        for word in "$@"; do
            [ "${word%%/*}" = "${row#*@}" ] && keep=1
        done
        [ -n "$keep" ] && continue
        mig_drop_cis "$gpu" "${row%%@*}" || exit 1
        mig_do -i "$gpu" -gi "${row%%@*}" -dgi || exit 1
    done

    create=
    whole=-C
    for word in "$@"; do
        here=
        for row in $gis; do
            [ "${word%%/*}" = "${row#*@}" ] && here=1
        done
        [ -n "$here" ] && continue
        place=${word%%/*}
        create="$create${create:+,}${place%:*}"
        [ "${word#*/}" = full ] || whole=
    done
    if [ -n "$create" ]; then
        # All in one call and in this order, so that the driver gives the same ids, and with
        # them the same UUIDs, whenever the layout is made on an empty card.
        mig_do -i "$gpu" -cgi "$create" ${whole:+"$whole"} || exit 1
    fi

    gis=$(mig_gis "$gpu") || exit 1
    cis=$(mig_cis "$gpu") || exit 1
    for word in "$@"; do
        for row in $gis; do
            [ "${word%%/*}" = "${row#*@}" ] || continue
            # shellcheck disable=SC2086
            have=$(mig_parts "${row%%@*}" $cis)
            [ "$(mig_sorted "$have")" = "$(mig_sorted "${word#*/}")" ] && continue
            mig_drop_cis "$gpu" "${row%%@*}" || exit 1
            if [ -n "${word#*/}" ]; then
                mig_make_cis "$gpu" "${row%%@*}" "${word#*/}" || exit 1
            fi
        done
    done
    mig_is "$gpu" "$@"
)

# mig_mode_of GPU: the mode in force and the one after the next reset, such as "Enabled Enabled".
mig_mode_of() (
    status=0
    out=$(nvidia-smi -i "$1" --query-gpu=mig.mode.current,mig.mode.pending --format=csv,noheader \
        2>&1 </dev/null) || status=$?
    case $out in
    Enabled,*Enabled) echo 'Enabled Enabled' ;;
    Disabled,*Disabled) echo 'Disabled Disabled' ;;
    Enabled,*Disabled) echo 'Enabled Disabled' ;;
    Disabled,*Enabled) echo 'Disabled Enabled' ;;
    *)
        printf '%s\n' "GPU $1: the MIG mode cannot be read (status $status): $out" >&2
        exit 1
        ;;
    esac
)

# mig_mode_is GPU CURRENT PENDING: succeeds if the modes are these (Enabled or Disabled).
# A change that was pending before and is not any more after an undo is told, and no more:
# no driver brings that back.
mig_mode_is() (
    have=$(mig_mode_of "$1") || exit 1
    [ "$have" = "$2 $3" ] && exit 0
    printf '%s\n' "GPU $1: MIG mode is ${have% *} (after a reset ${have#* }), expected $2 (after a reset $3)" >&2
    [ -n "${DEPLOY_AFTER_UNDO-}" ] && [ "$have" = "$2 $2" ] && exit 0
    exit 1
)

# mig_held: names what holds every card without a process that could be found.
mig_held() {
    if [ "$(cat "$R/sys/module/nvidia_drm/parameters/modeset" 2>/dev/null)" = Y ]; then
        printf '%s\n' "nvidia_drm is loaded with modeset=1, which holds the cards as a display does: run 'modprobe -r nvidia_drm' if no display needs them, or put 'options nvidia-drm modeset=0' into a file below /etc/modprobe.d and restart the host" >&2
    fi
    if mig_has_fabric && ! systemctl is-active --quiet nvidia-fabricmanager.service 2>/dev/null; then
        printf '%s\n' "nvidia-fabricmanager.service does not run: before Hopper a card of a board with NVSwitches can be reset alone only while it does; start it, then run deploy again" >&2
    fi
}

# mig_has_fabric: whether this host's cards are joined by NVSwitches, which need their manager.
mig_has_fabric() {
    systemctl is-enabled --quiet nvidia-fabricmanager.service 2>/dev/null
}

# mig_fabric GPU: has the fabric manager run after MIG mode was switched off, since NVLink does
# not come back without it.
mig_fabric() {
    mig_has_fabric || return 0
    systemctl is-active --quiet nvidia-fabricmanager.service 2>/dev/null && return 0
    systemctl start nvidia-fabricmanager.service </dev/null || :
    systemctl is-active --quiet nvidia-fabricmanager.service 2>/dev/null && return 0
    printf '%s\n' "GPU $1: nvidia-fabricmanager.service cannot be started, so that NVLink does not come back with MIG mode off" >&2
    return 1
}

# mig_mode GPU 0|1 [reset]: switches the mode. A mode that stays pending is put in
# force by a reset of the card where that is allowed.
mig_mode() (
    want=Disabled
    [ "$2" = 1 ] && want=Enabled
    have=$(mig_mode_of "$1") || exit 1
    [ "$have" = "$want $want" ] && exit 0
    out=
    if [ "${have#* }" != "$want" ] || [ "${3:-}" != reset ]; then
        out=$(nvidia-smi -i "$1" -mig "$2" 2>&1 </dev/null) || :
        have=$(mig_mode_of "$1") || exit 1
    fi
    if [ "$have" != "$want $want" ] && [ "${have#* }" = "$want" ] && [ "${3:-}" = reset ]; then
        # The persistence daemon holds every card, which is enough to refuse a reset.
        if systemctl is-active --quiet nvidia-persistenced.service 2>/dev/null; then
            trap 'systemctl start nvidia-persistenced.service </dev/null' EXIT
            trap 'exit 1' HUP INT TERM
            systemctl stop nvidia-persistenced.service </dev/null
        fi
        out="$out
$(nvidia-smi --gpu-reset -i "$1" 2>&1 </dev/null)" || :
        have=$(mig_mode_of "$1") || exit 1
    fi
    if [ "$have" = "$want $want" ]; then
        printf '%s\n' "$out"
        [ "$want" = Enabled ] || mig_fabric "$1" || exit 1
        exit 0
    fi
    printf '%s\n' "GPU $1: MIG mode is ${have% *} (after a reset ${have#* }), expected $want: $out" >&2
    mig_held
    if [ "${have#* }" = "$want" ]; then
        printf '%s\n' "if nothing uses the card, only a restart of the host puts it in force: on the host run 'nvidia-smi -i $1 -mig $2', restart it, then run deploy again" >&2
    fi
    exit 1
)

# boot_mig GPU WORD...: mode and layout after a boot.
boot_mig() {
    mig_mode "$1" 1 reset && mig_ensure "$@"
}
