# Docker's configuration. Sourced; POSIX sh.

# docker_file_is PATH SHA256: of its content, with or without line breaks at the end. No file is
# an empty one. A hash, for such files hold credentials.
docker_file_is() {
    now=$(cat "$1" 2>/dev/null) || now=
    sum=$(printf '%s' "$now" | sha256sum) && [ "${sum%% *}" = "$2" ] && return 0
    if [ -e "$1" ] && sum=$(sha256sum <"$1") && [ "${sum%% *}" = "$2" ]; then return 0; fi
    printf '%s\n' "$(shown "$1"): does not say what it should" >&2
    return 1
}

# docker_file_names PATH WORD
docker_file_names() {
    grep -qF "\"$2\"" "$1" && return 0
    printf '%s\n' "$(shown "$1"): does not name $2" >&2
    return 1
}

# docker_knows RUNTIME default|any: the daemon that runs has read its file.
docker_knows() {
    form='{{range $name, $_ := .Runtimes}}runtime {{$name}}{{"\n"}}{{end}}default {{.DefaultRuntime}}'
    now=$(docker info --format "$form" </dev/null) || return 1
    if printf '%s\n' "$now" | grep -qxF "runtime $1"; then
        if [ "$2" = any ] || printf '%s\n' "$now" | grep -qxF "default $1"; then return 0; fi
    fi
    printf '%s\n' "docker info: does not say what its file says of $1; it may read another one" >&2
    return 1
}
