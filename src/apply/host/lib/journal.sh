# shellcheck shell=sh
# The journal of a run: a line an event, `TIME EVENT STEP DETAIL`, for whoever follows
# it and for whoever reads it later.

# journal EVENT STEP [DETAIL]: appends one line and wakes who follows.
journal() {
    printf '%s %s %s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" "$2" "${3-}" >>"$RUN/journal" || return 1
    for wake in "$RUN"/wake.*; do
        # Opened for both ways, a pipe without reader neither blocks nor ends us.
        if [ -p "$wake" ]; then echo 1<>"$wake"; fi
    done
}

# The same, on disk before we go on.
journal_now() { journal "$@" && flush "$RUN/journal"; }

# The last words of a script in one line: newlines as \n, no control bytes.
last_words() { words_of "$RUN/output"; }

# words_of FILE: the same of any file. A step that went well leaves in `told` what a person
# should know of it all the same.
words_of() {
    mark=$(printf '\001')
    tail -c 2000 "$1" 2>/dev/null | tr -d '\000-\010\013-\037\177' |
        tr '\011\012' ' \001' | sed -e 's/\\/\\\\/g' -e "s/$mark*\$//" -e "s/$mark/\\\\n/g"
}
