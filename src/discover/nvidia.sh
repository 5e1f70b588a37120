# What nvidia-smi says of the cards: each answer as `== NAME STATUS` and its text. Asks for
# MIG only where a card has it, and starts nothing where there is no NVIDIA card: without
# the persistence daemon each call initialises all cards anew.
# $R is the root prefix, empty on a real host.
R=${R:-}

bus=$R/sys/bus/pci/devices
if [ -d "$bus" ]; then
	card=
	for d in "$bus"/*; do
		v=
		[ -r "$d/vendor" ] && { read -r v <"$d/vendor"; } 2>/dev/null
		[ "$v" = 0x10de ] || continue
		{ read -r v <"$d/class"; } 2>/dev/null
		case $v in
		0x03* | 0x12*)
			card=yes
			break
			;;
		esac
	done
	# Some containers hide the bus and still have the driver.
	[ -n "$card" ] || [ -e "$R/dev/nvidiactl" ] || {
		echo '== nocard 0'
		exit 0
	}
fi
command -v nvidia-smi >/dev/null 2>&1 || {
	echo '== missing 127'
	exit 0
}

say() {
	name=$1
	shift
	out=$(nvidia-smi "$@" 2>&1 </dev/null)
	rc=$?
	printf '== %s %s\n%s\n' "$name" "$rc" "$out"
}

# A field that the driver does not know makes the whole query fail, so ask for less and less:
# compute_cap came with R510, mig.mode with R450.
base=uuid,name,pci.bus_id,pci.device_id,pci.sub_device_id,driver_version,memory.total
base=$base,persistence_mode,compute_mode
mig=index,mig.mode.current,mig.mode.pending,$base
form=--format=csv,noheader,nounits
unknown() {
	case $rc,$out in
	0,*) return 1 ;;
	*'not a valid field'*) return 0 ;;
	*) return 1 ;;
	esac
}
say query "--query-gpu=$mig,compute_cap" "$form"
unknown && say query "--query-gpu=$mig" "$form"
unknown && say query "--query-gpu=index,$base" "$form"
# A card that fell off the bus makes the query fail, but the others are told.
case $rc,$out in
0,* | *', GPU-'*) ;;
*) exit 0 ;;
esac
cards=$out

# vGPU: only where its host driver, or the licence daemon of a virtual machine is installed.
if [ -e "$R/usr/lib/nvidia/sriov-manage" ] || [ -e "$R/sys/module/nvidia_vgpu_vfio" ]; then
	say vgputypes vgpu -s -v
	say long -q
elif command -v nvidia-gridd >/dev/null 2>&1; then
	say long -q
fi

capable=
enabled=
IFS='
'
set -f
for line in $cards; do
	mode=${line#*, }
	case ${mode%%, *} in
	Enabled)
		capable=yes
		enabled=yes
		;;
	Disabled) capable=yes ;;
	esac
done
set +f
unset IFS

say policy compute-policy -l

# MPS daemons that deploy has started, each by its folder: what was wanted, what it says.
mps=
for d in "$R"/run/deploy/mps/*; do
	v=
	[ -r "$d/settings" ] && { read -r v <"$d/settings"; } 2>/dev/null
	[ -n "$v" ] || continue
	[ -n "$mps" ] || echo '== mps 0'
	mps=yes
	printf 'daemon %s\n' "$v"
	for v in get_default_active_thread_percentage 'get_default_device_pinned_mem_limit 0'; do
		out=$(printf '%s\n' "$v" | CUDA_MPS_PIPE_DIRECTORY=$d nvidia-cuda-mps-control 2>&1) || break
		printf 'says %s\n' "$out"
	done
done
[ -n "$capable" ] || exit 0
say lgip mig -lgip
say lgipp mig -lgipp
[ -n "$enabled" ] || exit 0
say lgi mig -lgi
say lci mig -lci
say list -L
exit 0
