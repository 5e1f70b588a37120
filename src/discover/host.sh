# What a host is: one line a fact, `name value`. Runs in any POSIX sh; starts at most
# two programs. $R is the root prefix, empty on a real host.
R=${R:-}

# first NAME FILE: the first line of a file.
first() {
	v=
	[ -r "$R$2" ] || return 1
	{ read -r v <"$R$2"; } 2>/dev/null
	[ -n "$v" ] && printf '%s %s\n' "$1" "$v"
}

first kernel /proc/sys/kernel/osrelease || printf 'kernel %s\n' "$(uname -r)"
first arch /proc/sys/kernel/arch || printf 'arch %s\n' "$(uname -m)"
first boot /proc/sys/kernel/random/boot_id
first cmdline /proc/cmdline
first driver /proc/driver/nvidia/version
if [ -d "$R/run/systemd/system" ]; then
	echo 'init systemd'
else
	first init /proc/1/comm
fi
for f in "$R/etc/os-release" "$R/usr/lib/os-release"; do
	[ -r "$f" ] || continue
	while read -r v || [ -n "$v" ]; do
		case $v in
		ID=* | VERSION_ID=* | PRETTY_NAME=*) printf 'os %s\n' "$v" ;;
		esac
	done <"$f"
	break
done
if [ -r "$R/proc/modules" ]; then
	echo 'modules'
	while read -r v _ || [ -n "$v" ]; do
		case $v in
		nvidia* | nouveau | nvsw* | vfio* | mdev | gim | amdgpu | amdkfd | i915 | xe | ast | gdrdrv)
			printf 'module %s\n' "$v"
			;;
		esac
	done <"$R/proc/modules"
fi
# What technologies keep on the host. A name that we would not give is not ours.
echo 'kept-files'
for f in "$R"/etc/deploy/gpu/* "$R"/etc/deploy/gpu/*/* \
	"$R"/etc/systemd/system/*.d/50-deploy-*.conf; do
	[ -f "$f" ] || continue
	v=${f#"$R"}
	case $v in
	*[!A-Za-z0-9._/@:+-]*) ;;
	*) printf 'kept-file %s\n' "$v" ;;
	esac
done
exit 0
