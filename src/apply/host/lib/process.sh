# shellcheck shell=sh
# Which processes belong to the run in $RUN, and how they are ended. A number alone proves
# nothing: its process may have been killed, and the number be another's by now.

# has_words PID TEXT: whether a process was called with this text. Its words end in
# NUL bytes, behind which busybox `grep` sees nothing.
has_words() { { tr '\000' '\n' <"/proc/$1/cmdline"; } 2>/dev/null | grep -qF "$2"; }

# at_work FILE [SCRIPT]: whether the process is there that this file of the run directory
# names, and still is the run's own (or that script of it); its number is in `pid`.
at_work() {
    pid=
    if [ -f "$RUN/$1" ]; then read -r pid <"$RUN/$1"; fi
    [ -n "$pid" ] && has_words "$pid" "$RUN/${2-}"
}

# is_ours PID: whether it still is a process of this run, as far as can be known.
is_ours() {
    kill -0 "$1" || return
    [ ! -r "/proc/$1/cmdline" ] || has_words "$1" "$RUN/"
}

# end_group SIGNAL PID: the script with all that it started, or where there is
# no setsid, the script alone.
end_group() { kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null; }

# Another runner that is at this run: beyond all its limits, or with a lock whose file is
# gone.
end_runner() {
    if at_work runner.pid runner.sh && [ "$pid" != "$$" ]; then kill -s KILL "$pid"; fi
}

# What a killed runner left running of this run. It must be gone before the undo begins,
# unless it does not end at all.
end_leftover() {
    at_work child || return 0
    tries=0
    while end_group KILL "$pid" && [ "$tries" -lt 50 ]; do
        tries=$((tries + 1))
        sleep 0.2 2>/dev/null || sleep 1
    done
}
