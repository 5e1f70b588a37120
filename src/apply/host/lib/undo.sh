# shellcheck shell=sh
# Takes a run back: the steps that were begun, last first, and what is asked before.

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
        "done" | undo-failed) clear_open; limited 60 "$RUN/guard.sh" disarm ;;
    esac
    free_lock
    exit 1
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
