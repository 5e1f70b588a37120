#!/bin/bash
# Builds the root file systems of the test hosts, each once: Debian 13 (trixie) from the
# mirror that this machine's apt uses, or deb.debian.org where that is no Debian.
#
#   rootfs.sh plain      sshd and a POSIX userland, no systemd        (about 130 MB)
#   rootfs.sh systemd    the same with systemd as init                (about 180 MB)
#   rootfs.sh clean      removes all of them
#
# Prints the folder. They are kept in ${DEPLOY_TEST_HOSTS:-target/test-hosts} under a name
# that changes with this script, so that a changed script builds them anew; two callers at
# once build one. Hosts put their own files into overlays and never write here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

suite=trixie
version=$(sha256sum "$here/rootfs.sh" | cut -c1-12)

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

# bootstrap FOLDER PACKAGE...: a minimal system with these packages, no keys, no name.
bootstrap() {
    local folder=$1
    shift
    mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "$*")" \
        --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
        "$suite" "$folder" "$(mirror)"
    rm -rf "$folder"/etc/ssh/ssh_host_*_key* "$folder/etc/hostname" \
        "$folder"/var/lib/apt/lists/* "$folder"/var/cache/apt/*.bin
    # One kind of host key, no reverse look-ups, and no limit that a test of many
    # connections would meet.
    printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'UseDNS no' 'MaxStartups 500:30:1000' \
        >"$folder/etc/ssh/sshd_config.d/10-test-host.conf"
}

plain=(openssh-server iproute2 procps kmod)

build_plain() {
    bootstrap "$1" "${plain[@]}"
    # Nothing mounts tmpfs and makes the folder of a daemon here: PAM would only ask systemd.
    echo 'UsePAM no' >>"$1/etc/ssh/sshd_config.d/10-test-host.conf"
}

build_systemd() {
    local unit
    bootstrap "$1" "${plain[@]}" systemd-sysv dbus libpam-systemd
    # What a first boot does is done here once, and nothing runs by the clock.
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

build() {
    local target=$cache/$1-$version started=$SECONDS
    if [ ! -d "$target" ]; then
        need_root
        need mmdebstrap mmdebstrap
        mkdir -p "$cache"
        exec 9>"$cache/$1.lock"
        flock 9
    fi
    if [ ! -d "$target" ]; then
        echo "building the root file system \`$1\` of the test hosts, once ..." >&2
        rm -rf "$target.new"
        "build_$1" "$target.new" >&2
        mv "$target.new" "$target"
        echo "built $target in $((SECONDS - started)) s, $(du -sh "$target" | cut -f1)" >&2
    fi
    echo "$target"
}

case ${1-} in
    plain | systemd) build "$1" ;;
    clean) rm -rf "$cache"/plain-* "$cache"/systemd-* "$cache"/*.lock ;;
    *) usage "$0" ;;
esac
