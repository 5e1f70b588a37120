#!/bin/sh
# Carries out one run on this host, or undoes it:
#
#   runner.sh run             check, snapshot, arm the guard, then apply and verify
#                             step by step; on a failure undo what was begun, in reverse
#   runner.sh confirm WHO     whoever started the run can still reach the host: read
#                             everything back once more and keep it, or else undo it
#   runner.sh undo WHO        undo a finished, an unconfirmed or an interrupted run; refused
#                             if the host is no longer as the run left it, or if somebody
#                             uses what the undo takes away
#   runner.sh undo-anyway WHO the same without the first question
#   runner.sh extend SECONDS  the guard of this run waits so much longer
#   runner.sh unlock WHO      end what is left of this run, if it hangs, and undo it
#   runner.sh expire          called by guard.sh: undo, if nobody is at it any more or the
#                             time is over
#   runner.sh continue        called by guard.sh at boot: go on after a wanted reboot
#
# It stands in the run directory, /var/lib/deploy/runs/ID, and is the same for
# every run. What it finds there: steps/NNN-…/{check,snapshot,apply,verify,undo,
# idle}, `limit` (seconds) and, where the step restarts the host, `reboot`; payload/,
# handlers/, current.json, remembered, `guard` (who confirms, the seconds to do so, the
# seconds for all of it). What it keeps there: snapshot/, `journal` (a line an
# event: time, event, step, detail), `deadline` and `status`:
#
#   uploaded     nothing was begun            stale    the host was not as planned
#   preparing    nothing was changed yet      failed   nothing could be changed
#   running      between: undo it             done     applied and read back
#   rebooting    between: goes on at boot     undone   not kept, and all is as before
#   unconfirmed  applied, undone in time      rolled-back   undone on request
#   undoing      between: undo it             undo-failed   a person is needed
#
# Every journal line, and every snapshot, is on disk before what follows it
# changes anything. It needs no connection: whoever started it may go away.
# Exit status: 0 ended, see `status`; 75 the lock is taken; 76 refused; 77 in use;
# these say why on standard output. 1: nothing can be written, or the host goes down; what
# was begun is undone by the guard.

