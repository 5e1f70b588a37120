# Intel's cards: their graphics units, and what their virtual functions were given. `card
# ADDRESS` begins a card; values are - where there is no such file and ? where it cannot be
# read. What xpu-smi says comes last, as `== NAME` and its text. Starts nothing where there
# is no card of Intel's.
# $R is the root prefix, empty on a real host.
R=${R:-}

# val FILE: its first line in $v.
val() {
	v=-
	[ -e "$1" ] || return 0
	v=
	{ read -r v <"$1"; } 2>/dev/null
	[ -n "$v" ] || v='?'
}

# gts FOLDER...: the compute engines of graphics units, `.../tileT/gtG` or `.../gt/gtG`.
gts() {
	for g in "$@"; do
		[ -d "$g" ] || continue
		t=${g%/gt*}
		t=${t##*/}
		case $t in
		tile*) t=${t#tile} ;;
		*) t=${g##*/gt} ;;
		esac
		val "$g/ccs_mode"
		m=$v
		val "$g/num_cslices"
		printf 'gt %s %s %s %s\n' "$t" "${g##*/gt}" "$m" "$v"
	done
}

# share NUMBER UNIT FOLDER MEMORY: a line unless nothing is set and the function is not there.
share() {
	[ -d "$3" ] || return 0
	val "$3/$4"
	m=$v
	val "$3/exec_quantum_ms"
	q=$v
	val "$3/preempt_timeout_us"
	p=$v
	v=-
	[ "$4" = vram_quota ] && val "$3/sched_priority"
	case $m$q$p,$v in
	*[!0-]*,* | *,*'[normal]'* | *,*'[high]'*) ;;
	*) [ "$1" -le "$now" ] || return 0 ;;
	esac
	printf 'share %s %s %s %s %s %s\n' "$1" "$2" "$m" "$q" "$p" "$v"
}

card=
for d in "$R"/sys/bus/pci/devices/*; do
	val "$d/vendor"
	[ "$v" = 0x8086 ] || continue
	val "$d/class"
	case $v in
	0x03* | 0x12*) ;;
	*) continue ;;
	esac
	[ -L "$d/physfn" ] && continue
	card=yes
	printf 'card %s\n' "${d##*/}"
	gts "$d"/tile*/gt* "$d"/drm/card*/gt/gt*
	base=
	for b in "$d/sriov_admin" "$d"/drm/card*/prelim_iov "$d"/drm/card*/iov \
		"$R/sys/kernel/debug/dri/${d##*/}"; do
		case $b in
		*/dri/*) [ -d "$b/gt0/pf" ] || continue ;;
		*) [ -d "$b/pf" ] || continue ;;
		esac
		base=$b
		break
	done
	for c in "$d"/drm/card*; do
		[ -e "$c/prelim_uapi_version" ] && echo prelim
	done
	[ -n "$base" ] || continue
	val "$d/sriov_numvfs"
	now=$v
	case $now in
	'' | *[!0-9]*) now=0 ;;
	esac
	case $base in
	*/dri/*) echo 'interface debugfs' ;;
	*) printf 'interface %s\n' "${base##*/}" ;;
	esac
	val "$base/pf/auto_provisioning"
	printf 'auto %s\n' "$v"
	takes=
	for f in "$base"/vf1/profile/* "$base"/vf1/gt*/* "$base"/gt0/vf1/*; do
		[ -e "$f" ] && takes="$takes ${f##*/}"
	done
	printf 'takes%s\n' "$takes"
	for g in "$base"/pf/gt*; do
		[ -d "$g" ] && echo unit
	done
	n=1
	while [ -d "$base/vf$n" ] || [ -d "$base/gt0/vf$n" ]; do
		case $base in
		*/sriov_admin) share "$n" - "$base/vf$n/profile" vram_quota ;;
		*iov)
			for g in "$base/vf$n"/gt*; do
				share "$n" "${g##*/gt}" "$g" lmem_quota
			done
			;;
		*)
			for g in "$base"/gt*; do
				share "$n" "${g##*/gt}" "$g/vf$n" lmem_quota
			done
			;;
		esac
		n=$((n + 1))
	done
done
[ -n "$card" ] || exit 0
command -v xpu-smi >/dev/null 2>&1 || exit 0
echo '== version'
xpu-smi -v 2>&1 </dev/null
echo '== discovery'
# Version 2 is not known to write JSON; its table is asked for where none came.
out=$(xpu-smi discovery -j 2>&1 </dev/null)
case $out in
*'"device_list"'*) ;;
*) out=$(xpu-smi discovery 2>&1 </dev/null) ;;
esac
printf '%s\n' "$out"
exit 0
