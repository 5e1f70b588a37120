#!/bin/sh
# Carries out one run on this host, or undoes it:
#
#   runner.sh run             check, snapshot, then apply and verify step by step;
#                             on a failure undo what was begun, in reverse
#   runner.sh undo WHO        undo a finished or an interrupted run; refused if
#                             the host is no longer as the run left it, or if
#                             somebody uses what the undo takes away
#   runner.sh undo-anyway WHO the same without the first question
#
# It stands in the run directory, /var/lib/deploy/runs/ID, and is the same for
# every run. What it finds there: steps/NNN-…/{check,snapshot,apply,verify,undo,
# idle} and `limit` (seconds), payload/, current.json, remembered. What it keeps there:
# snapshot/, `journal` (a line an event: time, event, step, detail) and `status`:
#
#   uploaded     nothing was begun            stale    the host was not as planned
#   preparing    nothing was changed yet      failed   nothing could be changed
#   running      between: undo it             done     applied and read back
#   undoing      between: undo it             undone   failed, and all is as before
#   undo-failed  a person is needed           rolled-back   undone on request
#
# Every journal line, and every snapshot, is on disk before what follows it
# changes anything. It needs no connection: whoever started it may go away.
# Exit status: 0 ended, see `status`; 75 the lock is taken; 76 refused; 77 in use;
# these say why on standard output.

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

# lock WHO: one run at a time on a host. The lock is held by this shell alone
# (file descriptor 9 is closed for steps), so it ends with it.
lock() {
    : >>"$STATE/lock" || exit 1
    if command -v flock >/dev/null; then
        exec 9<>"$STATE/lock"
        flock -n 9 || taken
    else
        lock_by_directory
    fi
    printf '%s\n' "$1" >"$STATE/lock"
}

taken() {
    text=$(cat "$STATE/lock")
    echo "${text:-another run has just begun}"
    exit 75
}

unlock() {
    : >"$STATE/lock"
    rm -rf "$STATE/lock.d"
    exec 9>&-
}

# has_words PID TEXT: whether a process was called with this text. Its words end in
# NUL bytes, behind which busybox `grep` sees nothing.
has_words() { tr '\000' '\n' <"/proc/$1/cmdline" 2>/dev/null | grep -qF "$2"; }

