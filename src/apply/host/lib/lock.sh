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
    if command -v flock >/dev/null; then flock -n 9; else lock_by_link; fi
}

taken() {
    text=$(cat "$STATE/lock")
    echo "${text:-another run has just begun}"
    exit 75
}

free_lock() {
    # Not `:`, which ends some shells where the file system is read-only.
    true >"$STATE/lock"
    rm -f "$RUN/runner.pid" "$STATE/lock.pid"
    exec 9>&-
}

# Without flock: a link whose target is our number, so that it is there with it or not at
# all, and takes no room. One whose maker is gone is taken over, by one at a time.
lock_by_link() {
    if ln -s "$$" "$STATE/lock.pid" 2>/dev/null; then return 0; fi
    if ! mkdir "$STATE/lock.takeover" 2>/dev/null; then
        # That takes a moment only, unless somebody was killed at it.
        find "$STATE/lock.takeover" -prune -mmin +1 -exec rmdir {} + 2>/dev/null
        return 1
    fi
    code=1
    if maker_is_gone && rm -f "$STATE/lock.new" && ln -s "$$" "$STATE/lock.new" &&
        mv -f "$STATE/lock.new" "$STATE/lock.pid"; then code=0; fi
    rmdir "$STATE/lock.takeover"
    return "$code"
}

# Our own number is of a boot before.
maker_is_gone() {
    maker=$(readlink "$STATE/lock.pid") || return 1
    [ "$maker" = "$$" ] || ! has_words "$maker" runner.sh
}

# lock_is_held STATE: whether somebody works there now. Whoever asks changes nothing.
lock_is_held() {
    if command -v flock >/dev/null; then
        [ -e "$1/lock" ] && ! flock -n "$1/lock" true
    else
        maker=$(readlink "$1/lock.pid" 2>/dev/null) && has_words "$maker" runner.sh
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
