# Who has device nodes of GPUs open, whatever the vendor's tool may say: the links in
# /proc/PID/fd, then name and control group of each such process, then which node is
# which card. $R is the root prefix, empty on a real host.
R=${R:-}

cd "$R/proc" 2>/dev/null || {
	echo noproc
	exit 0
}

# The driver's minor numbers need not be nvidia-smi's indices.
for f in driver/nvidia/gpus/*/information; do
	[ -r "$f" ] || continue
	g=${f#driver/nvidia/gpus/}
	while read -r v || [ -n "$v" ]; do
		case $v in
		'Device Minor:'*) printf 'minor %s %s\n' "${g%/information}" "${v#Device Minor:}" ;;
		esac
	done <"$f"
done

# Whoever works on a GPU instance has its node open beside the card's.
for f in driver/nvidia/capabilities/gpu*/mig/gi*/access driver/nvidia/capabilities/gpu*/mig/gi*/ci*/access; do
	[ -r "$f" ] || continue
	while read -r v || [ -n "$v" ]; do
		case $v in
		DeviceFileMinor:*) printf 'cap %s %s\n' "${f#driver/nvidia/capabilities/gpu}" "${v#DeviceFileMinor:}" ;;
		esac
	done <"$f"
done

set --
for p in [0-9]*; do
	[ -d "$p/fd" ] || continue
	if [ -r "$p/fd" ]; then
		set -- "$@" "$p/fd"
	elif [ -e "$p/comm" ]; then
		# It may have ended meanwhile; then its folder is gone.
		echo "unreadable $p"
	fi
done
echo scanned
[ $# -gt 0 ] || exit 0
# With one folder `ls` would print no name before its entries. A link's target may hold any
# byte: -q keeps a newline in it from passing for a line of its own, where ls has it.
q=-l
ls -q / >/dev/null 2>&1 && q=-lq
# shellcheck disable=SC2012 # find has no -lname in busybox
open=$(ls "$q" -- "$@" /dev/null 2>/dev/null | sed -n \
	-e 's,^\([0-9][0-9]*\)/fd:$,process \1,p' \
	-e 's,^.* -> \(/dev/nvidia[^ ]*\).*$,\1,p' \
	-e 's,^.* -> \(/dev/dri/[^ ]*\).*$,\1,p' \
	-e 's,^.* -> \(/dev/kfd\).*$,\1,p' \
	-e 's,^.* -> \(/dev/vfio/[^ ]*\).*$,\1,p')
IFS='
'
set -f
p=
told=
for line in $open; do
	case $line in
	process*)
		p=${line#process }
		told=
		;;
	*)
		if [ -z "$told" ]; then
			told=yes
			printf 'process %s\n' "$p"
			v=
			{ read -r v <"$p/comm"; } 2>/dev/null
			printf 'comm %s\n' "$v"
			while read -r v || [ -n "$v" ]; do
				printf 'cgroup %s\n' "$v"
			done 2>/dev/null <"$p/cgroup"
		fi
		printf 'open %s\n' "$line"
		;;
	esac
done
exit 0
