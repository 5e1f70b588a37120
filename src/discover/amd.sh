# What AMD's cards are beyond the bus: partitions from sysfs and from the compute driver's
# topology, and the answers of `amd-smi` (`== NAME STATUS` and its text) where they are needed:
# under the driver `gim`, whose functions only it tells of, and where the kernel shows no
# topology. It is Python, so it is not started for what the kernel says by itself.
# $R is the root prefix, empty on a real host.
R=${R:-}

attr() {
	[ -e "$d/$1" ] || return 0
	v=
	{ read -r v <"$d/$1"; } 2>/dev/null
	printf '%s %s\n' "${1##*/}" "${v:-?}"
}

card=
for d in "$R"/sys/bus/pci/devices/*; do
	v=
	[ -r "$d/vendor" ] && { read -r v <"$d/vendor"; } 2>/dev/null
	[ "$v" = 0x1002 ] || continue
	{ read -r v <"$d/class"; } 2>/dev/null
	case $v in
	0x03* | 0x12*) ;;
	*) continue ;;
	esac
	[ -e "$d/physfn" ] && continue
	card=yes
	printf 'card %s\n' "${d##*/}"
	for a in current_compute_partition available_compute_partition current_memory_partition \
		available_memory_partition mem_info_vram_total xgmi_hive_info/xgmi_hive_id; do
		attr "$a"
	done
done
[ -n "$card" ] || exit 0

# One program for all nodes; /dev/null has grep print the names also if there is one.
nodes=$R/sys/class/kfd/kfd/topology/nodes
if [ -d "$nodes" ]; then
	echo kfd
	grep -e '^simd_count ' -e '^device_id ' -e '^location_id ' -e '^domain ' -e '^hive_id ' \
		-e '^drm_render_minor ' -e '^num_xcc ' "$nodes"/*/properties /dev/null 2>/dev/null
fi

gim=
[ -d "$R/sys/module/gim" ] && gim=yes
[ -n "$gim" ] || [ ! -d "$nodes" ] || exit 0

say() {
	name=$1
	shift
	out=$("$@" 2>&1 </dev/null)
	rc=$?
	printf '== %s %s\n%s\n' "$name" "$rc" "$out"
}

if command -v amd-smi >/dev/null 2>&1; then
	say version amd-smi version
	case $rc,$out in
	127,*) ;;
	*TOOL_NAME*)
		say list amd-smi list --json
		say current amd-smi partition --current
		say global amd-smi partition --global
		say static amd-smi static
		exit 0
		;;
	*)
		say list amd-smi list -e
		# Before ROCm 6.4.1 there is no -e.
		[ "$rc" -eq 0 ] || say list amd-smi list --json
		say static amd-smi static --json
		say current amd-smi partition --current
		exit 0
		;;
	esac
fi
if command -v rocm-smi >/dev/null 2>&1; then
	say hardware rocm-smi --showhw
	say modes rocm-smi --showcomputepartition --showmemorypartition --json
	exit 0
fi
echo '== missing 127'
exit 0
