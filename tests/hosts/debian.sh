# shellcheck shell=bash
# How the test hosts' file systems are made: Debian 13 (trixie) from the mirror that this
# machine's apt uses, or deb.debian.org where that is no Debian. Each is built once and kept
# in $cache under a name that changes with the scripts that make it; two callers at once
# build one. Sourced after lib.sh, not run.

suite=trixie

# The mirror is asked for at run time, so that a local one is used where there is one.
mirror() {
    local found
    found=$(known_mirror)
    if [ -z "$found" ]; then
        apt-get update -qq >&2 || :
        found=$(known_mirror)
    fi
    echo "${found:-http://deb.debian.org/debian}"
}
known_mirror() {
    # shellcheck disable=SC2016 # the placeholder is apt's, not the shell's
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | sort -u | sed -n 1p
}

# Folders that no test host needs.
left_out=(/usr/share/doc /usr/share/man /usr/share/locale)

# bootstrap FOLDER PACKAGE...: a minimal system with these packages, no keys, no name.
bootstrap() {
    local folder=$1 options=() path
    shift
    for path in "${left_out[@]}"; do options+=(--dpkgopt="path-exclude=$path/*"); done
    mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "$*")" \
        --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
        "${options[@]}" --dpkgopt=force-unsafe-io \
        "$suite" "$folder" "$(mirror)"
    rm -rf "$folder"/etc/ssh/ssh_host_*_key* "$folder/etc/hostname" \
        "$folder"/var/lib/apt/lists/* "$folder"/var/cache/apt/*.bin
}

# One kind of host key, no reverse look-ups, and no limit that a test of many
# connections would meet.
furnish_sshd() { # FOLDER
    printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'UseDNS no' 'MaxStartups 500:30:1000' \
        >"$1/etc/ssh/sshd_config.d/10-test-host.conf"
}

# What a first boot does is done here once, and nothing runs by the clock.
furnish_systemd() { # FOLDER
    local unit
    for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
        e2scrub_all.timer e2scrub_reap.service sshd-keygen.service systemd-firstboot.service; do
        ln -sf /dev/null "$1/etc/systemd/system/$unit"
    done
    mkdir -p "$1/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=persistent\nSystemMaxUse=16M\nSystemMaxFileSize=4M\n' \
        >"$1/etc/systemd/journald.conf.d/10-test-host.conf"
    touch "$1/etc/.updated" "$1/var/.updated"
    : >"$1/etc/machine-id"
}

# build NAME SCRIPT: has build_NAME fill a folder unless that was done already by the SCRIPT
# as it is now, and prints the folder.
build() {
    local version target started=$SECONDS
    version=$(cat "$2" "$here/debian.sh" | sha256sum | cut -c1-12)
    target=$cache/$1-$version
    if [ ! -d "$target" ]; then
        need_root
        need mmdebstrap mmdebstrap
        mkdir -p "$cache"
        exec 9>"$cache/$1.lock"
        flock 9
    fi
    if [ ! -d "$target" ]; then
        echo "building \`$1\` for the test hosts, once ..." >&2
        rm -rf "$target.new"
        "build_$1" "$target.new" >&2
        mv "$target.new" "$target"
        echo "built $target in $((SECONDS - started)) s, $(du -sh "$target" | cut -f1)" >&2
    fi
    echo "$target"
}