umask 077
RUN=${0%/*}
case $RUN in
    /*/runs/*) ;;
    *) echo "call runner.sh by its absolute path" >&2; exit 64 ;;
esac
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$RUN/lib.sh"
STATE=${RUN%/runs/*}
cd "${R:-/}" || exit

detach=
if command -v setsid >/dev/null; then detach=setsid; fi

# --- telling -------------------------------------------------------------------

# journal EVENT STEP [DETAIL]: appends one line and wakes who follows.
journal() {
    printf '%s %s %s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" "$2" "${3-}" >>"$RUN/journal" || return 1
    for wake in "$RUN"/wake.*; do
        # Opened for both ways, a pipe without reader neither blocks nor ends us.
        if [ -p "$wake" ]; then echo 1<>"$wake"; fi
    done
}

# The same, on disk before we go on.
journal_now() { journal "$@" && flush "$RUN/journal"; }

# set_status WORD: the old one or the new one, never none.
set_status() {
    echo "$1" >"$RUN/status.new" && flush "$RUN/status.new" &&
        mv -f "$RUN/status.new" "$RUN/status" && flush "$RUN"
}

status_of() {
    status=unknown
    if [ -f "$1/status" ]; then read -r status <"$1/status"; fi
    printf '%s' "$status"
}

# The last words of a script in one line: newlines as \n, no control bytes.
last_words() {
    mark=$(printf '\001')
    tail -c 2000 "$RUN/output" 2>/dev/null | tr -d '\000-\010\013-\037\177' |
        tr '\011\012' ' \001' | sed -e 's/\\/\\\\/g' -e "s/$mark*\$//" -e "s/$mark/\\\\n/g"
}

# --- the lock --------------------------------------------------------------------

# One process at a time works on a host. Its lock is held by this shell alone (file
# descriptor 9 is closed for steps), so it ends with it. A run that is still open
# keeps other runs out as well: see `refuse_if_open`.

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

# has_words PID TEXT: whether a process was called with this text. Its words end in
# NUL bytes, behind which busybox `grep` sees nothing.
has_words() { { tr '\000' '\n' <"/proc/$1/cmdline"; } 2>/dev/null | grep -qF "$2"; }

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

# Another run that is neither kept nor undone keeps the host, whether or not a process
# is at it: its guard is about to undo it, or somebody is about to confirm it.
refuse_if_open() {
    for dir in "$STATE"/runs/*; do
        [ "$dir" != "$RUN" ] || continue
        case $(status_of "$dir") in
            running | rebooting | unconfirmed | undoing) ;;
            *) continue ;;
        esac
        echo "$(cat "$dir/owner"): $(status_of "$dir")"
        free_lock
        exit 75
    done
}

# --- running one script under a time limit -------------------------------------------

hung=
stop=
child=
trap : HUP
trap 'hung=1' USR1
trap 'stop=1; if [ -n "$child" ]; then end_group TERM "$child"; fi' TERM INT

# end_group SIGNAL PID: the script with all that it started, or where there is
# no setsid, the script alone.
end_group() { kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null; }

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

# is_ours PID: whether it still is a process of this run. Its runner may have been
# killed, and the number be another's by now.
is_ours() {
    kill -0 "$1" || return
    [ ! -r "/proc/$1/cmdline" ] || has_words "$1" "$RUN/"
}

nap_for() {
    sleep "$1" &
    nap=$!
    wait "$nap"
}

# What a killed runner left running of this run. It must be gone before the undo begins,
# unless it does not end at all.
end_leftover() {
    [ -f "$RUN/child" ] || return 0
    read -r left <"$RUN/child"
    has_words "$left" "$RUN/" || return 0
    tries=0
    while end_group KILL "$left" && [ "$tries" -lt 50 ]; do
        tries=$((tries + 1))
        sleep 0.2 2>/dev/null || sleep 1
    done
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

# each SCRIPT: that script of all steps, in one process and under one limit, up
# to the first that fails; that one's name is in `at`, and what it said in `output`.
each() {
    all=0
    for step in $(steps); do all=$((all + $(patience_of "$step"))); done
    limited "$all" "$RUN/runner.sh" each "$1"
}
each_here() {
    for step in $(steps); do
        echo "$step" >"$RUN/at" || exit
        if [ -f "$RUN/steps/$step/$1" ]; then
            # shellcheck source=/dev/null
            (. "$RUN/steps/$step/$1") >"$RUN/output" 2>&1 || exit
        fi
    done
}

steps() {
    for dir in "$RUN"/steps/*; do
        if [ -d "$dir" ]; then printf '%s\n' "${dir##*/}"; fi
    done
}

# --- undoing --------------------------------------------------------------------------

# undo_steps NAME…: in the given order, all of them, whatever fails. Afterwards
# the host must be as the plan had found it.
undo_steps() {
    trap : TERM INT
    left='' kept=''
    for step in "$@"; do
        [ -f "$RUN/steps/$step/apply" ] || continue
        if [ ! -f "$RUN/steps/$step/undo" ]; then
            # The plan had said so.
            kept="$kept $step"
            if was_done "$step"; then journal kept "$step" "it was made"; else
                journal kept "$step" "what it did before it failed is not known"
            fi
            continue
        fi
        journal_now undo "$step"
        if limited "$(patience_of "$step")" "$RUN/steps/$step/undo"; then
            journal undone "$step"
            continue
        fi
        left="$left $step"
        journal undo-failed "$step" "$(last_words)"
    done
    # A check that asks more than whether all is as before, such as whether a device
    # is idle, leaves that out now.
    DEPLOY_AFTER_UNDO=1
    export DEPLOY_AFTER_UNDO
    for step in "$@"; do
        [ -f "$RUN/steps/$step/undo" ] || continue
        if ! limited "$(patience_of "$step")" "$RUN/steps/$step/check"; then
            left="$left $step"
            journal undo-failed "$step" "not as before: $(last_words)"
        fi
    done
    [ -z "$left" ]
}

