# containerd's configuration as it tells it itself. Sourced; POSIX sh.

# containerd_says: of all files that it reads, lines `runtime NAME`, `binary NAME PROGRAM`,
# `default NAME`, `cdi true|false`, and `cri off` where Kubernetes' part of it is.
containerd_says() {
    dump=$(containerd config dump </dev/null) || return 1
    printf '%s\n' "$dump" | awk '
        /^[ \t]*\[/ {
            table = $0
            gsub(/[^A-Za-z0-9_.-]/, "", table)
            of = table
            if (sub(/^.*\.containerd\.runtimes\./, "", of) && of !~ /\./) print "runtime", of
            next
        }
        {
            value = $0
            sub(/^[^=]*=[ \t]*/, "", value)
            gsub(/["\047]/, "", value)
        }
        $1 == "BinaryName" && table ~ /\.containerd\.runtimes\.[^.]*\.options$/ {
            of = table
            sub(/^.*\.containerd\.runtimes\./, "", of)
            sub(/\.options$/, "", of)
            print "binary", of, value
        }
        $1 == "default_runtime_name" && table ~ /\.containerd$/ { print "default", value }
        $1 == "enable_cdi" && table ~ /^plugins\.(cri|io\.containerd\.grpc\.v1\.cri|io\.containerd\.cri\.v1\.runtime)$/ {
            print "cdi", value
        }
        $1 == "disabled_plugins" && value ~ /cri/ { print "cri off" }'
}

# containerd_knows any|default: it has NVIDIA's runtime, as its default one if that is asked for.
containerd_knows() {
    said=$(containerd_says) || return 1
    if printf '%s\n' "$said" | grep -q '^binary nvidia .*nvidia-container-runtime$' &&
        ! printf '%s\n' "$said" | grep -qxF 'cdi false'; then
        if [ "$1" = any ] || printf '%s\n' "$said" | grep -qxF 'default nvidia'; then return 0; fi
    fi
    printf '%s\n' 'containerd config dump: does not say what the tool was to write of nvidia' >&2
    return 1
}

# containerd_behind UNIT FILE...: one of the files was written after the daemon that runs had
# started, which `config dump` does not tell: it reads the files. Both times are whole seconds.
containerd_behind() {
    since=$(systemctl show -p ActiveEnterTimestampMonotonic --value -- "$1" 2>/dev/null </dev/null)
    boot=$(awk '$1 == "btime" { print $2 }' /proc/stat 2>/dev/null)
    case $since:$boot in
    :* | *: | 0:* | *[!0-9:]*) return 1 ;;
    esac
    shift
    for file in "$@"; do
        written=$(stat -c %Y -- "$file" 2>/dev/null) || continue
        [ "$written" -le "$((boot + since / 1000000 + 1))" ] || return 0
    done
    return 1
}

# containerd_unused FOLDER: one that was not there before goes again, unless others have put
# something into it.
containerd_unused() {
    [ ! -d "$1" ] || rmdir "$1" 2>/dev/null || :
}
