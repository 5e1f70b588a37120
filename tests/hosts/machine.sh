#!/bin/bash
# A test machine with a kernel of its own, emulated by QEMU: for what depends on real PCI
# devices, drivers and reboots. As root, since it stands in a network namespace and QEMU
# runs from a root file system of its own.
#
#   machine.sh up PREFIX [--owner PID]   starts one; waits until it answers
#   machine.sh down PREFIX               ends it and removes what is left of it
#   machine.sh sweep                     the same for those whose owner is gone
#   machine.sh exec PREFIX COMMAND...    runs a command where it can be reached
#   machine.sh await PREFIX              waits until it answers
#   machine.sh power-cut PREFIX          resets it: what it had not flushed is lost; it boots
#                                        again by itself, with `await`
#   machine.sh unplug|plug PREFIX        takes it off the network, and back
#   machine.sh folder PREFIX             prints its folder: ssh_config, and its console's text
#
# In it: Debian 13 with systemd and GRUB on a disk of its own (machine-image.sh) that keeps
# what is written, reboots included, until `down`; a network card with 7 virtual functions
# (Intel 82576, 8086:10c9) and an NVMe disk with 4 (8086:5845), each behind its own PCIe
# port; an Intel IOMMU, which its kernel command line leaves off.
#
# The processor is always emulated: that /dev/kvm is there does not mean that it can run
# this kernel. A boot takes 15 s of two quiet processors, and minutes of busy ones.
# The machine reaches nothing, and is reached at 127.0.0.1:22 of PREFIX-ctl.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

machines=$cache/machines
# Seconds until a machine must answer.
patience=420

known() {
    prefix=$1 folder=$machines/$1
    [ -f "$folder/process" ] || die "there is no machine \`$prefix\`; see $machines"
}

await() {
    local end=$((SECONDS + patience))
    # shellcheck disable=SC2016 # expanded by the inner shell
    while ! nsenter --net="/run/netns/$prefix-ctl" timeout 5 bash -c \
        'exec 3<>/dev/tcp/127.0.0.1/22 && read -r -t 5 banner <&3 && [[ $banner == SSH-* ]]' 2>/dev/null; do
        [ $SECONDS -lt $end ] || die "the machine does not answer; its console: $(tail -c 1000 "$folder/console")"
        [ "$(process_mark "$(cat "$folder/pid")")" = "$(cat "$folder/process")" ] ||
            die "QEMU ended: $(cat "$folder/qemu.log")"
        sleep 0.2
    done
}

# In a mount namespace of its own, which ends with it: nothing is left to be unmounted.
launch() { # EMULATOR DISK
    # shellcheck disable=SC2016 # expanded by the inner shell
    nsenter --net="/run/netns/$prefix-ctl" unshare --mount bash -ec '
        mount --make-rprivate /
        emulator=$1 disk=$2 folder=$3
        shift 3
        mount --rbind /dev "$emulator/dev"
        mount -t tmpfs tmpfs "$emulator/tmp"
        mkdir "$emulator"/tmp/{disk,machine}
        mount --bind "$disk" "$emulator/tmp/disk"
        mount --bind "$folder" "$emulator/tmp/machine"
        chroot "$emulator" qemu-img create -q -f qcow2 -b /tmp/disk/disk.raw -F raw /tmp/machine/disk
        exec chroot "$emulator" qemu-system-x86_64 "$@"' bash "$1" "$2" "$folder" \
        -name "$prefix" -machine q35 -accel tcg,thread=multi -cpu qemu64,vendor=GenuineIntel -smp 2 -m 1024 \
        -nodefaults -display none -daemonize -pidfile /tmp/machine/pid \
        -serial file:/tmp/machine/console -qmp unix:/tmp/machine/qmp,server=on,wait=off \
        -device intel-iommu,intremap=on -device virtio-rng-pci \
        -drive file=/tmp/machine/disk,if=none,id=disk,cache=unsafe -device virtio-blk-pci,drive=disk \
        -netdev user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:22-:22 \
        -device virtio-net-pci,id=card,netdev=net,romfile= \
        -device pcie-root-port,id=port1,slot=1,chassis=1 -device igb,bus=port1,romfile= \
        -device pcie-root-port,id=port2,slot=2,chassis=2 -device nvme-subsys,id=nvme \
        -device nvme,bus=port2,serial=test,use-intel-id=on,subsys=nvme,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=10 \
        >"$folder/qemu.log" 2>&1 || die "QEMU does not start: $(cat "$folder/qemu.log")"
    process_mark "$(cat "$folder/pid")" >"$folder/process"
}