# The steps that were begun, last first.
begun_steps() {
    sed -n 's/^[^ ]* apply \([^ ]*\) *$/\1/p' "$RUN/journal" | sort -ru
}

# was_done STEP: before the host was restarted.
was_done() { grep -q "^[^ ]* done $1 " "$RUN/journal"; }
was_begun() { grep -q "^[^ ]* apply $1 " "$RUN/journal"; }

# While the host goes down, systemd starts nothing any more, so that an undo would fail
# half-way. The boot unit undoes the run instead: it is still open.
leave_to_boot() {
    with_systemd && [ "$(systemctl is-system-running 2>/dev/null)" = stopping ] || return 0
    echo "the host goes down; run ${RUN##*/} is undone when it is back" >&2
    exit 1
}

# Undoes what was begun and ends the run.
undo_and_finish() {
    leave_to_boot
    rm -f "$RUN/reserve"
    deadline_in "$total"
    set_status undoing
    # shellcheck disable=SC2046 # names of steps have no blanks
    if undo_steps $(begun_steps); then
        end=$1
        restore_record
    else
        leave_to_boot
        end=undo-failed
    fi
    owe
    finish "$end"
}

# --- handlers ---------------------------------------------------------------------------

# What could not be undone may still wait for its handler: the next run is told of it.
owe() {
    for handler in "$RUN"/handlers/*; do
        [ -d "$handler" ] || continue
        for step in $left $kept; do
            if grep -qxF "$step" "$handler/by"; then
                grep -qxFf "$handler/name" "$STATE/owed" 2>/dev/null ||
                    cat "$handler/name" >>"$STATE/owed"
            fi
        done
    done
    if [ -f "$STATE/owed" ]; then flush "$STATE/owed"; fi
}

# All handlers of this run have run: nobody owes them any more.
settle_handlers() {
    [ -f "$STATE/owed" ] || return 0
    for handler in "$RUN"/handlers/*; do
        [ -d "$handler" ] || continue
        grep -vxFf "$handler/name" "$STATE/owed" >"$STATE/owed.new"
        mv -f "$STATE/owed.new" "$STATE/owed" || return 1
    done
    [ -s "$STATE/owed" ] || rm -f "$STATE/owed"
}

# --- time -------------------------------------------------------------------------------

# By the clock that nobody sets: seconds since the boot, and which boot it was.
uptime_s() {
    read -r seconds _ </proc/uptime
    printf '%s' "${seconds%%.*}"
}

settings() { read -r confirms window total <"$RUN/guard"; }

# deadline_in SECONDS: until then the guard leaves the run alone.
deadline_in() {
    more=0
    if [ -f "$RUN/extended" ]; then read -r more <"$RUN/extended"; fi
    echo "$(boot_id) $(($(uptime_s) + $1 + more))" >"$RUN/deadline.new" &&
        flush "$RUN/deadline.new" && mv -f "$RUN/deadline.new" "$RUN/deadline"
}

# overdue_by: seconds since the deadline, in `late`; after another boot, or without a
# deadline, it is long over.
overdue_by() {
    late=1000000
    boot='' at=''
    if [ -f "$RUN/deadline" ]; then read -r boot at <"$RUN/deadline"; fi
    if [ -n "$at" ] && [ "$boot" = "$(boot_id)" ]; then late=$(($(uptime_s) - at)); fi
}

# The deadline by the clock on the wall, in seconds since 1970.
deadline_epoch() {
    overdue_by
    printf '%s' "$(($(date +%s) - late))"
}

# --- the record of what was last applied --------------------------------------------------

keep_record() {
    mkdir -p "$RUN/snapshot/state" || return 1
    for name in current.json remembered; do
        if [ -f "$STATE/$name" ]; then cp -p "$STATE/$name" "$RUN/snapshot/state/$name" || return 1; fi
    done
}

flush_snapshot() { find "$RUN/snapshot" -exec sync {} + 2>/dev/null || sync; }

put_record() {
    for name in current.json remembered; do
        cp "$RUN/$name" "$STATE/$name.new" && flush "$STATE/$name.new" &&
            mv -f "$STATE/$name.new" "$STATE/$name" || return 1
    done
    flush "$STATE"
}

# Only what this run had recorded: a later run's record stays.
restore_record() {
    for name in current.json remembered; do
        rm -f "$STATE/$name.new"
        cmp -s "$RUN/$name" "$STATE/$name" || continue
        if [ -f "$RUN/snapshot/state/$name" ]; then
            cp -p "$RUN/snapshot/state/$name" "$STATE/$name.new" && flush "$STATE/$name.new" &&
                mv -f "$STATE/$name.new" "$STATE/$name"
        else
            rm -f "$STATE/$name"
        fi
    done
    flush "$STATE"
}

# Of the runs that are over the last ten are kept; those that need a person, always.
prune() {
    count=1
    # shellcheck disable=SC2012 # run ids are letters, digits and dashes
    ls -r "$STATE/runs" | while read -r old; do
        if [ "$STATE/runs/$old" = "$RUN" ]; then continue; fi
        case $(status_of "$STATE/runs/$old") in
            done | undone | rolled-back | stale | failed | uploaded | preparing) ;;
            *) continue ;;
        esac
        count=$((count + 1))
        if [ "$count" -gt 10 ]; then rm -rf "$STATE/runs/$old"; fi
    done
}

# --- the verbs ----------------------------------------------------------------------------

# finish STATUS: the end of a run, on disk and in its journal, and of its guard.
finish() {
    rm -f "$STATE/open.new"
    if ! set_status "$1"; then
        # Nothing can be written: the guard tries again as long as it takes.
        echo "$RUN/status cannot be written; the guard tries again" >&2
        exit 1
    fi
    if [ "$1" = "done" ]; then settle_handlers; fi
    clear_open
    journal_now end - "$1"
    if ! sh "$RUN/guard.sh" disarm >"$RUN/output" 2>&1 9>&-; then
        journal disarm-failed - "$(last_words)"
    fi
    free_lock
    exit 0
}

# Whoever connects sees in one file that a run is open, and which.
mark_open() {
    echo "${RUN##*/} $(cat "$RUN/owner")" >"$STATE/open.new" && flush "$STATE/open.new" &&
        mv -f "$STATE/open.new" "$STATE/open" && flush "$STATE"
}
clear_open() {
    if grep -q "^${RUN##*/} " "$STATE/open" 2>/dev/null; then rm -f "$STATE/open"; fi
}

