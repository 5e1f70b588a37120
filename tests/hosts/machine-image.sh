#!/bin/bash
# Builds what a test machine is made of, each once; see debian.sh.
#
#   machine-image.sh emulator   a root file system with QEMU in it     (about 240 MB)
#   machine-image.sh disk       a machine's disk, keys, start-up files (about 700 MB)
#   machine-image.sh clean      removes both
#
# Prints the folder: in ${DEPLOY_TEST_HOSTS:-target/test-hosts}. About 200 MB of packages
# are fetched in all. QEMU is Debian 13's, whatever this machine has: older ones emulate
# no SR-IOV card.
#
# The disk is one as a server has it: a partition table, GRUB in front of the first
# partition, Debian's kernel and an initramfs made by initramfs-tools, /etc/default/grub.
# What `update-grub` and `update-initramfs` change holds from the next boot on. What an
# emulated processor spends long on, and no test looks at, is left away. The kernel
# command line says `intel_iommu=off`, since Debian's kernel would have the IOMMU on and
# those of other distributions would not.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
# shellcheck source-path=SCRIPTDIR source=debian.sh
. "$here/debian.sh"

# The processor's own counter is measured at boot against a clock that another load of this
# machine holds up: the time that it gives may be twice as fast as the real one.
kernel_arguments='rw console=ttyS0 mitigations=off tsc=unstable clocksource=hpet intel_iommu=off'

build_emulator() {
    # The last two write the disk: this machine may have other versions, or none.
    bootstrap "$1" qemu-system-x86 qemu-utils seabios e2fsprogs fdisk
}

build_disk() {
    local emulator tree=$1.tree
    emulator=$("$here/machine-image.sh" emulator)
    mkdir "$1"
    rm -rf "$tree"
    ssh-keygen -q -t ed25519 -N '' -C deploy-test-machine -f "$1/key"
    ssh-keygen -q -t ed25519 -N '' -C machine -f "$1/host_key"
    # Drivers of what the machine does not have are most of a kernel.
    left_out+=(/usr/lib/modules/*/kernel/{sound,drivers/{gpu,media,infiniband,staging,hwmon,iio,input,isdn,leds,scsi,usb,video}}
        /usr/lib/modules/*/kernel/drivers/net/wireless)
    bootstrap "$tree" openssh-server iproute2 procps kmod pciutils systemd-sysv dbus udev \
        initramfs-tools busybox-static zstd grub-pc linux-image-amd64 podman crun
    furnish_sshd "$tree"
    furnish_systemd "$tree"
    furnish_machine "$tree" "$1"
    chroot "$tree" update-initramfs -u
    write_disk "$tree" "$1" "$emulator"
    rm -rf "$tree"
}

