# shellcheck shell=sh
# Until when the guard leaves a run alone: `deadline` holds a boot and seconds since it, by
# the clock that nobody sets.

# Which boot this is: another text after each.
boot_id() { cat "$R/proc/sys/kernel/random/boot_id" 2>/dev/null || cat /proc/sys/kernel/random/boot_id; }

uptime_s() {
    read -r seconds _ </proc/uptime
    printf '%s' "${seconds%%.*}"
}

# deadline_in SECONDS: until then the guard leaves the run alone.
deadline_in() {
    more=0
    if [ -f "$RUN/extended" ]; then read -r more <"$RUN/extended"; fi
    echo "$(boot_id) $(($(uptime_s) + $1 + more))" >"$RUN/deadline.new" &&
        flush "$RUN/deadline.new" && mv -f "$RUN/deadline.new" "$RUN/deadline"
}

# overdue_by RUN: seconds since its deadline, in `late`. 1 after another boot, or without a
# deadline: then it is long over.
overdue_by() {
    late=1000000 boot='' at=''
    if [ -f "$1/deadline" ]; then read -r boot at <"$1/deadline"; fi
    [ -n "$at" ] && [ "$boot" = "$(boot_id)" ] || return 1
    late=$(($(uptime_s) - at))
}

# deadline_epoch RUN: by the clock on the wall, in seconds since 1970; now, if it is of
# another boot.
deadline_epoch() {
    overdue_by "$1" || late=0
    printf '%s' "$(($(date +%s) - late))"
}
