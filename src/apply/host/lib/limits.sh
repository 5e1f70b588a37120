# shellcheck shell=sh
# Runs one script under a time limit, and ends all of it that is left then. No hang-up ends
# the runner; TERM ends the script that runs now.

detach=
if command -v setsid >/dev/null; then detach=setsid; fi

hung=
stop=
child=
trap : HUP
trap 'hung=1' USR1
trap 'stop=1; if [ -n "$child" ]; then end_group TERM "$child"; fi' TERM INT

# Each script first leaves word of itself, and then looks whether its runner is still
# there: one whose runner was killed is found by `end_leftover`, or does nothing.
# shellcheck disable=SC2016 # it is the script's own
begin='echo "$$" >"$0/child"; kill -0 "$1" || exit; shift; exec sh "$@"'

# Where a script's words go. An undo must also run where nothing can be written.
output() {
    if true >"$RUN/output"; then echo "$RUN/output"; else echo /dev/null; fi 2>/dev/null
}

# limited SECONDS SCRIPT [WORD…]: 0 or the script's status. It runs in a session of its
# own, so that all it started can be ended with it; 124 says that it had to be,
# 125 that even that did not work.
limited() {
    [ -f "$2" ] || return 0
    hung=
    # shellcheck disable=SC2086 # no word where there is no setsid
    (umask 022 && shift && exec $detach sh -c "$begin" "$RUN" "$$" "$@") </dev/null >"$(output)" 2>&1 9>&- &
    child=$!
    # Closed by `exec`: a shell may keep a copy of what it closes for one call.
    (exec 9>&- && watch "$child" "$1") </dev/null >/dev/null 2>&1 &
    watcher=$!
    while :; do
        wait "$child"
        code=$?
        # A signal for us ends `wait` early.
        if [ -n "$hung" ] || ! kill -0 "$child" 2>/dev/null; then break; fi
    done
    if [ -n "$hung" ]; then
        echo "process $child did not end when it was killed" >>"$RUN/output"
        child=
        return 125
    fi
    kill "$watcher" 2>/dev/null
    wait "$watcher"
    if [ "$?" -eq 99 ]; then
        code=124
        echo "not done after $1 s" >>"$RUN/output"
    fi
    if [ "$code" -ne 0 ] && [ ! -s "$RUN/output" ]; then echo "it ended with status $code" >"$RUN/output"; fi
    if [ -n "$stop" ] && [ "$code" -ne 0 ]; then echo "ended, because the runner was told to stop" >>"$RUN/output"; fi
    child=
    return "$code"
}

# watch PID SECONDS: 99 if the time was over. It is told by TERM that the process
# ended; a TERM that comes before the trap is set can be lost, so it also looks.
watch() {
    nap=
    over=
    # Not "$1": the trap runs in whatever function is called then, with its words.
    watched=$1
    trap 'if [ -n "$over" ]; then end_group KILL "$watched"; exit 99; fi
        if [ -n "$nap" ]; then kill "$nap"; fi; exit 0' TERM
    kill -0 "$1" || exit 0
    rest=$2
    while [ "$rest" -gt 10 ]; do
        nap_for 10
        rest=$((rest - 10))
        # Whose runner is gone watches for nobody.
        kill -0 "$$" 2>/dev/null || exit 0
    done
    nap_for "$rest"
    is_ours "$1" || exit 0
    over=1
    end_group TERM "$1"
    nap_for 5
    end_group KILL "$1"
    nap_for 10
    kill -USR1 "$$"
    exit 99
}

nap_for() {
    sleep "$1" &
    nap=$!
    wait "$nap"
}

# limit_of STEP: seconds for its apply. What only looks gets at least a minute.
limit_of() {
    limit=60
    if [ -f "$RUN/steps/$1/limit" ]; then read -r limit <"$RUN/steps/$1/limit"; fi
    printf '%s' "$limit"
}
patience_of() {
    limit=$(limit_of "$1")
    if [ "$limit" -lt 60 ]; then limit=60; fi
    printf '%s' "$limit"
}
