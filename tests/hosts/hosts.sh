#!/bin/bash
# Real test hosts on this machine, several independent sets of them at once. A set has a
# name of the caller's (PREFIX); its hosts are h1, h2, ... at 10.77.0.1, 10.77.0.2, ...
#
#   hosts.sh up PREFIX overlay|systemd COUNT MACHINES BINARY [--delay MS] [--owner PID] [--with podman|incus]
#                                      starts hosts; waits until all answer
#   hosts.sh down PREFIX               ends the set and all that is left of it
#   hosts.sh sweep                     the same for sets whose owner is gone
#   hosts.sh exec PREFIX COMMAND...    runs a command where the hosts can be reached
#   hosts.sh enter PREFIX HOST COMMAND...   runs one on a host, without SSH
#   hosts.sh pid PREFIX HOST           prints the number of its process 1
#   hosts.sh power-cut PREFIX HOST     ends everything on a host at once
#   hosts.sh boot PREFIX HOST          boots it again from the same disks; waits
#   hosts.sh renew PREFIX HOST         boots it with the disks and cards it first had
#   hosts.sh await PREFIX HOST         waits until it answers
#   hosts.sh fill PREFIX HOST root|var [KIB]   fills a disk, up to KIB that stay free
#   hosts.sh free PREFIX HOST root|var         undoes that
#   hosts.sh read-only PREFIX HOST FOLDER      nothing there can be written any more
#   hosts.sh read-write PREFIX HOST FOLDER     undoes that
#   hosts.sh cut PREFIX HOST           ends its SSH connections, as seen from both sides
#   hosts.sh unplug|plug PREFIX HOST   takes a host off the network, without a word to
#                                      either side, and back
#
# overlay: its own file systems, processes, name, network and OpenSSH; no systemd.
# systemd: the same with systemd 257 as process 1 (systemd-nspawn): units, timers, journal,
# `systemctl reboot` with a new boot id. The kernel is this machine's in both. With
# `--with podman` it has podman, crun, runc and Quadlet too, and an image to load; `--with
# incus` the daemon of Incus and its client.
#
# The GPUs are simulated, the rest is real: MACHINES/hosts/hN is a machine of
# `deploy sim`, BINARY the `deploy` that plays its tools; see inside/sim-hardware.
#
# All traffic stays in network namespaces that the set made (PREFIX-ctl for the caller,
# PREFIX-net with a bridge, PREFIX-hN); --delay puts so many milliseconds into each way
# between the caller and the hosts. State lies in /run/deploy-test-hosts/PREFIX:
# `ssh_config` there reaches the hosts by name. With --owner the set is of no use when that
# process is gone, and `sweep` takes it down.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

sets=/run/deploy-test-hosts
root_size=128m
var_size=64m

# --- looking ---------------------------------------------------------------------

known_set() {
    prefix=$1
    set_folder=$sets/$prefix
    [ -f "$set_folder/kind" ] || die "there is no set \`$prefix\`; see $sets"
}

known_host() {
    known_set "$1"
    host=$2
    folder=$set_folder/$host
    [ -d "$folder" ] || die "set $prefix has no host \`$host\`"
}

host_names() { (cd "$set_folder" && printf '%s\n' h*/ | sed 's|/$||' | sort -V); }

address_of() { echo "10.77.$((${1#h} / 250)).$((${1#h} % 250))"; }

# The host's process 1, as this machine numbers it.
first_process() {
    local pid
    for pid in $(ip netns pids "$prefix-$1" 2>/dev/null); do
        if awk '/^NSpid:/ { found = (NF > 2 && $NF == 1) } END { exit !found }' "/proc/$pid/status" 2>/dev/null; then
            echo "$pid"
            return
        fi
    done
    return 1
}

