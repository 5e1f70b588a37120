# shellcheck shell=sh
# What the steps of a run call: looking at, keeping, making and bringing back
# paths and units. Sourced by every script in `steps/`; runs on dash, bash and
# busybox. Tests (`…_is_…`) are quiet and 0 when it is so; otherwise they say
# what there is instead and are 1. A path argument is absolute and already has
# the host's root prefix $R; $RUN is the run directory. To look at a run by
# hand:  sh /var/lib/deploy/runs/ID/steps/001-…/verify
# Before it stands lib/flush.sh.

if [ "${deploy_library-}" = "$RUN" ]; then return 0; fi
deploy_library=$RUN
R=${RUN%/var/lib/deploy/runs/*}
LC_ALL=C
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export R RUN LC_ALL PATH

# with_systemd: whether systemd runs here, and can be asked to run things for us.
with_systemd() {
    [ -d "$R/run/systemd/system" ] && command -v systemctl >/dev/null && command -v systemd-run >/dev/null
}

# At boot the start of a unit must not wait for what waits for us.
if [ -n "${DEPLOY_AT_BOOT-}" ]; then
    systemctl() { command systemctl --job-mode=ignore-dependencies "$@"; }
fi

say() { printf '%s\n' "$*" >&2; }

# if_marked PATH COMMAND…: only where something stands at the path.
if_marked() {
    [ -e "$1" ] || return 0
    shift
    "$@"
}

# unheard COMMAND…: what it says may be a secret and is kept nowhere; its status is.
unheard() {
    "$@" >/dev/null 2>&1 && return 0
    status=$?
    say "it ended with status $status; what it said is not shown (no_log)"
    return "$status"
}

# The path as people know it, without the root prefix.
shown() { printf '%s' "${1#"$R"}"; }

# A name for a file in the making, beside its target, so that the last move
# stays within one file system. The same in every call of a run: what a killed
# step left is found again.
beside() { printf '%s/.deploy.%s' "${1%/*}" "${RUN##*/}"; }

# kind_of PATH: absent, link, file, dir or other.
kind_of() {
    if [ -L "$1" ]; then echo link
    elif [ -f "$1" ]; then echo file
    elif [ -d "$1" ]; then echo dir
    elif [ -e "$1" ]; then echo other
    else echo absent
    fi
}

# Renames over whatever is no directory, also over a link to one, which a plain
# `mv` would move into.
rename_over() {
    mv -fT "$1" "$2" 2>/dev/null && return 0
    if [ -L "$2" ]; then rm -f "$2" || return 1; fi
    if [ -d "$2" ]; then say "$(shown "$2"): is a directory"; return 1; fi
    mv -f "$1" "$2"
}

# A whole copy of one file or link: mode, owner, times, and where `cp` can, attributes.
copy_exact() { cp -a "$1" "$2" 2>/dev/null || cp -pP "$1" "$2"; }

sha256_of() {
    sum=$(sha256sum <"$1") || return 1
    printf '%s' "${sum%% *}"
}

# --- what stands at a path -------------------------------------------------

