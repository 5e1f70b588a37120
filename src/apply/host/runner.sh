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
# handlers/, current.json, remembered, applied-KEY, `guard` (who confirms, the seconds to
# do so, the seconds for all of it). What it keeps there: snapshot/, `journal` (a line an
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

# shellcheck source-path=SCRIPTDIR
umask 077
RUN=${0%/*}
case $RUN in
    /*/runs/*) ;;
    *) echo "call runner.sh by its absolute path" >&2; exit 64 ;;
esac
. "$RUN/lib.sh"
. "$RUN/lib/process.sh"
. "$RUN/lib/deadline.sh"
. "$RUN/lib/status.sh"
. "$RUN/lib/lock.sh"
. "$RUN/lib/journal.sh"
. "$RUN/lib/limits.sh"
. "$RUN/lib/record.sh"
. "$RUN/lib/steps.sh"
. "$RUN/lib/undo.sh"
. "$RUN/lib/confirm.sh"
. "$RUN/lib/expire.sh"
STATE=${RUN%/runs/*}
cd "${R:-/}" || exit

settings() { read -r confirms window total <"$RUN/guard"; }

run() {
    lock "$(cat "$RUN/owner")"
    # A run is made once, whoever sent it and how often.
    status=$(status_of "$RUN")
    [ "$status" = uploaded ] || refuse "run ${RUN##*/} was begun before: it is $status"
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
    if ! keep_record || ! flush_tree "$RUN/snapshot"; then
        journal snapshot-failed - "$STATE cannot be written"
        finish failed
    fi
    if ! arm; then
        journal arm-failed - "$(last_words)"
        # Before the run is over: of one that is nobody looks for half a guard.
        limited 60 "$RUN/guard.sh" disarm
        finish failed
    fi
    if ! set_status running; then
        journal snapshot-failed - "$STATE cannot be written"
        finish failed
    fi
    make_steps
}

arm() {
    deadline_in "$total" && mark_open || return 1
    limited 60 "$RUN/guard.sh" arm || return 1
    journal armed - "$(cat "$RUN/armed")"
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
    if ! limited 60 "$RUN/guard.sh" disarm; then
        journal disarm-failed - "$(last_words)"
    fi
    free_lock
    exit 0
}

refuse() {
    echo "$1"
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
