# The driver's time slice of one card. Sourced; POSIX sh.

# timeslice_of GPU: Default, Short, Medium or Long, or nothing where the driver's
# answer has none of these words (its form is not documented).
timeslice_of() (
    status=0
    out=$(nvidia-smi compute-policy -i "$1" -l 2>&1 </dev/null) || status=$?
    if [ "$status" -ne 0 ]; then
        printf '%s\n' "GPU $1: the compute policy cannot be read (status $status): $out" >&2
        exit 1
    fi
    printf '%s\n' "$out" | awk '
        { gsub(/[|:,]/, " ") }
        {
            for (i = NF; i > 0; i--) {
                word = tolower($i)
                if (word == "default" || word == "short" || word == "medium" || word == "long") {
                    print toupper(substr(word, 1, 1)) substr(word, 2)
                    exit
                }
            }
        }'
)

# timeslice_is GPU WORD: succeeds if the time slice is this, or cannot be told.
timeslice_is() (
    have=$(timeslice_of "$1") || exit 1
    if [ -z "$have" ]; then
        printf '%s\n' "GPU $1: the driver does not say which time slice is set" >&2
        exit 0
    fi
    [ "$have" = "$2" ] && exit 0
    printf '%s\n' "GPU $1: the time slice is $have, expected $2" >&2
    exit 1
)

# timeslice_set GPU WORD: sets the time slice and reads it back.
timeslice_set() (
    case $2 in
    Short) level=1 ;;
    Medium) level=2 ;;
    Long) level=3 ;;
    *) level=0 ;;
    esac
    status=0
    out=$(nvidia-smi compute-policy -i "$1" --set-timeslice="$level" 2>&1 </dev/null) || status=$?
    if [ "$status" -ne 0 ]; then
        printf '%s\n' "GPU $1: the time slice cannot be set (status $status): $out" >&2
        exit 1
    fi
    timeslice_is "$1" "$2"
)

# boot_timeslice GPU WORD: the time slice after a boot.
boot_timeslice() {
    timeslice_set "$@"
}