furnish_machine() { # TREE FOLDER
    local tree=$1 unit
    echo machine >"$tree/etc/hostname"
    mkdir -p "$tree/root/.ssh"
    chmod 700 "$tree/root/.ssh"
    cp "$2/key.pub" "$tree/root/.ssh/authorized_keys"
    cp "$2/host_key" "$tree/etc/ssh/ssh_host_ed25519_key"
    cp "$2/host_key.pub" "$tree/etc/ssh/ssh_host_ed25519_key.pub"
    : >"$tree/etc/fstab"
    # An initramfs with drivers for everything takes an emulated processor half a minute.
    echo 'MODULES=list' >"$tree/etc/initramfs-tools/conf.d/test-machine"
    printf '%s\n' virtio_pci virtio_blk ext4 >>"$tree/etc/initramfs-tools/modules"
    cat >"$tree/etc/default/grub" <<GRUB
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_RECORDFAIL_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX="$kernel_arguments"
GRUB_TERMINAL=serial
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
GRUB_DISABLE_RECOVERY=true
GRUB_DISABLE_LINUX_UUID=true
GRUB_DISABLE_SUBMENU=true
GRUB
    chmod -x "$tree"/etc/grub.d/{05_debian_theme,20_linux_xen,30_*}
    # QEMU's user network gives a machine this address; asking for it takes longer.
    cat >"$tree/etc/systemd/system/test-network.service" <<'UNIT'
[Unit]
Description=Address on QEMU's user network
DefaultDependencies=no
After=systemd-tmpfiles-setup-dev-early.service
Before=network.target ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'modprobe virtio_net; for d in /sys/bus/virtio/drivers/virtio_net/virtio*/net/*; do ip link set "$${d##*/}" up; ip addr add 10.0.2.15/24 dev "$${d##*/}"; done'

[Install]
WantedBy=multi-user.target
UNIT
    mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
    ln -s ../test-network.service "$tree/etc/systemd/system/multi-user.target.wants/"
    for unit in getty@tty1.service serial-getty@ttyS0.service systemd-pstore.service grub-common.service \
        systemd-machine-id-commit.service getty.target getty-static.service \
        podman{,-auto-update,-restart,-clean-transient}.service podman.socket podman-auto-update.timer \
        netavark-dhcp-proxy.{socket,service} netavark-{firewalld-reload,nftables-reload}.service \
        {dev-hugepages,dev-mqueue,run-lock,sys-kernel-config,sys-kernel-debug,sys-kernel-tracing,sys-fs-fuse-connections}.mount; do
        ln -sf /dev/null "$tree/etc/systemd/system/$unit"
    done
    mkdir "$tree/etc/systemd/system-generators"
    ln -s /dev/null "$tree/etc/systemd/system-generators/systemd-ssh-generator"
    # Quadlet takes an emulated processor a second of every boot and reload: a test that has
    # containers removes this link.
    ln -s /dev/null "$tree/etc/systemd/system-generators/podman-system-generator"
    tr -d - </proc/sys/kernel/random/uuid >"$tree/etc/machine-id"
}

# GRUB's first sector loads what lies in the sectors behind it: so do both images come,
# and so nothing is to be installed from within a running machine.
write_disk() { # TREE FOLDER EMULATOR
    local tree=$1 folder=$2 modules=/usr/lib/grub/i386-pc
    mkdir -p "$tree/boot/grub"
    cp -r "$tree$modules" "$tree/boot/grub/"
    chroot "$tree" grub-mkimage -O i386-pc -o /boot/grub/core.img -p '(hd0,msdos1)/boot/grub' biosdisk part_msdos ext2
    # The first boot replaces it by update-grub's.
    cat >"$tree/boot/grub/grub.cfg" <<GRUB
linux /vmlinuz root=/dev/vda1 ro $kernel_arguments quiet
initrd /initrd.img
boot
GRUB
    truncate -s 3G "$folder/disk.raw"
    in_emulator "$3" "$tree" "$folder" sh -ec '
        echo "start=2048, type=83, bootable" | sfdisk --quiet /tmp/folder/disk.raw
        mke2fs -q -t ext4 -L root -E offset=1048576 -d /tmp/tree /tmp/folder/disk.raw 3071M'
    dd if="$tree$modules/boot.img" of="$folder/disk.raw" bs=440 count=1 conv=notrunc status=none
    dd if="$tree/boot/grub/core.img" of="$folder/disk.raw" bs=512 seek=1 conv=notrunc status=none
}

# in_emulator EMULATOR TREE FOLDER COMMAND...: in the emulator's root file system, with two
# folders of this machine in it.
in_emulator() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount bash -ec '
        mount --make-rprivate /
        emulator=$1 tree=$2 folder=$3
        shift 3
        mount -t tmpfs tmpfs "$emulator/tmp"
        mkdir "$emulator/tmp/tree" "$emulator/tmp/folder"
        mount --bind "$tree" "$emulator/tmp/tree"
        mount --bind "$folder" "$emulator/tmp/folder"
        exec chroot "$emulator" "$@"' bash "$@"
}

case ${1-} in
    emulator | disk) build "$1" "$here/machine-image.sh" ;;
    clean) rm -rf "$cache"/emulator-* "$cache"/disk-* "$cache"/{emulator,disk}.lock ;;
    *) usage "$0" ;;
esac
