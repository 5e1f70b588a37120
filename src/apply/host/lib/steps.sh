# shellcheck shell=sh
# The steps of a run, one after the other. What was begun and done is in the journal.

steps() {
    for dir in "$RUN"/steps/*; do
        if [ -d "$dir" ]; then printf '%s\n' "${dir##*/}"; fi
    done
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

# The steps that were begun, last first.
begun_steps() {
    sed -n 's/^[^ ]* apply \([^ ]*\) *$/\1/p' "$RUN/journal" | sort -ru
}

# was_done STEP: before the host was restarted.
was_done() { grep -q "^[^ ]* done $1 " "$RUN/journal"; }
was_begun() { grep -q "^[^ ]* apply $1 " "$RUN/journal"; }

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
        if [ -s "$RUN/told" ]; then
            journal told "$step" "$(words_of "$RUN/told")"
            rm -f "$RUN/told"
        fi
    done
    if [ "$confirms" = host ]; then keep_run; fi
    # From here on the time runs.
    if ! deadline_in "$window" || ! set_status unconfirmed; then
        journal record-failed - "$STATE cannot be written"
        undo_and_finish undone
    fi
    journal_now unconfirmed - "$(deadline_epoch "$RUN")"
    free_lock
    exit 0
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
