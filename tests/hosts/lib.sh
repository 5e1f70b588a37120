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

# Identity of a process: its number and when it started, since numbers come again.
process_mark() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # Behind the last parenthesis, so that a name with blanks does no harm.
    echo "$1 $(echo "${stat##*) }" | cut -d ' ' -f 20)"
}

end_marked() { # FILE: ends the process whose mark stands there, if it still is that one
    local mark
    [ -f "$1" ] || return 0
    mark=$(cat "$1")
    if [ "$(process_mark "${mark% *}")" = "$mark" ]; then kill -KILL "${mark% *}" 2>/dev/null || :; fi
    rm -f "$1"
}