in_host() { # HOST COMMAND...
    local pid
    pid=$(first_process "$1") || die "$1 is not running"
    shift
    nsenter --target "$pid" --mount --net --pid --uts --ipc --cgroup --root --wd -- \
        env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

await() { # HOST
    local end=$((SECONDS + 60))
    # shellcheck disable=SC2016 # expanded by the inner shell
    while ! nsenter --net="/run/netns/$prefix-ctl" timeout 2 bash -c \
        'exec 3<>"/dev/tcp/$1/22" && read -r -t 2 banner <&3 && [[ $banner == SSH-* ]]' _ "$(address_of "$1")" 2>/dev/null; do
        [ $SECONDS -lt $end ] || die "$1 does not answer; its log: $(tail -n 20 "$set_folder/$1/log")"
        sleep 0.02
    done
}

# --- the network -----------------------------------------------------------------

network_up() {
    local delay=$1 tries=0
    ip netns add "$prefix-ctl"
    ip netns add "$prefix-net"
    ip -n "$prefix-ctl" link set lo up
    ip -n "$prefix-net" link add bridge type bridge
    ip -n "$prefix-net" link set bridge up
    if [ "$delay" = 0 ]; then
        ip -n "$prefix-net" link add link0 type veth peer name link0 netns "$prefix-ctl"
    else
        need python3 python3-minimal
        setsid python3 "$here/delay.py" "$prefix-ctl" "$prefix-net" "$delay" </dev/null >"$set_folder/delay.log" 2>&1 &
        process_mark $! >"$set_folder/delay"
        until ip -n "$prefix-ctl" link show link0 >/dev/null 2>&1 && ip -n "$prefix-net" link show link0 >/dev/null 2>&1; do
            tries=$((tries + 1))
            [ $tries -lt 200 ] || die "the slow link does not come up: $(cat "$set_folder/delay.log")"
            sleep 0.02
        done
    fi
    ip -n "$prefix-net" link set link0 master bridge up
    ip -n "$prefix-ctl" addr add 10.77.255.1/16 dev link0
    ip -n "$prefix-ctl" link set link0 up
}

network_of() { # HOST
    ip netns add "$prefix-$1"
    ip -n "$prefix-net" link add "$1" type veth peer name eth0 netns "$prefix-$1"
    ip -n "$prefix-net" link set "$1" master bridge up
    ip -n "$prefix-$1" link set lo up
    ip -n "$prefix-$1" addr add "$(address_of "$1")/16" dev eth0
    ip -n "$prefix-$1" link set eth0 up
}

# --- one host ----------------------------------------------------------------------

# What tells a host from others, for as long as the set is there.
make_identity() { # HOST MACHINE
    local folder=$set_folder/$1
    mkdir "$folder"
    cp -a "$2" "$folder/machine"
    tr -d - </proc/sys/kernel/random/uuid >"$folder/machine-id"
    ssh-keygen -q -t ed25519 -N '' -C "$1" -f "$folder/ssh_host_ed25519_key"
    printf '%s %s\n' "$(address_of "$1")" "$(cut -d ' ' -f 1,2 "$folder/ssh_host_ed25519_key.pub")" \
        >>"$set_folder/known_hosts"
}

# Fresh cards, and fresh disks with what the root file system has not.
furnish() { # HOST
    local folder=$set_folder/$1 upper=$set_folder/$1/root/upper tools name
    mkdir -p "$folder/root" "$folder/var"
    mount -t tmpfs -o "size=$root_size,mode=755" root "$folder/root"
    mount -t tmpfs -o "size=$var_size,mode=755" var "$folder/var"
    mkdir "$folder"/{root,var}/{upper,work}
    cp -a "$folder/machine" "$folder/sim"
    if [ "$(cat "$set_folder/with")" = podman ]; then
        mkdir -p "$folder"/data/{var/lib/containers,home}/_
        cp -a "$(cat "$set_folder/lower")/home/." "$folder/data/home/_"
    fi
    tools=$upper/usr/local/libexec/deploy-sim
    mkdir -p "$upper"/{sim,etc/ssh,etc/systemd/system/sysinit.target.wants,root/.ssh,usr/local/bin,usr/local/sbin} "$tools"
    chmod 700 "$upper/root" "$upper/root/.ssh"
    echo "$1" >"$upper/etc/hostname"
    cp "$folder/machine-id" "$upper/etc/machine-id"
    cp "$set_folder/key.pub" "$upper/root/.ssh/authorized_keys"
    cp "$folder"/ssh_host_ed25519_key{,.pub} "$upper/etc/ssh/"
    : >"$tools/deploy"
    for name in nvidia-smi nvidia-ctk lspci tee deploy-sim-hardware; do ln -s deploy "$tools/$name"; done
    for name in nvidia-smi nvidia-ctk lspci; do cp "$here/inside/vendor-tool" "$upper/usr/local/bin/$name"; done
    cp "$here/inside/tee" "$upper/usr/local/bin/tee"
    cp "$here/inside/sim-hardware" "$upper/usr/local/sbin/sim-hardware"
    if [ "$kind" = systemd ]; then
        cp "$here/inside/sim-hardware.service" "$upper/etc/systemd/system/"
        ln -s ../sim-hardware.service "$upper/etc/systemd/system/sysinit.target.wants/"
        # Newer than the /usr just made: no boot has anything to bring up to date.
        touch "$upper/etc/.updated" "$folder/var/upper/.updated"
    else
        cp "$here/inside/init" "$upper/usr/local/sbin/init"
    fi
}

launch() { # HOST
    local host=$1 folder=$set_folder/$1 apart=(--mount) group
    if [ "$kind" = overlay ]; then apart+=(--pid --uts --ipc --fork --kill-child); fi
    (
        if [ "$kind" = systemd ]; then
            group=$(control_groups)/$prefix-$host
            mkdir -p "$group"
            echo "$BASHPID" >"$group/cgroup.procs"
        fi
        exec setsid nsenter --net="/run/netns/$prefix-$host" unshare "${apart[@]}" \
            bash "$here/boot.sh" "$kind" "$folder" "$host" "$(cat "$set_folder/lower")" "$(cat "$set_folder/binary")"
    ) </dev/null >>"$folder/log" 2>&1 &
    process_mark $! >"$folder/launcher"
}

# The control group tree of version 2; here and there it is not the one at /sys/fs/cgroup.
control_groups() {
    awk '$3 == "cgroup2" { print $2; found = 1; exit } END { exit !found }' /proc/mounts ||
        die "this machine has no control groups of version 2, which systemd needs"
}

# Process 1 first: with it the kernel ends all others of the host at once. Its launcher
# before it, so that nothing is booted again.
power_cut() { # HOST
    local pid rest tries=0 group
    pid=$(first_process "$1") || pid=
    end_marked "$set_folder/$1/launcher"
    if [ -n "$pid" ]; then kill -KILL "$pid" 2>/dev/null || :; fi
    while rest=$(ip netns pids "$prefix-$1" 2>/dev/null) && [ -n "$rest" ]; do
        # shellcheck disable=SC2086 # numbers
        kill -KILL $rest 2>/dev/null || :
        tries=$((tries + 1))
        [ $tries -lt 500 ] || die "$1 does not end: processes $rest"
        sleep 0.02
    done
    [ "$kind" = systemd ] || return 0
    group=$(control_groups)/$prefix-$1
    tries=0
    while [ -d "$group" ]; do
        find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || :
        tries=$((tries + 1))
        [ $tries -lt 500 ] || die "the control group $group stays"
        [ ! -d "$group" ] || sleep 0.02
    done
}

# --- sets --------------------------------------------------------------------------

up() {
    [ $# -ge 5 ] || usage "$0"
    prefix=$1 kind=$2
    local count=$3 machines=$4 binary delay=0 owner="" with="" lower n
    binary=$(realpath "$5")
    shift 5
    while [ $# -gt 0 ]; do
        case $1 in
            --delay) delay=$2 ;;
            --owner) owner=$2 ;;
            --with) with=$2 ;;
            *) usage "$0" ;;
        esac
        shift 2
    done
    case $prefix in *[!a-z0-9-]* | '') die "a prefix is made of a-z, 0-9 and -" ;; esac
    case $kind+$with in
        overlay+) lower=plain ;;
        systemd+) lower=systemd ;;
        systemd+podman | systemd+incus) lower=$with ;;
        *) usage "$0" ;;
    esac
    need_root
    need ip iproute2
    need nsenter util-linux
    need ssh-keygen openssh-client
    [ "$kind" != systemd ] || need systemd-nspawn systemd-container
    lower=$("$here/rootfs.sh" "$lower")
    chroot "$lower" true || die "programs of $lower cannot be run"

    set_folder=$sets/$prefix
    mkdir -p "$sets"
    mkdir "$set_folder" 2>/dev/null || die "the set $prefix is there already; \`$0 down $prefix\` ends it"
    trap take_back EXIT
    mount -t tmpfs -o mode=700 deploy-test-hosts "$set_folder"
    echo "$lower" >"$set_folder/lower"
    echo "$binary" >"$set_folder/binary"
    echo "$with" >"$set_folder/with"
    [ -z "$owner" ] || process_mark "$owner" >"$set_folder/owner"
    echo "$kind" >"$set_folder/kind"
    ssh-keygen -q -t ed25519 -N '' -C deploy-test-hosts -f "$set_folder/key"

    network_up "$delay"
    for ((n = 1; n <= count; n++)); do
        make_identity "h$n" "$machines/hosts/h$n"
        furnish "h$n"
        network_of "h$n"
        launch "h$n"
    done
    {
        for ((n = 1; n <= count; n++)); do printf 'Host h%d\n  HostName %s\n' "$n" "$(address_of "h$n")"; done
        printf 'Host *\n  User root\n  IdentityFile %s\n  IdentitiesOnly yes\n' "$set_folder/key"
        printf '  UserKnownHostsFile %s\n  GlobalKnownHostsFile none\n  BatchMode yes\n' "$set_folder/known_hosts"
    } >"$set_folder/ssh_config"
    for ((n = 1; n <= count; n++)); do await "h$n"; done
    in_host h1 /usr/local/libexec/deploy-sim/deploy --version >/dev/null ||
        die "$binary does not run on Debian $(in_host h1 cat /etc/debian_version): was it built for a newer C library?"
}

