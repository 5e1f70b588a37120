# shellcheck shell=sh
# On disk before we go on, or a failure.

flush() { is_written "$(sync "$@" 2>&1 || echo "sync failed")"; }

# flush_tree DIRECTORY: with all files and folders below it.
flush_tree() {
    is_written "$(find "$1" \( -type f -o -type d \) -exec sync {} + 2>&1 || echo "sync failed")"
}

# is_written WORDS: what `sync` said of named files. Old ones take no names, and some file
# systems write no single file: then everything is written.
is_written() {
    case $1 in
        '') return 0 ;;
        *'output error'* | *'I/O error'* | *'No space'* | *'uota exceeded'* | *'ead-only'*) ;;
        *sage:* | *rguments* | *'nvalid argument'* | *'ot supported'* | *'ot implemented'*)
            sync
            return
            ;;
    esac
    printf '%s\n' "$1" >&2
    return 1
}