up() {
    prefix=$1
    shift
    case $prefix in *[!a-z0-9-]* | '') die "a prefix is made of a-z, 0-9 and -" ;; esac
    need_root
    need ip iproute2
    need nsenter util-linux
    need python3 python3-minimal
    local emulator disk
    emulator=$("$here/machine-image.sh" emulator)
    disk=$("$here/machine-image.sh" disk)
    folder=$machines/$prefix
    mkdir -p "$machines"
    mkdir "$folder" 2>/dev/null || die "the machine $prefix is there already; \`$0 down $prefix\` ends it"
    trap take_back EXIT
    [ "${1-}" != --owner ] || process_mark "$2" >"$folder/owner"
    cp "$disk/key" "$folder/key"
    printf '127.0.0.1 %s\n' "$(cut -d ' ' -f 1,2 "$disk/host_key.pub")" >"$folder/known_hosts"
    printf '%s\n' 'Host machine' '  HostName 127.0.0.1' '  User root' "  IdentityFile $folder/key" '  IdentitiesOnly yes' \
        "  UserKnownHostsFile $folder/known_hosts" '  GlobalKnownHostsFile none' '  BatchMode yes' >"$folder/ssh_config"
    ip netns add "$prefix-ctl"
    ip -n "$prefix-ctl" link set lo up
    launch "$emulator" "$disk"
    await
}

# A machine that did not come up leaves nothing behind.
take_back() {
    local status=$?
    [ $status = 0 ] || down "$prefix"
    exit $status
}

down() {
    case $1 in *[!a-z0-9-]* | '') die "a prefix is made of a-z, 0-9 and -" ;; esac
    need_root
    local folder=$machines/$1
    end_marked "$folder/process"
    if ip netns list | awk '{ print $1 }' | grep -qxF "$1-ctl"; then
        # What a killed test had started in there, and never waits for.
        ip netns pids "$1-ctl" | xargs -r kill -KILL 2>/dev/null || :
        ip netns del "$1-ctl"
    fi
    rm -rf "$folder"
}

sweep() {
    local folder mark
    for folder in "$machines"/*/; do
        [ -f "$folder/owner" ] || continue
        mark=$(cat "$folder/owner")
        [ "$(process_mark "${mark% *}")" != "$mark" ] || continue
        folder=${folder%/}
        echo "test hosts: the machine \`${folder##*/}\` is left over from an earlier run; taken down" >&2
        down "${folder##*/}"
    done
}

qmp() { python3 "$here/qmp.py" "$folder/qmp" "$@"; }

verb=${1-}
[ $# -eq 0 ] || shift
case $verb in
    up) up "$@" ;;
    down) down "$1" ;;
    sweep) sweep ;;
    exec)
        known "$1"
        shift
        exec nsenter --net="/run/netns/$prefix-ctl" -- "$@"
        ;;
    await | power-cut | unplug | plug | folder)
        [ $# -eq 1 ] || usage "$0"
        known "$1"
        case $verb in
            await) await ;;
            power-cut) qmp system_reset ;;
            unplug) qmp set_link name=card up=false ;;
            plug) qmp set_link name=card up=true ;;
            folder) echo "$folder" ;;
        esac
        ;;
    *) usage "$0" ;;
esac
