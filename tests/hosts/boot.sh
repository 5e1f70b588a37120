#!/bin/bash
# Runs as one test host until that is powered off: called by hosts.sh in the host's network
# namespace, in a mount namespace of its own, and for hosts without systemd in new process,
# name and IPC namespaces as well.
#
#   boot.sh overlay|systemd FOLDER NAME ROOT_FILE_SYSTEM BINARY
#
# The host's disks are two tmpfs in FOLDER that outlive it: `root` and `var`, each the upper
# layer of an overlay. (What a real power cut takes from the page cache is not played.) The
# whole is put together below /mnt, which only this mount namespace sees.
set -euo pipefail
kind=$1 folder=$2 name=$3 lower=$4 binary=$5

mount --make-rprivate /
# A folder of its own even for that: nspawn keeps a lock file beside the root.
mount -t tmpfs tmpfs /mnt
root=/mnt/$name
mkdir "$root"
layer() { # DISK LOWER TARGET
    mount -t overlay overlay -o "lowerdir=$2,upperdir=$folder/$1/upper,workdir=$folder/$1/work" "$3"
}
layer root "$lower" "$root"
layer var "$lower/var" "$root/var"
mount --bind "$folder/sim" "$root/sim"
# Folders that cannot be the upper layer of one overlay and the place of another.
more=()
if [ -d "$folder/data" ]; then
    # What a host needs that runs containers itself.
    export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
    more=(--system-call-filter='add_key keyctl bpf' --bind=/dev/fuse --bind=/dev/net/tun)
    (cd "$folder/data" && find . -mindepth 1 -name _ -printf '%h\n') | while read -r data; do
        mkdir -p "$root/$data"
        mount --bind "$folder/data/$data/_" "$root/$data"
    done
fi
mount --bind "$binary" "$root/usr/local/libexec/deploy-sim/deploy"

boot_overlay() {
    local node
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    for node in null:3 zero:5 full:7 random:8 urandom:9; do
        mknod -m 666 "$root/dev/${node%:*}" c 1 "${node#*:}"
    done
    mknod -m 666 "$root/dev/tty" c 5 0
    # The kernel's own is the machine's; a host that boots has another each time.
    cat /proc/sys/kernel/random/uuid >"$folder/boot_id"
    mount --bind "$folder/boot_id" "$root/proc/sys/kernel/random/boot_id"
    hostname "$name"
    exec chroot "$root" /usr/local/sbin/init
}

boot_systemd() {
    local status=133
    # systemd wants a control group tree of version 2 to itself ...
    umount -R /sys/fs/cgroup 2>/dev/null || :
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    # ... and nspawn keeps notes in /run, which are not this machine's business.
    mount -t tmpfs tmpfs /run
    touch /run/network
    mount --bind /proc/self/ns/net /run/network
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_LOG_LEVEL=warning
    # 133 is how nspawn says that the host wants to be booted again.
    while [ "$status" = 133 ]; do
        status=0
        systemd-nspawn --quiet --directory="$root" --machine="$name" --boot \
            --register=no --keep-unit --network-namespace-path=/run/network --capability=all \
            --resolv-conf=off --timezone=off --link-journal=no --console=pipe "${more[@]}" || status=$?
    done
    exit "$status"
}

"boot_$kind"
