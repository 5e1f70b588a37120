# What a host has for podman: one line a fact, `name value`. POSIX sh; the functions of
# cdi_spec.sh stand before it. $R is the root prefix.
#
#   look USER... -- SCOPE UNIT...      a SCOPE is a user, or - for the system's own units
#
# The last line is `end`: without it the answer is not whole, and what was asked last, on
# standard error, did not answer.
R=${R:-}

asks() { printf '%s\n' "$*" >&2; }

# state WORD...: what this `is-active` says, in $v. systemd has a word for every unit; where it
# says nothing, nobody knows whether the unit runs.
state() {
	asks "$@"
	v=$("$@" 2>/dev/null </dev/null)
	[ -n "$v" ] || [ ! -d "$R/run/systemd/system" ] || exit 1
}

# has NAME PROGRAM ARGUMENT: the first line of what it says.
has() {
	command -v "$2" >/dev/null 2>&1 || return 0
	asks "$2" "$3"
	v=$("$2" "$3" 2>/dev/null </dev/null) || return 0
	printf '%s %s\n' "$1" "$(printf '%s\n' "$v" | head -n 1)"
}

# as USER UID COMMAND...: as a login of the user would run it.
as() (
	cd / || exit 1
	user=$1 uid=$2
	shift 2
	exec runuser -u "$user" -- env "XDG_RUNTIME_DIR=/run/user/$uid" \
		"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$uid/bus" "$@" </dev/null
)

has podman podman --version
for f in /usr/lib/systemd/system-generators/podman-system-generator \
	/usr/libexec/podman/quadlet /usr/lib/podman/quadlet; do
	[ ! -x "$R$f" ] || { echo "quadlet $f" && break; }
done
for f in /usr/bin/catatonit /usr/libexec/catatonit/catatonit /usr/libexec/podman/catatonit \
	/usr/local/libexec/podman/catatonit /usr/lib/podman/catatonit; do
	[ ! -x "$R$f" ] || { echo "catatonit $f" && break; }
done
has crun crun --version
has runc runc --version
has nvidia-ctk nvidia-ctk --version
has amd-ctk amd-ctk --version
if [ -r "$R/sys/fs/cgroup/cgroup.controllers" ]; then
	printf 'controllers %s\n' "$(cat "$R/sys/fs/cgroup/cgroup.controllers")"
fi
if [ -e "$R/sys/fs/selinux/enforce" ]; then
	asks getsebool container_use_devices
	v=$(getsebool container_use_devices 2>/dev/null </dev/null) && printf 'selinux %s\n' "${v##* }"
fi
[ ! -e "$R/sys/module/apparmor/parameters/enabled" ] || {
	read -r v <"$R/sys/module/apparmor/parameters/enabled"
	printf 'apparmor %s\n' "$v"
	[ ! -r "$R/sys/kernel/security/apparmor/profiles" ] ||
		while read -r v _; do printf 'profile %s\n' "$v"; done <"$R/sys/kernel/security/apparmor/profiles"
}
[ ! -e "$R/usr/lib/systemd/system/nvidia-cdi-refresh.service" ] &&
	[ ! -e "$R/etc/systemd/system/nvidia-cdi-refresh.service" ] || echo 'refresh yes'
if command -v nvidia-ctk >/dev/null 2>&1; then
	asks nvidia-ctk cdi list
	nvidia-ctk cdi list 2>/dev/null </dev/null | while read -r v; do
		case $v in nvidia.com/gpu=*) printf 'cdi %s\n' "$v" ;; esac
	done
fi
for vendor in amd intel; do
	asks "the nodes of the cards of $vendor"
	f=$R/etc/cdi/deploy-$vendor.json
	nodes=$(cdi_nodes "$vendor")
	if [ ! -f "$f" ]; then
		v=absent
	elif [ -n "$nodes" ] && [ "$(cat "$f")" = "$(cdi_spec "$vendor")" ]; then
		v=same
	else
		v=differs
	fi
	printf 'spec %s %s\n' "$vendor" "$v"
	[ -z "$nodes" ] || printf '%s\n' "$nodes" | sed "s/^/node $vendor /"
done
for f in "$R"/dev/kfd "$R"/dev/dri/renderD*; do
	[ ! -e "$f" ] || printf 'mode %s %s\n' "${f#"$R"}" "$(stat -c '%a %U %G' "$f")"
done
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	asks "getent passwd $1"
	entry=$(getent passwd "$1" 2>/dev/null)
	if [ -n "$entry" ]; then
		IFS=: read -r name _ uid _ _ home _ <<PASSWD
$entry
PASSWD
		printf 'user %s %s %s\n' "$name" "$uid" "$home"
		printf 'groups %s %s\n' "$name" "$(id -Gn -- "$name" 2>/dev/null)"
		[ ! -e "$R/var/lib/systemd/linger/$name" ] || printf 'linger %s\n' "$name"
		state systemctl is-active -- "user@$uid.service"
		[ "$v" != active ] || printf 'manager %s\n' "$name"
		for f in subuid subgid; do
			! grep -q "^\($name\|$uid\):" "$R/etc/$f" 2>/dev/null || printf '%s %s\n' "$f" "$name"
		done
		f=$R/sys/fs/cgroup/user.slice/user-$uid.slice/user@$uid.service/cgroup.controllers
		[ ! -r "$f" ] || printf 'delegated %s %s\n' "$name" "$(cat "$f")"
	fi
	shift
done
[ $# -eq 0 ] || shift
while [ $# -gt 1 ]; do
	if [ "$1" = - ]; then
		state systemctl is-active -- "$2"
	elif uid=$(id -u -- "$1" 2>/dev/null); then
		state systemctl is-active -- "user@$uid.service"
		case $v in
		active) state as "$1" "$uid" systemctl --user is-active -- "$2" ;;
		*) v= ;;
		esac
	else
		v=
	fi
	printf 'unit %s %s %s\n' "$1" "$2" "${v:-unknown}"
	shift 2
done
echo end