# attributes_are PATH MODE OWNER GROUP: owner and group by name or number.
attributes_are() {
    # shellcheck disable=SC2046 # five words without blanks
    set -- "$@" $(stat -c '%a %U %u %G %g' "$1")
    [ "$#" -eq 9 ] || { say "$(shown "$1"): cannot be looked at"; return 1; }
    want=$2
    while [ "${want#0}" != "$want" ] && [ "$want" != 0 ]; do want=${want#0}; done
    if [ "$want" != "$5" ]; then
        say "$(shown "$1"): mode is $5, not $want"
        return 1
    fi
    if [ "$3" != "$6" ] && [ "$3" != "$7" ]; then
        say "$(shown "$1"): owner is $6, not $3"
        return 1
    fi
    if [ "$4" != "$8" ] && [ "$4" != "$9" ]; then
        say "$(shown "$1"): group is $8, not $4"
        return 1
    fi
}

path_is_absent() {
    kind=$(kind_of "$1")
    [ "$kind" = absent ] || { say "$(shown "$1"): is there ($kind)"; return 1; }
}

# path_is_file PATH SHA256 MODE OWNER GROUP
path_is_file() {
    kind=$(kind_of "$1")
    [ "$kind" = file ] || { say "$(shown "$1"): is no file but $kind"; return 1; }
    sum=$(sha256_of "$1") || return 1
    [ "$sum" = "$2" ] || { say "$(shown "$1"): its content is another (SHA-256 $sum)"; return 1; }
    attributes_are "$1" "$3" "$4" "$5"
}

# path_is_dir PATH MODE OWNER GROUP
path_is_dir() {
    kind=$(kind_of "$1")
    [ "$kind" = dir ] || { say "$(shown "$1"): is no directory but $kind"; return 1; }
    attributes_are "$1" "$2" "$3" "$4"
}

# path_is_link PATH TARGET
path_is_link() {
    [ -L "$1" ] || { say "$(shown "$1"): is no link but $(kind_of "$1")"; return 1; }
    # The x keeps newlines at the end, which $(…) would drop.
    target=$(readlink -n "$1" && echo x) || return 1
    [ "$target" = "${2}x" ] || { say "$(shown "$1"): points to ${target%x}"; return 1; }
}

# --- making paths ------------------------------------------------------------

# own PATH MODE OWNER GROUP: only what differs, so that a user who is not root
# can manage what is the user's own. The owner first: chown drops set-id bits.
own() {
    now=$(stat -c '%U:%G' "$1") && numbers=$(stat -c '%u:%g' "$1") || return 1
    if [ "$now" != "$3:$4" ] && [ "$numbers" != "$3:$4" ]; then
        chown "$3:$4" "$1" || return 1
    fi
    chmod "$2" "$1"
}

# put_file PAYLOAD PATH MODE OWNER GROUP: replaces a file or a link at once,
# never a directory; PAYLOAD is a path or a name in `payload/`.
put_file() {
    case $1 in
        */*) from=$1 ;;
        *) from=$RUN/payload/$1 ;;
    esac
    case $(kind_of "$2") in
        dir | other) say "$(shown "$2"): is no file; not replaced"; return 1 ;;
    esac
    temp=$(beside "$2")
    rm -f "$temp" || return 1
    # Made for its owner only: a secret is never readable, not even for a moment. And made
    # anew (-C): nobody who may write to the folder can put a link there meanwhile.
    if (umask 077 && set -C && cat "$from" >"$temp") && own "$temp" "$3" "$4" "$5" &&
        flush "$temp" && rename_over "$temp" "$2"; then
        flush "${2%/*}/"
        return
    fi
    rm -f "$temp"
    return 1
}

# put_dir PATH MODE OWNER GROUP: makes one directory, or changes what it has.
put_dir() {
    case $(kind_of "$1") in
        dir) ;;
        absent) (umask 077 && mkdir "$1") || return 1 ;;
        *) say "$(shown "$1"): is no directory; not replaced"; return 1 ;;
    esac
    own "$1" "$2" "$3" "$4" && flush "${1%/*}/"
}

# put_link PATH TARGET: replaces a link or a file at once.
put_link() {
    case $(kind_of "$1") in
        dir | other) say "$(shown "$1"): is no link; not replaced"; return 1 ;;
    esac
    temp=$(beside "$1")
    rm -f "$temp" && ln -s -- "$2" "$temp" || return 1
    rename_over "$temp" "$1" || { rm -f "$temp"; return 1; }
    flush "${1%/*}/"
}

# remove_path PATH: a file, a link or an empty directory; nothing there is right too.
remove_path() {
    case $(kind_of "$1") in
        absent) return 0 ;;
        dir) rmdir "$1" || return 1 ;;
        *) rm -f "$1" || return 1 ;;
    esac
    flush "${1%/*}/"
}

# remove_tree PATH: with all that is in it. A mount below stops it before
# anything is lost.
remove_tree() {
    case ${1#"$R"} in
        '' | / | /. | /..) say "the root is not removed"; return 1 ;;
    esac
    if [ "$(kind_of "$1")" = dir ]; then
        mounts=$(while read -r _ at _; do
            case $at in "$1" | "$1"/*) printf '%s ' "$at" ;; esac
        done 2>/dev/null </proc/mounts)
        [ -z "$mounts" ] || { say "$(shown "$1"): mounted below: $mounts"; return 1; }
        rm -rf "$1" || return 1
        flush "${1%/*}/"
        return
    fi
    remove_path "$1"
}

# --- keeping and bringing back ---------------------------------------------

# path_snapshot KEY PATH: what stands there, absolutely. Of a directory only
# mode and owner are kept; `tree_snapshot` keeps all of it.
path_snapshot() { keep "$1" "$2" dir; }
tree_snapshot() { keep "$1" "$2" tree; }

keep() {
    kept=$RUN/snapshot/$1
    [ -e "$kept/kind" ] && return 0
    mkdir -p "$kept" || return 1
    kind=$(kind_of "$2")
    case $kind in
        absent) ;;
        file | link) copy_exact "$2" "$kept/content" || return 1 ;;
        dir)
            kind=$3
            if [ "$kind" = tree ]; then
                rm -rf "$kept/content"
                cp -a "$2" "$kept/content" || return 1
            else
                stat -c '%a %u %g' "$2" >"$kept/attributes" || return 1
            fi
            ;;
        other) say "$(shown "$2"): is a device, a socket or a pipe; not touched"; return 1 ;;
    esac
    # The kind last: without it there is no snapshot.
    echo "$kind" >"$kept/kind"
}

# path_restore KEY PATH: exactly what was kept, from whatever stands there now;
# what already is as it was is not touched.
path_restore() {
    kept=$RUN/snapshot/$1
    read -r kind <"$kept/kind" || { say "$(shown "$2"): no snapshot of it"; return 1; }
    temp=$(beside "$2")
    if [ -e "$temp" ] || [ -L "$temp" ]; then rm -rf "$temp" || return 1; fi
    case $kind in
        absent) remove_path "$2" ;;
        file) is_as_kept "$2" || bring_back "$2" ;;
        link)
            target=$(readlink -n "$kept/content" && echo x) || return 1
            path_is_link "$2" "${target%x}" 2>/dev/null || bring_back "$2"
            ;;
        dir)
            read -r mode user group <"$kept/attributes" || return 1
            put_dir "$2" "$mode" "$user" "$group"
            ;;
        tree)
            [ "$(kind_of "$2")" = dir ] && same_tree "$kept/content" "$2" && return 0
            cp -a "$kept/content" "$temp" || { rm -rf "$temp"; return 1; }
            remove_tree "$2" && mv "$temp" "$2" && flush "${2%/*}/"
            ;;
        *) say "$(shown "$2"): its snapshot is damaged"; return 1 ;;
    esac
}

is_as_kept() {
    [ "$(kind_of "$1")" = file ] &&
        [ "$(stat -c '%a %u %g %s %Y' "$1")" = "$(stat -c '%a %u %g %s %Y' "$kept/content")" ] &&
        cmp -s "$1" "$kept/content"
}

bring_back() {
    if [ "$(kind_of "$1")" = dir ]; then rmdir "$1" || return 1; fi
    if copy_exact "$kept/content" "$temp"; then
        if [ -f "$temp" ] && [ ! -L "$temp" ]; then flush "$temp"; fi
        rename_over "$temp" "$1" || { rm -f "$temp"; return 1; }
        flush "${1%/*}/"
        return
    fi
    rm -f "$temp"
    # No room for a second copy: write over what is there, which first frees it.
    if [ -f "$1" ] && [ ! -L "$1" ] && [ ! -L "$kept/content" ]; then
        say "$(shown "$1"): no room beside it; written in place"
        cat "$kept/content" >"$1" && own "$1" "$(stat -c %a "$kept/content")" \
            "$(stat -c %u "$kept/content")" "$(stat -c %g "$kept/content")" &&
            touch -r "$kept/content" "$1" && flush "$1"
        return
    fi
    return 1
}

# Names, kinds, modes, owners, sizes and times, then contents.
same_tree() {
    [ "$(tree_listing "$1")" = "$(tree_listing "$2")" ] && diff -r "$1" "$2" >/dev/null 2>&1
}
tree_listing() { (cd "$1" && find . -exec stat -c '%n %F %a %u %g %Y' {} + | sort); }

# --- units -------------------------------------------------------------------

unit_enabled() { systemctl is-enabled -- "$1" 2>/dev/null || :; }
unit_active() { systemctl is-active -- "$1" 2>/dev/null || :; }

# unit_is UNIT active|inactive. A failed unit is not running: inactive.
unit_is() {
    now=$(unit_active "$1")
    case $2:$now in
        active:active | inactive:inactive | inactive:failed | inactive:unknown | inactive:) return 0 ;;
    esac
    say "unit $1: is ${now:-unknown}, not $2"
    return 1
}

# unit_enabled_is UNIT enabled|disabled|masked. A unit that does not exist is disabled.
unit_enabled_is() {
    now=$(unit_enabled "$1")
    case $2:$now in
        enabled:enabled | disabled:disabled | disabled:not-found | disabled: | masked:masked) return 0 ;;
    esac
    say "unit $1: is ${now:-not there}, not $2"
    return 1
}

# Makes systemd read its unit files again.
unit_reload() { systemctl daemon-reload; }

# unit_snapshot KEY UNIT
unit_snapshot() {
    kept=$RUN/snapshot/$1
    [ -e "$kept/unit" ] && return 0
    command -v systemctl >/dev/null || { say "there is no systemctl here"; return 1; }
    mkdir -p "$kept" || return 1
    active=$(unit_active "$2")
    enabled=$(unit_enabled "$2")
    printf '%s %s\n' "${active:-unknown}" "${enabled:-not-found}" >"$kept/unit"
}

# unit_restore KEY UNIT: boot state first, so that a unit that is masked can be started.
unit_restore() {
    kept=$RUN/snapshot/$1
    read -r active enabled <"$kept/unit" || { say "unit $2: no snapshot of it"; return 1; }
    now=$(unit_enabled "$2")
    if [ "$now" != "$enabled" ]; then
        if [ "$now" = masked ]; then systemctl unmask -- "$2" || return 1; fi
        case $enabled in
            enabled) systemctl enable -- "$2" || return 1 ;;
            masked) systemctl mask -- "$2" || return 1 ;;
            *) if [ "$now" = enabled ]; then systemctl disable -- "$2" || return 1; fi ;;
        esac
    fi
    case $active in
        active | activating | reloading) unit_is "$2" active 2>/dev/null || systemctl start -- "$2" ;;
        *) unit_is "$2" inactive 2>/dev/null || systemctl stop -- "$2" ;;
    esac
}
