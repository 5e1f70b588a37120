#!/bin/sh
# Stands before a program of a host under test: the first folder of the PATH has a
# copy of this under the program's name. It writes down each call (`log`), or at the
# one call that `case` names it stops, says so (`reached`) and goes on when it is
# told to (`go`): what happens to the host meanwhile is the test's affair. Only
# what a shell does by itself, so that the folder decides nothing.

me=${0##*/}
root=${0%/usr/local/sbin/*}
crash=$root/crash
IFS=:
for folder in $PATH; do
    [ "$folder" = "${0%/*}" ] && continue
    real=$folder/$me
    if [ -x "$real" ] && [ ! -d "$real" ]; then break; fi
    real=
done
unset IFS
[ -n "$real" ] || exit 127

if [ -e "$crash/log" ]; then
    { printf '%s %s\036' "$me" "$*" >>"$crash/log"; } 2>/dev/null
fi
fails=
# shellcheck source=/dev/null
if [ -e "$crash/fails" ]; then . "$crash/fails"; fi
# shellcheck disable=SC2254 # it is a pattern
case "$me $*" in
    $fails)
        echo "$me: failed on purpose" >&2
        exit 1
        ;;
esac
if [ -e "$crash/log" ]; then exec "$real" "$@"; fi
pattern=
# shellcheck source=/dev/null
. "$crash/case"
# shellcheck disable=SC2254 # it is a pattern
case "$me $*" in
    $pattern) ;;
    *) exec "$real" "$@" ;;
esac
# A number is had by one call only.
set -C
n=1
until true 2>/dev/null >"$crash/call.$n"; do n=$((n + 1)); done
set +C
# shellcheck disable=SC2154 # `case` sets it
[ "$n" = "$nth" ] || exec "$real" "$@"

stop_here() {
    echo "$$" >"$crash/reached.new"
    /bin/mv "$crash/reached.new" "$crash/reached"
    until [ -e "$crash/go" ]; do /bin/sleep 0.02; done
}
# shellcheck disable=SC2154
case $deed in
    before)
        stop_here </dev/null
        exec "$real" "$@"
        ;;
    during)
        exec 3<&0
        "$real" "$@" <&3 3<&- &
        exec 3<&-
        stop_here </dev/null
        wait $!
        ;;
    after)
        "$real" "$@"
        status=$?
        stop_here </dev/null
        exit "$status"
        ;;
    fail)
        : >"$crash/reached"
        echo "$me: failed on purpose" >&2
        exit 1
        ;;
    hang)
        echo "$$" >"$crash/reached.new"
        /bin/mv "$crash/reached.new" "$crash/reached"
        # As itself, as a program that hangs is: nobody writes into that pipe.
        read -r _ <"$crash/hang"
        exit 1
        ;;
esac