# Without flock: a directory is made by one only. One whose maker is gone is
# taken over, by one at a time.
lock_by_directory() {
    if ! mkdir "$STATE/lock.d" 2>/dev/null; then
        mkdir "$STATE/lock.takeover" 2>/dev/null || taken
        maker=
        if [ -f "$STATE/lock.d/pid" ]; then read -r maker <"$STATE/lock.d/pid"; fi
        if [ -z "$maker" ] || has_words "$maker" runner.sh; then
            rmdir "$STATE/lock.takeover"
            taken
        fi
        echo "$$" >"$STATE/lock.d/pid"
        rmdir "$STATE/lock.takeover"
        return
    fi
    echo "$$" >"$STATE/lock.d/pid"
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

# limited SECONDS SCRIPT [WORD…]: 0 or the script's status. It runs in a session of its
# own, so that all it started can be ended with it; 124 says that it had to be,
# 125 that even that did not work.
limited() {
    [ -f "$2" ] || return 0
    hung=
    # shellcheck disable=SC2086 # no word where there is no setsid
    (umask 022 && shift && exec $detach sh "$@") </dev/null >"$RUN/output" 2>&1 9>&- &
    child=$!
    echo "$child" >"$RUN/child"
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
    child=
    return "$code"
}

# watch PID SECONDS: 99 if the time was over. It is told by TERM that the process
# ended; a TERM that comes before the trap is set can be lost, so it also looks.
watch() {
    nap=
    over=
    trap 'if [ -n "$over" ]; then end_group KILL "$1"; exit 99; fi
        if [ -n "$nap" ]; then kill "$nap"; fi; exit 0' TERM
    kill -0 "$1" || exit 0
    nap_for "$2"
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

# What a killed runner left running of this run's steps.
end_leftover() {
    [ -f "$RUN/child" ] || return 0
    read -r left <"$RUN/child"
    if has_words "$left" "$RUN/steps/"; then
        end_group KILL "$left"
    fi
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
    bad=
    for step in "$@"; do
        [ -f "$RUN/steps/$step/apply" ] || continue
        journal_now undo "$step"
        if [ ! -f "$RUN/steps/$step/undo" ]; then
            echo "it cannot be undone" >"$RUN/output"
        elif limited "$(patience_of "$step")" "$RUN/steps/$step/undo"; then
            journal undone "$step"
            continue
        fi
        bad=1
        journal undo-failed "$step" "$(last_words)"
    done
    # A check that asks more than whether all is as before, such as whether a device
    # is idle, leaves that out now.
    DEPLOY_AFTER_UNDO=1
    export DEPLOY_AFTER_UNDO
    for step in "$@"; do
        if ! limited "$(patience_of "$step")" "$RUN/steps/$step/check"; then
            bad=1
            journal undo-failed "$step" "not as before: $(last_words)"
        fi
    done
    [ -z "$bad" ]
}

# The steps that were begun, last first.
begun_steps() {
    sed -n 's/^[^ ]* apply \([^ ]*\) *$/\1/p' "$RUN/journal" | sort -ru
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

# --- the two verbs ------------------------------------------------------------------------

# finish STATUS: the end of a run, in its journal and on disk.
finish() {
    set_status "$1"
    journal_now end - "$1"
    unlock
    exit 0
}

undo_and_finish() {
    rm -f "$RUN/reserve"
    set_status undoing
    # shellcheck disable=SC2086 # names of steps have no blanks
    if undo_steps $begun; then finish undone; else finish undo-failed; fi
}

refuse_after_interruption() {
    for dir in "$STATE"/runs/*; do
        case $dir:$(status_of "$dir") in
            "$RUN":*) ;;
            *:running | *:undoing)
                echo "run ${dir##*/} was interrupted on this host and is neither applied nor undone"
                unlock
                exit 76
                ;;
        esac
    done
}

run() {
    lock "$(cat "$RUN/owner")"
    refuse_after_interruption
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
    if ! keep_record || ! flush_snapshot || ! set_status running; then
        journal snapshot-failed - "$STATE cannot be written"
        finish failed
    fi

    begun=
    for step in $(steps); do
        begun="$step $begun"
        : >"$RUN/output"
        if [ -n "$stop" ]; then
            journal apply-failed "$step" "the runner was told to stop"
            undo_and_finish
        fi
        if ! journal_now apply "$step" || ! limited "$(limit_of "$step")" "$RUN/steps/$step/apply"; then
            journal apply-failed "$step" "$(last_words)"
            undo_and_finish
        fi
        if ! limited "$(patience_of "$step")" "$RUN/steps/$step/verify"; then
            journal verify-failed "$step" "$(last_words)"
            undo_and_finish
        fi
        journal "done" "$step"
    done
    if ! put_record; then
        journal record-failed - "$STATE cannot be written"
        restore_record
        undo_and_finish
    fi
    rm -f "$RUN/reserve" "$RUN/output" "$RUN/child" "$RUN/at"
    prune
    finish "done"
}

# undo ANYWAY WHO
undo() {
    lock "rollback of run ${RUN##*/}: $2"
    case $(status_of "$RUN") in
        "done")
            [ -n "$1" ] || refuse_if_moved
            ;;
        running | undoing | undo-failed) ;;
        *)
            echo "there is nothing to undo: run ${RUN##*/} is $(status_of "$RUN")"
            unlock
            exit 76
            ;;
    esac
    rm -f "$RUN/reserve"
    end_leftover
    refuse_if_used
    set_status undoing || exit 1
    journal start - "rollback: $2"
    # shellcheck disable=SC2046 # names of steps have no blanks
    if undo_steps $(begun_steps); then
        restore_record
        finish rolled-back
    fi
    finish undo-failed
}

# An undo that is refused half-way leaves the host between.
refuse_if_used() {
    used=
    for step in $(begun_steps); do
        if ! limited "$(patience_of "$step")" "$RUN/steps/$step/idle"; then
            used=1
            echo "$step: $(last_words)"
        fi
    done
    [ -n "$used" ] || return 0
    unlock
    exit 77
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
    unlock
    exit 76
}

case ${1-} in
    run) run ;;
    undo) undo "" "${2-}" ;;
    undo-anyway) undo 1 "${2-}" ;;
    each) each_here "$2" ;;
    *) echo "runner.sh run|undo|undo-anyway" >&2; exit 64 ;;
esac
