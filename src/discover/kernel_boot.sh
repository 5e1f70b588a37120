# The IOMMU, the processor's maker, the boot loader and what the next boot will give to the
# kernel. One line a fact, as in host.sh, which follows. Starts no program. $R is the root prefix.
R=${R:-}

echo iommus
for f in "$R"/sys/class/iommu/*; do
	[ -e "$f" ] || [ -L "$f" ] || continue
	printf 'iommu %s\n' "${f##*/}"
done
# How the firmware offers an IOMMU. Their content is for root, their names are for all.
if [ -d "$R/sys/firmware/acpi/tables" ]; then
	v=-
	for f in DMAR IVRS; do
		[ ! -e "$R/sys/firmware/acpi/tables/$f" ] || v=$f
	done
	printf 'acpi %s\n' "$v"
fi
if [ -r "$R/proc/cpuinfo" ]; then
	while read -r w v || [ -n "$w" ]; do
		[ "$w" = vendor_id ] || continue
		printf 'cpu %s\n' "${v#: }"
		break
	done <"$R/proc/cpuinfo"
fi

# next_in WORDS FILE...: the rest of lines that begin with one of the words; of the first if
# once is set.
once=
next_in() {
	p=$1
	shift
	for f in "$@"; do
		[ -r "$f" ] || continue
		while read -r w v || [ -n "$w" ]; do
			case " $p " in
			*" $w "*)
				printf 'next-%s %s\n' "${p%% *}" "$v"
				[ -z "$once" ] || return 0
				;;
			esac
		done <"$f"
	done
}
# lines NAME FILE: all of it.
lines() {
	[ -r "$2" ] || return 0
	while read -r v || [ -n "$v" ]; do printf '%s %s\n' "$1" "$v"; done <"$2"
}

if [ -e "$R/etc/kernel/proxmox-boot-uuids" ]; then
	echo 'loader proxmox'
	lines next-file "$R/etc/kernel/cmdline"
elif [ -e "$R/usr/sbin/grubby" ]; then
	echo 'loader grubby'
	set -- "$R"/boot/loader/entries/*.conf
	if [ -e "$1" ]; then
		next_in options "$@"
		lines grubenv "$R/boot/grub2/grubenv"
	else
		next_in 'linux linux16 linuxefi' "$R/boot/grub2/grub.cfg"
	fi
elif [ -e "$R/usr/sbin/update-grub" ]; then
	echo 'loader grub'
	# The first entry is the one that boots; others are for repairs.
	once=yes
	next_in 'linux linux16 linuxefi' "$R/boot/grub/grub.cfg"
	lines drop-in "$R/etc/default/grub.d/60-deploy.cfg"
elif [ -e "$R/usr/bin/kernel-install" ] &&
	{ [ -d "$R/boot/loader/entries" ] || [ -d "$R/efi/loader/entries" ] || [ -d "$R/boot/efi/loader/entries" ]; }; then
	echo 'loader kernel-install'
	lines next-file "$R/etc/kernel/cmdline"
fi
for f in update-initramfs dracut mkinitcpio; do
	[ -e "$R/usr/sbin/$f" ] || [ -e "$R/usr/bin/$f" ] || continue
	printf 'initramfs %s\n' "$f"
	break
done
lines kept-passthrough "$R/etc/deploy/gpu/passthrough.conf"
