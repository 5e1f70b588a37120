#!/bin/sh
# Stands before a program of a test host: the first folder of root's PATH has a copy of
# this under the program's name. Calls are numbered; each is written to /sim/crash/log, and
# at the one that /sim/crash/case names it stops, says so (`reached`) and goes on when it
# is told to (`go`). /sim is on no disk of the host, so that a full one does no harm here.

me=${0##*/}
crash=/sim/crash
IFS=:
for folder in $PATH; do
    real=$folder/$me
    if [ "$folder" != "${0%/*}" ] && [ -x "$real" ]; then break; fi
done
unset IFS
[ -e "$crash/case" ] || exec "$real" "$@"
read -r at deed <"$crash/case"

# A number is had by one call only.
set -C
n=1
until true 2>/dev/null >"$crash/call.$n"; do n=$((n + 1)); done
set +C
# What the run is at, by the last line of its journal.
stage=upload
for journal in /var/lib/deploy/runs/*/journal; do
    [ ! -f "$journal" ] || while read -r _ event step _; do
        stage=$event
        if [ "$step" != - ]; then stage=$step; fi
    done <"$journal"
done
printf '%s\037%s %s\036' "$stage" "$me" "$*" >>"$crash/log"
[ "$n" = "$at" ] || exec "$real" "$@"

stop_here() {
    : >"$crash/reached"
    until [ -e "$crash/go" ]; do /bin/sleep 0.02; done
}
case $deed in
    before)
        stop_here </dev/null
        exec "$real" "$@"
        ;;
    after)
        "$real" "$@"
        status=$?
        stop_here </dev/null
        exit "$status"
        ;;
    *)
        : >"$crash/reached"
        echo "$me: failed on purpose" >&2
        exit 1
        ;;
esac
