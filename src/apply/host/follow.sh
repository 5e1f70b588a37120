# shellcheck shell=sh
# Starts the runner of the run directory $1 with the words that follow and
# prints its journal as it grows, then one line `end CODE STATUS` and what the
# runner said. The runner is no child of the login that this script belongs to:
# where systemd runs it is a unit of its own, elsewhere it has a session of its own.
# It does not notice when this script, or the connection, goes away. `received` says
# that from now on the host acts by itself. Before it stand lib/process.sh and
# lib/status.sh.

RUN=$1
shift
umask 077
cd "$RUN" || exit
exec 3<journal
skipped=$(wc -l <&3)
if ! mkfifo "wake.$$"; then
    echo "nothing can be written below /var/lib/deploy now, so nothing was begun" >&2
    exit 1
fi
exec 4<>"wake.$$"
# shellcheck disable=SC2086 # some `wc` pad with blanks
echo received $skipped
R=${RUN%/var/lib/deploy/runs/*}
id=${RUN##*/}
# --pipe, --wait and --collect are there since version 236.
version=0
if [ -d "$R/run/systemd/system" ] && command -v systemd-run >/dev/null; then
    version=$(systemd-run --version | { read -r _ word _ && printf '%s' "${word%%[!0-9]*}"; })
fi
(
    if [ "${version:-0}" -ge 236 ]; then
        # A killed runner calls the guard at once.
        systemd-run --quiet --collect --wait --pipe --unit="deploy-$1-$id-$$" \
            --description="deploy $1, run $id" --property=TimeoutStopSec=5 \
            --property="OnFailure=deploy-guard-$id.service" \
            /bin/sh "$RUN/runner.sh" "$@" </dev/null >"$RUN/said.$$" 2>&1 3<&- 4<&-
    elif command -v setsid >/dev/null; then
        setsid sh "$RUN/runner.sh" "$@" </dev/null >"$RUN/said.$$" 2>&1 3<&- 4<&-
    else
        nohup sh "$RUN/runner.sh" "$@" </dev/null >"$RUN/said.$$" 2>&1 3<&- 4<&-
    fi
    echo "end $?" >&4
) &
asked=
while read -r word code <&4; do
    cat <&3
    # The wire keeps a last newline back until it knows what follows.
    echo
    if [ "$word" = end ]; then break; fi
    # Whoever was to tell the end may have been killed: then the status says it.
    if [ -z "$asked" ] && ! is_moving "$(status_of "$RUN")"; then
        asked=1
        # A slow host takes its time from the first word to the status that moves.
        { while sleep 10 && at_work runner.pid runner.sh; do :; done; echo "end 0" >&4; } </dev/null >/dev/null 2>&1 3<&- &
    fi
done
status=unknown
# By the shell itself: what ended well is not in doubt because no program can be started.
if [ -f status ]; then read -r status <"$RUN/status"; fi
printf 'end %s %s\n' "$code" "$status"
head -c 16384 "said.$$"
rm -f "wake.$$" "said.$$"
# A run that found the lock taken, or was refused, has left nothing to keep. It goes at
# once, under a name that nobody starts: a runner that comes late finds nothing at all.
if [ "$status" = uploaded ]; then
    gone=${RUN%/*}/.$id.gone.part
    mv "$RUN" "$gone" && rm -rf "$gone"
fi
