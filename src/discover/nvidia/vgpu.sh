# What vGPU shows in sysfs: the functions that can carry one, the types that they offer, and
# the mediated devices that exist. A list of types is printed where it differs from the last.
# Nothing is printed where there is no vGPU software. $R is the root prefix.
R=${R:-}

last=
offers() {
	[ "$2" = "$last" ] || printf '%s\n%s\n' "$1" "$2"
	last=$2
}

echo '== vgpu 0'
for t in "$R"/sys/bus/pci/devices/*/mdev_supported_types; do
	[ -d "$t" ] || continue
	d=${t%/*}
	list=
	for a in "$t"/*/name "$t"/*/description; do
		v=
		{ read -r v <"$a"; } 2>/dev/null
		list="$list${a#"$t"/}:$v
"
	done
	offers types "$list"
	printf 'parent %s mdev\n' "${d##*/}"
done
for t in "$R"/sys/bus/pci/devices/*/nvidia/current_vgpu_type; do
	[ -e "$t" ] || continue
	d=${t%/nvidia/*}
	list=
	while read -r v; do
		list="$list$v
"
	done <"$d/nvidia/creatable_vgpu_types"
	offers creatable "$list"
	v=
	{ read -r v <"$t"; } 2>/dev/null
	printf 'parent %s vfio %s\n' "${d##*/}" "${v:-?}"
done
set --
for m in "$R"/sys/bus/mdev/devices/*; do
	[ -L "$m" ] || continue
	v=
	{ read -r v <"$m/nvidia/vm_name"; } 2>/dev/null
	[ -z "$v" ] || printf 'vm %s %s\n' "${m##*/}" "$v"
	set -- "$@" "$m" "$m/mdev_type"
	[ -L "$m/iommu_group" ] && set -- "$@" "$m/iommu_group"
done
if [ $# -gt 0 ]; then
	ls -ld -- "$@"
fi
if [ -f "$R/etc/nvidia/gridd.conf" ]; then
	while IFS='=' read -r k v; do
		case $k in
		FeatureType | ServerAddress) printf 'setting %s %s\n' "$k" "$v" ;;
		esac
	done <"$R/etc/nvidia/gridd.conf"
fi
set -- "$R"/etc/nvidia/ClientConfigToken/client_configuration_token_*.tok
if [ -f "$1" ]; then
	sha256sum -- "$@"
fi
