# shellcheck shell=sh
# Puts the record of a plan that had nothing to change where runs put theirs. $1 is the state
# directory, $2 the file of the record, $3 the number of its bytes that come, $4 the file of
# its sums, $5 these. Ends with 75 where somebody is at work on this host: his record counts.
# Before it stands lib/flush.sh.

umask 077
LC_ALL=C
export LC_ALL
(umask 022 && mkdir -p "${1%/*}") && mkdir -p "$1" && chmod 700 "$1" && cd "$1" || exit
if command -v flock >/dev/null; then
    : >>lock || exit
    exec 9<>lock
    flock -n 9 || exit 75
fi
if [ -e open ]; then exit 75; fi
trap 'rm -f "$2.put" "$4.put"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$2.put" && printf '%s\n' "$5" >"$4.put" || exit
size=$(wc -c <"$2.put") || exit
if ! [ "$size" -eq "$3" ]; then
    echo "only $size of $3 bytes arrived" >&2
    exit 1
fi
# The sums first out of the way: they must never speak of another record.
flush "$2.put" "$4.put" && rm -f "$4" && mv -f "$2.put" "$2" && mv -f "$4.put" "$4" && flush .
