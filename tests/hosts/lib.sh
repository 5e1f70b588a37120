# shellcheck shell=bash
# What the scripts of the test hosts share: where things are kept, and saying loudly
# what is missing. Sourced, not run.

# shellcheck disable=SC2154 # `here` is the folder of the script that sources this
repository=$(cd "$here/../.." && pwd)
# shellcheck disable=SC2034
cache=${DEPLOY_TEST_HOSTS:-${CARGO_TARGET_DIR:-$repository/target}/test-hosts}

die() {
    echo "test hosts: $*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || die "namespaces, mounts and systemd-nspawn need root, and this is user $(id -un); run the tests as root"
}

# need PROGRAM PACKAGE
need() {
    command -v "$1" >/dev/null || die "\`$1\` is not installed (package $2); tests/run installs it"
}

# The comment at the top of a script is its manual.
usage() {
    sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p}}' "$1" >&2
    exit 64
}
