# shellcheck shell=sh
# Who may work on this host: one process at a time, and no other run while one is open.
# What $STATE/lock says is for people: who has it.

# The lock is held by the runner's shell alone (file descriptor 9 is closed for steps), so
# it ends with it.

# lock WHO: or say who has it.
lock() {
    take_lock || taken
    # Somebody may have removed the file of the lock that another process still holds.
    end_runner
    printf '%s\n' "$1" >"$STATE/lock"
    echo "$$" >"$RUN/runner.pid"
}

# Whoever only asks whether the lock is free has it for a moment: try for a while.
take_lock() {
    : >>"$STATE/lock" || exit 1
    exec 9<>"$STATE/lock"
    tries=0
    until try_lock; do
        tries=$((tries + 1))
        [ "$tries" -lt "${lock_tries:-8}" ] || return 1
        sleep 0.2 2>/dev/null || sleep 1
    done
}

try_lock() {
    if command -v flock >/dev/null; then flock -n 9; else lock_by_directory; fi
}

taken() {
    text=$(cat "$STATE/lock")
    echo "${text:-another run has just begun}"
    exit 75
}

free_lock() {
    # Not `:`, which ends some shells where the file system is read-only.
    true >"$STATE/lock"
    rm -rf "$RUN/runner.pid" "$STATE/lock.d"
    exec 9>&-
}

# Without flock: a directory is made by one only. One whose maker is gone is
# taken over, by one at a time.
lock_by_directory() {
    if ! mkdir "$STATE/lock.d" 2>/dev/null; then
        mkdir "$STATE/lock.takeover" 2>/dev/null || return 1
        maker=
        if [ -f "$STATE/lock.d/pid" ]; then read -r maker <"$STATE/lock.d/pid"; fi
        if [ -z "$maker" ] || has_words "$maker" runner.sh; then
            rmdir "$STATE/lock.takeover"
            return 1
        fi
        echo "$$" >"$STATE/lock.d/pid"
        rmdir "$STATE/lock.takeover"
        return 0
    fi
    echo "$$" >"$STATE/lock.d/pid"
}

# lock_is_held STATE: whether somebody works there now. Whoever asks changes nothing.
lock_is_held() {
    if command -v flock >/dev/null; then
        [ -e "$1/lock" ] && ! flock -n "$1/lock" true
    else
        [ -e "$1/lock.d" ] && read -r maker <"$1/lock.d/pid" && kill -0 "$maker" 2>/dev/null
    fi
}

# Another run that is neither kept nor undone keeps the host, whether or not a process
# is at it: its guard is about to undo it, or somebody is about to confirm it.
refuse_if_open() {
    for dir in "$STATE"/runs/*; do
        [ "$dir" != "$RUN" ] || continue
        is_open "$(status_of "$dir")" || continue
        echo "$(cat "$dir/owner"): $(status_of "$dir")"
        free_lock
        exit 75
    done
}

# Whoever connects sees in one file that a run is open, and which.
mark_open() {
    echo "${RUN##*/} $(cat "$RUN/owner")" >"$STATE/open.new" && flush "$STATE/open.new" &&
        mv -f "$STATE/open.new" "$STATE/open" && flush "$STATE"
}
clear_open() {
    if grep -q "^${RUN##*/} " "$STATE/open" 2>/dev/null; then rm -f "$STATE/open"; fi
}
