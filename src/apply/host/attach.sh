# shellcheck shell=sh
# Follows the run $2 of the state directory $1 that somebody else started: prints its
# journal from the beginning, then as it grows, until the run is closed, or waits for
# a restart or for its confirmation; then one line `end CODE STATUS` as follow.sh does.
# CODE is 0, or 3 if nobody is at it any more, not even a guard, or 4 if there is no
# such run, nor will be: what is still being received is not begun any more. $3 is for how
# many seconds to wait at most, $4 how often the run was sent. Before it stand
# lib/process.sh and lib/status.sh.

umask 077
LC_ALL=C
export LC_ALL
RUN=$1/runs/$2
waited=0
# All of it may have arrived without its last reader noticing yet.
while [ ! -d "$RUN" ] && [ -d "$1/runs/.$2.$4.part" ] && [ "$waited" -lt 60 ]; do
    sleep 1
    waited=$((waited + 1))
done
# An upload whose connection was cut may wait for its end long after we are gone. It is
# taken away from its receiver, and its name from one that has not even begun. Both
# rename it, and one of them is first.
if [ ! -d "$RUN" ]; then
    mkdir -p "$1/runs"
    if ! mkdir "$1/runs/.$2.$4.part" 2>/dev/null && mv "$1/runs/.$2.$4.part" "$1/runs/.$2.$4.late.part" 2>/dev/null; then
        rm -rf "$1/runs/.$2.$4.late.part"
    fi
fi
echo received 0
cd "$RUN" 2>/dev/null || { echo "end 4 absent"; exit 0; }
exec 3<journal

# Whether a process of this run is there: its runner, or its guard.
somebody_is_at_it() {
    at_work runner.pid || at_work guard.pid || {
        [ -d "${1%/var/lib/deploy}/run/systemd/system" ] &&
            [ "$(systemctl is-active "deploy-guard-$2.timer" 2>/dev/null)" = active ]
    }
}

alone=0
while :; do
    status=$(status_of "$RUN")
    cat <&3
    echo
    code=0
    if is_moving "$status"; then
        # A runner may be between two of them.
        if somebody_is_at_it "$1" "$2"; then alone=0; else alone=$((alone + 1)); fi
        code=3
        if [ "$alone" -ge 3 ] || [ "$waited" -ge "$3" ]; then break; fi
    elif ! is_over "$status" || ! at_work runner.pid || [ "$waited" -ge "$3" ]; then
        # Of one that is over the guard goes after that, and then the lock.
        break
    fi
    sleep 1
    waited=$((waited + 1))
done
cat <&3
printf '\nend %s %s\n' "$code" "$status"
if [ "$code" -eq 3 ] && ! (true >>journal) 2>/dev/null; then
    echo "nothing can be written below ${1#"${R-}"} now: the run is undone as soon as that is possible again"
fi
