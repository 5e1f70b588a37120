# Docker's configuration. Sourced; POSIX sh.

# docker_file_is PATH TEXT: its content, but for line breaks at the end. No file is an empty one.
docker_file_is() {
    now=$(cat "$1" 2>/dev/null) || now=
    [ "$now" = "$(printf '%s' "$2")" ] && return 0
    printf '%s\n' "$(shown "$1"): does not say what it should" >&2
    return 1
}

# docker_file_names PATH WORD
docker_file_names() {
    grep -qF "\"$2\"" "$1" && return 0
    printf '%s\n' "$(shown "$1"): does not name $2" >&2
    return 1
}