arm() {
    deadline_in "$total" && mark_open || return 1
    sh "$RUN/guard.sh" arm >"$RUN/output" 2>&1 9>&- || return 1
    journal armed - "$(cat "$RUN/armed")"
}

run() {
    lock "$(cat "$RUN/owner")"
    refuse_if_open
    settings
    set_status preparing || exit 1
    journal start - "$(cat "$RUN/owner")"

    if ! each check; then
        journal check-failed "$(cat "$RUN/at")" "$(last_words)"
        finish stale
    fi
    if [ -n "$stop" ] || ! each snapshot; then
        journal snapshot-failed "$(cat "$RUN/at")" "$(last_words)"
        finish failed
    fi
    if ! keep_record || ! flush_snapshot; then
        journal snapshot-failed - "$STATE cannot be written"
        finish failed
    fi
    if ! arm; then
        journal arm-failed - "$(last_words)"
        finish failed
    fi
    if ! set_status running; then
        journal snapshot-failed - "$STATE cannot be written"
        finish failed
    fi
    make_steps
}

# The steps that are not made yet, and then the end.
make_steps() {
    for step in $(steps); do
        if [ -n "${resumed-}" ] && was_done "$step"; then continue; fi
        true >"$RUN/output"
        if [ -n "$stop" ]; then
            journal apply-failed "$step" "the runner was told to stop"
            undo_and_finish undone
        fi
        if [ -f "$RUN/steps/$step/reboot" ]; then restart "$step"; fi
        if ! journal_now apply "$step" || ! limited "$(limit_of "$step")" "$RUN/steps/$step/apply"; then
            journal apply-failed "$step" "$(last_words)"
            undo_and_finish undone
        fi
        if ! limited "$(patience_of "$step")" "$RUN/steps/$step/verify"; then
            journal verify-failed "$step" "$(last_words)"
            undo_and_finish undone
        fi
        journal "done" "$step"
    done
    if [ "$confirms" = host ]; then keep_run; fi
    # From here on the time runs.
    if ! deadline_in "$window" || ! set_status unconfirmed; then
        journal record-failed - "$STATE cannot be written"
        undo_and_finish undone
    fi
    journal_now unconfirmed - "$(deadline_epoch)"
    free_lock
    exit 0
}

