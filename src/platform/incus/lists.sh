# PROGRAM (`incus` or `lxc`) as $1: the daemon's projects, profiles and instances, three lists of
# JSON. Incus' client makes itself a folder where it has none yet; it goes again, so that a look
# leaves nothing behind.
if [ "$1" = incus ] && [ ! -e "${INCUS_CONF:-${HOME:-/root}/.config/incus}" ]; then
    INCUS_CONF=$(mktemp -d) || exit
    export INCUS_CONF
    trap 'rm -rf "$INCUS_CONF"' EXIT
fi
command -v "$1" >/dev/null || exit 127
for list in 'projects?recursion=1' 'profiles?recursion=1&all-projects=true' 'instances?recursion=1&all-projects=true'; do
    "$1" query "local:/1.0/$list" </dev/null || exit
done
