# shellcheck shell=sh
# Keeps a run that waits for it, or gives it more time.

# confirm WHO
confirm() {
    lock "confirmation of run ${RUN##*/}: $1"
    settings
    overdue_by "$RUN"
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
    echo "undo-at $(deadline_epoch "$RUN")"
}