# A set that did not come up leaves nothing behind.
take_back() {
    local status=$?
    [ $status = 0 ] || down "$prefix"
    exit $status
}

# Only what carries the set's name: its namespaces, what runs in them, its mounts.
down() {
    prefix=$1 set_folder=$sets/$1
    case $prefix in *[!a-z0-9-]* | '') die "a prefix is made of a-z, 0-9 and -" ;; esac
    need_root
    local space host
    if [ -f "$set_folder/kind" ]; then
        kind=$(cat "$set_folder/kind")
        for host in $(host_names); do
            [ "$host" = 'h*' ] || power_cut "$host"
        done
        end_marked "$set_folder/delay"
    fi
    for space in $(ip netns list | awk '{ print $1 }' | grep -xE "$prefix-(ctl|net|h[0-9]+)"); do
        # What a killed test had started in there, and never waits for.
        ip netns pids "$space" | xargs -r kill -KILL 2>/dev/null || :
        ip netns del "$space"
    done
    if mountpoint -q "$set_folder"; then umount -R "$set_folder" 2>/dev/null || umount -R -l "$set_folder"; fi
    [ ! -d "$set_folder" ] || rmdir "$set_folder"
}

sweep() {
    local set mark
    for set in "$sets"/*/; do
        [ -f "$set/owner" ] || continue
        mark=$(cat "$set/owner")
        [ "$(process_mark "${mark% *}")" != "$mark" ] || continue
        set=${set%/}
        echo "test hosts: \`${set##*/}\` is left over from an earlier run; taken down" >&2
        down "${set##*/}"
    done
}

# --- faults --------------------------------------------------------------------------

# Beside the layer that the host writes to: it takes room, and the host cannot see it.
fill() { # DISK [KIB]
    local free
    [ -d "$folder/$1/upper" ] || die "a disk is \`root\` or \`var\`"
    rm -f "$folder/$1/filler"
    free=$(($(stat -f -c '%a * %S / 1024' "$folder/$1") - ${2:-0}))
    [ "$free" -le 0 ] || fallocate -l "${free}KiB" "$folder/$1/filler"
}

# A second mount over the first: what is open stays open, as it does where a kernel makes a
# broken file system read-only; what is opened from now on is refused.
read_only() {
    # shellcheck disable=SC2016 # expanded on the host
    in_host "$host" sh -ec 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"' sh "$1"
}

verb=${1-}
[ $# -eq 0 ] || shift
case $verb in
    up) up "$@" ;;
    down) down "$1" ;;
    sweep) sweep ;;
    exec)
        known_set "$1"
        shift
        exec nsenter --net="/run/netns/$prefix-ctl" -- "$@"
        ;;
    enter | pid | power-cut | boot | renew | await | fill | free | read-only | read-write | cut | unplug | plug)
        [ $# -ge 2 ] || usage "$0"
        known_host "$1" "$2"
        kind=$(cat "$set_folder/kind")
        shift 2
        case $verb in
            enter) in_host "$host" "$@" ;;
            pid) first_process "$host" || die "$host is not running" ;;
            power-cut) power_cut "$host" ;;
            boot)
                launch "$host"
                await "$host"
                ;;
            renew)
                power_cut "$host"
                umount "$folder/root" "$folder/var"
                rm -rf "$folder/sim" "$folder/data"
                furnish "$host"
                launch "$host"
                await "$host"
                ;;
            await) await "$host" ;;
            fill) fill "$@" ;;
            free) rm -f "$folder/$1/filler" ;;
            read-only) read_only "$1" ;;
            # Not taken away: whoever works there can go on, as after a mend.
            read-write) in_host "$host" mount -o remount,bind,rw "$1" ;;
            # What serves one connection; the listener and what was started go on.
            cut) in_host "$host" pkill -KILL -x 'sshd-session|sshd-auth' || : ;;
            unplug) ip -n "$prefix-net" link set "$host" down ;;
            plug) ip -n "$prefix-net" link set "$host" up ;;
        esac
        ;;
    *) usage "$0" ;;
esac