# The run is kept: what was applied is recorded, and then the status says so.
keep_run() {
    if ! put_record; then
        journal record-failed - "$STATE cannot be written"
        undo_and_finish undone
    fi
    rm -f "$RUN/reserve" "$RUN/child" "$RUN/at"
    prune
    finish "done"
}

# restart STEP: the host. The boot unit goes on with what comes after it.
restart() {
    limit=$(limit_of "$1")
    if was_begun "$1"; then
        # Never twice: a host that restarts again and again is worse than one undone.
        journal apply-failed "$1" "the host was restarted for this already"
        undo_and_finish undone
    fi
    if with_systemd; then systemctl --failed --no-legend --plain list-units >"$RUN/failed-units" 2>/dev/null; fi
    if ! boot_id >"$RUN/boot" || ! journal_now apply "$1" || ! deadline_in "$((limit + 30))" ||
        ! set_status rebooting; then
        echo "$STATE cannot be written" >"$RUN/output"
    elif trap 'exit 0' TERM INT && restart_now >"$RUN/output" 2>&1 9>&-; then
        # Ended by the shutdown, as everything else.
        nap_for "$limit"
        echo "the host did not go down within $limit s" >"$RUN/output"
    fi
    trap : TERM INT
    set_status running
    journal apply-failed "$1" "$(last_words)"
    undo_and_finish undone
}

restart_now() {
    if with_systemd; then systemctl reboot; else reboot; fi
}

# At boot: the host is back.
continue_after_boot() {
    lock_tries=50
    lock "$(cat "$RUN/owner")"
    settings
    [ "$(status_of "$RUN")" = rebooting ] || { free_lock; exit 76; }
    # The deadline of the boot before counts no more.
    deadline_in "$total" && set_status running || exit 1
    step=$(begun_steps | head -n 1)
    journal_now "done" "$step" "boot $(boot_id)"
    resumed=1
    make_steps
}

# confirm WHO
confirm() {
    lock "confirmation of run ${RUN##*/}: $1"
    settings
    overdue_by
    case $(status_of "$RUN"):$late in
        unconfirmed:-*) ;;
        unconfirmed:*) refuse "it is too late to confirm run ${RUN##*/}: the host is about to undo it" ;;
        *) refuse "there is nothing to confirm: run ${RUN##*/} is $(status_of "$RUN")" ;;
    esac
    # The deadline stays as it is: the guard leaves us the time that looking may take
    # for as long as we have the lock.
    journal_now confirming - "$1" || refuse "$STATE cannot be written"
    for step in $(steps); do
        [ ! -f "$RUN/steps/$step/superseded" ] || continue
        if ! limited "$(patience_of "$step")" "$RUN/steps/$step/verify"; then
            journal verify-failed "$step" "$(last_words)"
            undo_and_finish undone
        fi
    done
    if [ -f "$RUN/failed-units" ] && ! limited 300 "$RUN/guard.sh" units-up; then
        journal verify-failed - "$(last_words)"
        undo_and_finish undone
    fi
    keep_run
}

