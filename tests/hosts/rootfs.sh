#!/bin/bash
# Builds the root file systems of the test hosts, each once; see debian.sh.
#
#   rootfs.sh plain      sshd and a POSIX userland, no systemd        (about 130 MB)
#   rootfs.sh systemd    the same with systemd as init                (about 180 MB)
#   rootfs.sh podman     that with podman, crun and runc, and an image  (about 310 MB)
#   rootfs.sh incus      that with the Incus daemon and its client    (about 370 MB)
#   rootfs.sh clean      removes all of them
#
# Prints the folder: in ${DEPLOY_TEST_HOSTS:-target/test-hosts}. Hosts put their own files
# into overlays and never write here.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
# shellcheck source-path=SCRIPTDIR source=debian.sh
. "$here/debian.sh"

plain=(openssh-server iproute2 procps kmod)

build_plain() {
    bootstrap "$1" "${plain[@]}"
    furnish_sshd "$1"
    # Nothing mounts tmpfs and makes the folder of a daemon here: PAM would only ask systemd.
    echo 'UsePAM no' >>"$1/etc/ssh/sshd_config.d/10-test-host.conf"
}

build_systemd() {
    bootstrap "$1" "${plain[@]}" systemd-sysv dbus libpam-systemd
    furnish_sshd "$1"
    furnish_systemd "$1"
}

build_podman() {
    bootstrap "$1" "${plain[@]}" systemd-sysv dbus libpam-systemd dbus-user-session \
        podman crun runc catatonit uidmap passt netavark aardvark-dns nftables busybox-static
    furnish_sshd "$1"
    furnish_systemd "$1"
    local unit
    for unit in podman-auto-update.timer netavark-dhcp-proxy.{socket,service}; do
        ln -sf /dev/null "$1/etc/systemd/system/$unit"
    done
    # Where the machine keeps its controllers in control groups of version 1, there is none
    # for the hosts: podman's own limit of processes would let no container start.
    mkdir -p "$1/etc/containers"
    printf '[containers]\npids_limit = 0\n' >"$1/etc/containers/containers.conf"
    # A user without a password, whose containers are rootless, and the group that udev's
    # package makes for render nodes.
    chroot "$1" groupadd --system render
    chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 worker
    furnish_image "$1"
}

# The image that test containers run: busybox, as a file for `podman load`.
furnish_image() { # FOLDER
    local image=$1/usr/local/share/test-image applet
    mkdir -p "$image"/{rootfs/bin,rootfs/tmp,rootfs/etc}
    cp "$1/usr/bin/busybox" "$image/rootfs/bin/busybox"
    for applet in sh ls cat sleep echo env true stat test id grep; do ln -s busybox "$image/rootfs/bin/$applet"; done
    tar -C "$image/rootfs" -c . >"$image/busybox.tar"
    rm -rf "$image/rootfs"
}

# No image, no network: containers are made empty, or from busybox, which is one file.
build_incus() {
    bootstrap "$1" "${plain[@]}" systemd-sysv dbus libpam-systemd incus-base incus-client busybox-static
    furnish_sshd "$1"
    furnish_systemd "$1"
    # No test waits for the daemon of hosts that never ask it: its socket starts it.
    local unit
    for unit in incus.service incus-startup.service; do
        rm -f "$1/etc/systemd/system/multi-user.target.wants/$unit"
    done
}

case ${1-} in
    plain | systemd | podman | incus) build "$1" "$here/rootfs.sh" ;;
    clean) rm -rf "$cache"/{plain,systemd,podman,incus}-* "$cache"/{plain,systemd,podman,incus}.lock ;;
    *) usage "$0" ;;
esac
