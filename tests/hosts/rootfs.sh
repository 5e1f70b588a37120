#!/bin/bash
# Builds the root file systems of the test hosts, each once; see debian.sh.
#
#   rootfs.sh plain      sshd and a POSIX userland, no systemd        (about 130 MB)
#   rootfs.sh systemd    the same with systemd as init                (about 180 MB)
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

case ${1-} in
    plain | systemd) build "$1" "$here/rootfs.sh" ;;
    clean) rm -rf "$cache"/plain-* "$cache"/systemd-* "$cache"/{plain,systemd}.lock ;;
    *) usage "$0" ;;
esac
