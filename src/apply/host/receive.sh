# shellcheck shell=sh
# Makes a run directory from standard input. $1 is the state directory, $2 the
# run's id, $3 the number of bytes that come, $4 how often it was sent: lines
# `dir PATH`, `text LINES PATH` followed by that many lines, `data FROM_END SIZE PATH`,
# then `end`, then the bytes of the data entries. All of it is on disk, complete and
# under its name before anything is started; a connection that is cut leaves nothing
# behind. Before it stands lib/flush.sh.

umask 077
LC_ALL=C
export LC_ALL
run=$1/runs/$2
part=$1/runs/.$2.$4.part
(umask 022 && mkdir -p "${1%/*}") && mkdir -p "$1/runs" && chmod 700 "$1" "$1/runs" || exit
for old in "$1"/runs/.*.part; do
    # Of uploads that were cut; a day is longer than any upload takes.
    if [ -d "$old" ]; then find "$old" -prune -mtime +0 -exec rm -rf {} +; fi
done
if [ -e "$run" ]; then
    echo "there is a run $2 already" >&2
    exit 1
fi
trap 'rm -rf "$part"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$part" && cat >"$part/bundle" || exit
size=$(wc -c <"$part/bundle") || exit
if ! [ "$size" -eq "$3" ]; then
    echo "only $size of $3 bytes arrived" >&2
    exit 1
fi
# Nothing is read from a pipe piece by piece: programs read ahead.
exec 3<"$part/bundle"
while read -r kind a b c <&3; do
    case $kind in
        dir) mkdir "$part/$a" || exit ;;
        text)
            while [ "$a" -gt 0 ]; do
                IFS= read -r line <&3 || exit
                printf '%s\n' "$line" || exit
                a=$((a - 1))
            done >"$part/$b" || exit
            ;;
        data) tail -c "$a" "$part/bundle" | head -c "$b" >"$part/$c" || exit ;;
        end) break ;;
        *)
            echo "the upload is damaged" >&2
            exit 1
            ;;
    esac
done
exec 3<&-
rm -f "$part/bundle"
# Room for the journal of an undo when the disk is full.
head -c 65536 /dev/zero >"$part/reserve" || exit
: >"$part/journal" && echo uploaded >"$part/status" || exit
flush_tree "$part" || exit
mv "$part" "$run" || exit
# Where somebody else's upload of the same saved plan was faster, it is theirs.
if [ -e "$run/${part##*/}" ]; then
    rm -rf "${run:?}/${part##*/}"
    echo "there is a run $2 already" >&2
    exit 1
fi
flush "$1/runs" "$1" "${1%/*}" || exit
trap - EXIT HUP INT TERM
# What follows this script starts the run.
set -- "$run" run
