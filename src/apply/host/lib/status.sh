# shellcheck shell=sh
# How a run stands, in one word in `status`; runner.sh says what each means.

# status_of DIRECTORY: the word, or `unknown`.
status_of() {
    status=unknown
    if [ -f "$1/status" ]; then read -r status <"$1/status"; fi
    printf '%s' "$status"
}

# Between: neither kept nor undone, so that the host takes no other run.
is_open() {
    case $1 in
        running | rebooting | unconfirmed | undoing) return 0 ;;
    esac
    return 1
}

# Over, one way or the other, or never begun. A word that cannot be read, or that nobody
# knows, is none that is over.
is_over() {
    case $1 in
        uploaded | stale | failed | "done" | undone | rolled-back | undo-failed) return 0 ;;
    esac
    return 1
}

# Somebody is at it, or was killed: it changes without anybody asking for it.
is_moving() {
    case $1 in
        uploaded | preparing | running | undoing) return 0 ;;
    esac
    return 1
}

# set_status WORD: the old one or the new one, never none.
set_status() {
    echo "$1" >"$RUN/status.new" && flush "$RUN/status.new" &&
        mv -f "$RUN/status.new" "$RUN/status" && flush "$RUN"
}
