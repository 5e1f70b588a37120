# shellcheck shell=sh
# Starts the runner of the run directory $1 with the words that follow and
# prints its journal as it grows, then one line `end CODE STATUS` and what the
# runner said. The runner lives in a session of its own: it does not notice
# when this script, or the connection, goes away. `received` says that from
# now on the host acts by itself.

RUN=$1
shift
umask 077
cd "$RUN" || exit
exec 3<journal
cat <&3 >/dev/null
detach='nohup'
if command -v setsid >/dev/null; then detach=setsid; fi
mkfifo "wake.$$" || exit
exec 4<>"wake.$$"
echo received
(
    $detach sh "$RUN/runner.sh" "$@" </dev/null >"$RUN/said.$$" 2>&1 3<&- 4<&-
    echo "end $?" >&4
) &
while read -r word code <&4; do
    cat <&3
    # The wire keeps a last newline back until it knows what follows.
    echo
    if [ "$word" = end ]; then break; fi
done
status=unknown
if [ -f status ]; then status=$(cat status); fi
printf 'end %s %s\n' "$code" "$status"
head -c 16384 "said.$$"
rm -f "wake.$$" "said.$$"
# A run that found the lock taken, or was refused, has left nothing to keep.
if [ "$status" = uploaded ]; then rm -rf "$RUN"; fi
