# shellcheck shell=sh
# The end of a run from outside: by its guard, or by a person while its runner hangs.

# Called by the guard, which has seen that nobody is at it, or that the time is over.
expire() {
    lock_tries=20
    if ! take_lock; then
        overdue_by "$RUN"
        settings
        if [ "$(status_of "$RUN")" = unconfirmed ]; then late=$((late - total)); fi
        [ "$late" -ge 0 ] || exit 0
        end_runner
        take_lock || taken
    fi
    settings
    overdue_by "$RUN"
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
            overdue_by "$RUN"
            [ "$late" -ge 0 ] || exit 0
            ;;
        uploaded:* | stale:* | failed:* | "done":* | undone:* | rolled-back:* | undo-failed:*)
            clear_open
            limited 60 "$RUN/guard.sh" disarm
            code=$?
            free_lock
            exit "$code"
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
    is_open "$(status_of "$RUN")" || refuse "run ${RUN##*/} keeps nobody out: it is $(status_of "$RUN")"
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