refuse() {
    echo "$1"
    free_lock
    exit 76
}

# undo ANYWAY WHO
undo() {
    lock "rollback of run ${RUN##*/}: $2"
    settings
    before=$(status_of "$RUN")
    case $before in
        "done")
            refuse_if_open
            [ -n "$1" ] || refuse_if_moved
            ;;
        undo-failed) refuse_if_open ;;
        running | rebooting | unconfirmed | undoing) ;;
        *) refuse "there is nothing to undo: run ${RUN##*/} is $before" ;;
    esac
    rm -f "$RUN/reserve"
    end_leftover
    refuse_if_used
    journal start - "rollback: $2"
    if ! arm; then
        echo "the guard could not be set: $(last_words)"
        not_begun
    fi
    case $before in
        # Until then the guard takes the run for one that is over.
        "done" | undo-failed)
            if ! set_status undoing; then
                echo "$STATE cannot be written"
                not_begun
            fi
            ;;
    esac
    undo_and_finish rolled-back
}

not_begun() {
    case $before in
        "done" | undo-failed) clear_open; sh "$RUN/guard.sh" disarm >"$RUN/output" 2>&1 9>&- ;;
    esac
    free_lock
    exit 1
}

# Called by the guard, which has seen that nobody is at it, or that the time is over.
expire() {
    lock_tries=20
    if ! take_lock; then
        overdue_by
        settings
        if [ "$(status_of "$RUN")" = unconfirmed ]; then late=$((late - total)); fi
        [ "$late" -ge 0 ] || exit 0
        end_runner
        take_lock || taken
    fi
    settings
    overdue_by
    # With the lock in our hands nobody is at it, unless somebody has removed its file.
    case $(status_of "$RUN") in
        preparing | running | undoing) end_runner ;;
    esac
    case $(status_of "$RUN"):$late in
        preparing:*) end_leftover; finish failed ;;
        running:* | undoing:*) why="its runner was ended from outside" ;;
        rebooting:-* | unconfirmed:-*) exit 0 ;;
        rebooting:*)
            # While the host boots, its boot unit may be about to go on with the run.
            if [ -z "${DEPLOY_AT_BOOT-}" ] && boot_unit_waits; then exit 0; fi
            why="the host did not restart in time"
            ;;
        unconfirmed:*)
            why="it was not confirmed in time"
            # What somebody began to use is not taken away at once.
            if [ "$late" -lt "$window" ] && in_use >/dev/null; then exit 0; fi
            # More time may have been given meanwhile.
            overdue_by
            [ "$late" -ge 0 ] || exit 0
            ;;
        uploaded:* | stale:* | failed:* | "done":* | undone:* | rolled-back:* | undo-failed:*)
            clear_open
            sh "$RUN/guard.sh" disarm 9>&-
            exit
            ;;
        # It cannot be read now: neither is the guard to go, nor anything to be undone.
        *) exit 1 ;;
    esac
    if [ -n "${DEPLOY_AT_BOOT-}" ]; then why="the host was restarted before it was over"; fi
    printf '%s\n' "guard of run ${RUN##*/}: $why" >"$STATE/lock"
    echo "$$" >"$RUN/runner.pid"
    rm -f "$RUN/reserve"
    end_leftover
    journal guard - "$why"
    undo_and_finish undone
}

