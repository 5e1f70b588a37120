# Display controllers and processing accelerators on the PCI bus, with the attributes that
# matter for slicing. One line a fact: `device ADDRESS` begins a card; then `NAME VALUE`.
# The links come last, as `ls -l` prints them: one program for all of them.
# $R is the root prefix, empty on a real host. The arguments are cards of other classes, each
# as CLASS:VENDOR:DEVICE, such as 0x02:0x8086:0x10c9.
R=${R:-}
others=" $* "

bus=$R/sys/bus/pci/devices
[ -d "$bus" ] || {
	echo nobus
	exit 0
}

attr() {
	v=
	[ -e "$d/$1" ] || return 0
	{ read -r v <"$d/$1"; } 2>/dev/null
	if [ -n "$v" ]; then
		printf '%s %s\n' "$1" "$v"
	else
		printf '%s ?\n' "$1"
	fi
}

set --
near=
for d in "$bus"/*; do
	class=
	[ -r "$d/class" ] && { read -r class <"$d/class"; } 2>/dev/null
	case $class in
	0x03* | 0x12*) ;;
	*)
		case $others in
		*" ${class%????}:"*) ;;
		*) continue ;;
		esac
		id=${class%????}
		for a in vendor device; do
			v=
			{ read -r v <"$d/$a"; } 2>/dev/null
			id=$id:$v
		done
		case $others in
		*" $id "*) ;;
		*) continue ;;
		esac
		;;
	esac
	printf 'device %s\nclass %s\n' "${d##*/}" "$class"
	for a in vendor device subsystem_vendor subsystem_device numa_node \
		sriov_totalvfs sriov_numvfs sriov_drivers_autoprobe; do
		attr "$a"
	done
	[ -e "$d/reset" ] && echo 'reset yes'
	for n in "$d"/drm/card* "$d"/drm/renderD* "$d"/vfio-dev/vfio*; do
		[ -e "$n" ] && printf 'node %s\n' "${n##*/}"
	done
	for l in "$d/driver" "$d/iommu_group" "$d/physfn" "$d"/virtfn*; do
		[ -L "$l" ] || continue
		set -- "$@" "$l"
		case $l in
		*/virtfn*)
			[ -L "$l/driver" ] && set -- "$@" "$l/driver"
			[ -L "$l/iommu_group" ] && set -- "$@" "$l/iommu_group"
			;;
		esac
	done
	# What shares its slot or its IOMMU group may have to go with it.
	for l in "$d" "${d%.*}".* "$d"/iommu_group/devices/*; do
		n=${l##*/}
		l=$bus/$n
		case " $near " in *" $n "*) continue ;; esac
		[ -r "$l/class" ] || continue
		near="$near $n"
		set -- "$@" "$l/driver" "$l/iommu_group" "$l/physfn"
		for a in class vendor device driver_override; do
			v=
			{ read -r v <"$l/$a"; } 2>/dev/null
			n="$n ${v:-?}"
		done
		printf 'near %s\n' "$n"
	done
done
if [ $# -gt 0 ]; then
	echo links
	# Not each of them is there.
	ls -ld -- "$@" 2>/dev/null
fi
exit 0
