# shellcheck shell=sh
# Prints the runs of the state directory $1, or only run $2, newest first:
# `run ID STATUS MANIFEST_BYTES JOURNAL_BYTES` and that many bytes of each, the
# journal only where one run was asked for. Behind the status of a run that waits for
# its confirmation stands `@` and when it is undone, in seconds since 1970. Before them
# `lock held TEXT` or `lock free`, `read-only` if nothing can be written there now, and
# `current BYTES` with the record of what was last applied. Changes nothing, not even a
# time stamp. Before it stand lib/process.sh, lib/status.sh, lib/deadline.sh, lib/lock.sh.

LC_ALL=C
export LC_ALL
cd "$1" 2>/dev/null || exit 0
# shellcheck disable=SC2034 # boot_id asks for it
R=${PWD%/var/lib/deploy}
size_of() {
    size=0
    if [ -f "$1" ]; then size=$(wc -c <"$1"); fi
    # shellcheck disable=SC2086 # some `wc` pad with blanks
    echo $size
}
held=
if lock_is_held .; then held=1; fi
text=
if [ -n "$held" ]; then text=$(head -n 1 lock); fi
# Whoever only asks whether the lock is free has it for a moment, and writes nothing there.
if [ -n "$text" ]; then
    echo "lock held $text"
else
    echo "lock free"
fi
# Opened, not written.
if [ -e lock ] && ! (true >>lock) 2>/dev/null; then echo "read-only"; fi
# Read once: it may be replaced at any moment.
current=$(cat current.json 2>/dev/null)
printf 'current %s\n%s' "${#current}" "$current"
# shellcheck disable=SC2012 # run ids are letters, digits and dashes
ls -r runs | while read -r id; do
    if [ -n "${2-}" ] && [ "$id" != "$2" ]; then continue; fi
    if [ ! -f "runs/$id/manifest.json" ]; then continue; fi
    status=$(status_of "runs/$id")
    if [ "$status" = unconfirmed ]; then status=$status@$(deadline_epoch "runs/$id"); fi
    manifest=$(size_of "runs/$id/manifest.json")
    journal=0
    if [ -n "${2-}" ]; then journal=$(size_of "runs/$id/journal"); fi
    echo "run $id $status $manifest $journal"
    head -c "$manifest" "runs/$id/manifest.json"
    if [ "$journal" -gt 0 ]; then head -c "$journal" "runs/$id/journal"; fi
done