# Whether the boot unit of this run is still to be started, or at it.
boot_unit_waits() {
    with_systemd && systemctl list-jobs --no-legend 2>/dev/null | grep -qF " deploy-boot-${RUN##*/}.service "
}

# unlock WHO: of this run alone.
unlock() {
    lock_tries=3
    if ! take_lock; then
        case $(cat "$STATE/lock") in
            *"${RUN##*/}"*) ;;
            *) taken ;;
        esac
        end_runner
        take_lock || refuse_unlocked
    fi
    settings
    case $(status_of "$RUN") in
        running | rebooting | unconfirmed | undoing) ;;
        *) refuse "run ${RUN##*/} keeps nobody out: it is $(status_of "$RUN")" ;;
    esac
    end_runner
    printf '%s\n' "unlock of run ${RUN##*/}: $1" >"$STATE/lock"
    echo "$$" >"$RUN/runner.pid"
    rm -f "$RUN/reserve"
    end_leftover
    journal start - "unlock: $1"
    if ! arm; then journal arm-failed - "$(last_words)"; fi
    undo_and_finish rolled-back
}

refuse_unlocked() {
    echo "the process of run ${RUN##*/} cannot be ended: $(cat "$STATE/lock")"
    exit 76
}

# Another process that is at this run: beyond all its limits, or with a lock whose file is
# gone.
end_runner() {
    [ -f "$RUN/runner.pid" ] || return 0
    read -r pid <"$RUN/runner.pid"
    if [ "$pid" != "$$" ] && has_words "$pid" "$RUN/runner.sh"; then kill -s KILL "$pid"; fi
}

# extend SECONDS: for all that is still to come.
extend() {
    case $(status_of "$RUN") in
        preparing | running | rebooting | unconfirmed) ;;
        *) echo "the guard of run ${RUN##*/} waits for nothing: it is $(status_of "$RUN")"; exit 76 ;;
    esac
    more=0
    if [ -f "$RUN/extended" ]; then read -r more <"$RUN/extended"; fi
    read -r boot at <"$RUN/deadline" || exit 1
    echo "$((more + $1))" >"$RUN/extended" &&
        echo "$boot $((at + $1))" >"$RUN/deadline.more" && flush "$RUN/deadline.more" &&
        mv -f "$RUN/deadline.more" "$RUN/deadline" || exit 1
    case $(status_of "$RUN") in
        undoing | undone | undo-failed) echo "it is too late: run ${RUN##*/} is $(status_of "$RUN")"; exit 76 ;;
    esac
    echo "undo-at $(deadline_epoch)"
}

# An undo that is refused half-way leaves the host between.
refuse_if_used() {
    in_use || return 0
    free_lock
    exit 77
}

# in_use: whether somebody uses what the undo takes away; says who and what.
in_use() {
    used=
    for step in $(begun_steps); do
        if ! limited "$(patience_of "$step")" "$RUN/steps/$step/idle"; then
            used=1
            echo "$step: $(last_words)"
        fi
    done
    [ -n "$used" ]
}

refuse_if_moved() {
    moved=
    for step in $(steps); do
        # A later step of the same run changed the same thing again.
        [ ! -f "$RUN/steps/$step/superseded" ] || continue
        if ! limited "$(patience_of "$step")" "$RUN/steps/$step/verify"; then
            moved=1
            echo "$step: $(last_words)"
        fi
    done
    [ -n "$moved" ] || return 0
    free_lock
    exit 76
}

case ${1-} in
    run) run ;;
    confirm) confirm "${2-}" ;;
    undo) undo "" "${2-}" ;;
    undo-anyway) undo 1 "${2-}" ;;
    extend) extend "$2" ;;
    unlock) unlock "${2-}" ;;
    expire) expire ;;
    continue) continue_after_boot ;;
    each) each_here "$2" ;;
    *) echo "runner.sh run|confirm|undo|undo-anyway|extend|unlock" >&2; exit 64 ;;
esac
