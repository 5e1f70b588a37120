# Container device specifications for cards whose vendor has no tool for it. Sourced; POSIX sh
# with awk and sort.
#
# A device is called by where its card is, which stays when nodes are numbered anew:
# 0000:05:00.0 for a card, 0000:05:00.0-p3 for a partition of it, 0000:4b:00.0-vf2 for a virtual
# function.

# cdi_nodes VENDOR: lines `NAME NODE` of what containers may open of amd's or intel's cards.
cdi_nodes() (
    case $1 in
    amd)
        # A partition is a node of the compute driver, and all share /dev/kfd.
        for f in "$R"/sys/class/kfd/kfd/topology/nodes/*/properties; do
            [ ! -r "$f" ] || cat "$f"
            echo 'end 0'
        done | awk '
            function done_with_node() {
                if (minor > 0 && simd > 0) {
                    place = sprintf("%04x:%02x:%02x", domain, int(at / 256) % 256, int(at / 8) % 32)
                    count[place]++
                    if (count[place] == 1) { order[++places] = place; first[place] = at % 8 }
                    function_of[place, count[place]] = at % 8
                    node[place, count[place]] = minor
                }
                domain = at = minor = simd = 0
            }
            $1 == "domain" { domain = $2 }
            $1 == "location_id" { at = $2 }
            $1 == "drm_render_minor" { minor = $2 }
            $1 == "simd_count" { simd = $2 }
            $1 == "end" { done_with_node() }
            END {
                for (i = 1; i <= places; i++) {
                    place = order[i]
                    card = place "." (count[place] > 1 ? 0 : first[place])
                    print card, "/dev/kfd"
                    for (j = 1; j <= count[place]; j++) {
                        print card, "/dev/dri/renderD" node[place, j]
                        if (count[place] == 1) continue
                        part = card "-p" function_of[place, j]
                        print part, "/dev/kfd"
                        print part, "/dev/dri/renderD" node[place, j]
                    }
                }
            }'
        ;;
    intel)
        for d in "$R"/sys/bus/pci/devices/*; do
            read -r vendor 2>/dev/null <"$d/vendor" || continue
            [ "$vendor" = 0x8086 ] || continue
            for n in "$d"/drm/renderD*; do
                [ -e "$n" ] || continue
                name=${d##*/}
                if [ -e "$d/physfn" ]; then
                    for f in "$d"/physfn/virtfn*; do
                        [ "$(basename "$(readlink "$f")")" != "${d##*/}" ] ||
                            name=$(basename "$(readlink "$d/physfn")")-vf$((${f##*virtfn} + 1))
                    done
                fi
                printf '%s\n' "$name /dev/dri/${n##*/}"
            done
        done
        ;;
    esac | sort -u
)

# cdi_spec VENDOR: the specification as JSON.
cdi_spec() {
    cdi_nodes "$1" | awk -v kind="$1.com/gpu" '
        function close_device() { if (name != "") printf "\n        ]\n      }\n    }" }
        BEGIN { printf "{\n  \"cdiVersion\": \"0.5.0\",\n  \"kind\": \"%s\",\n  \"devices\": [", kind }
        $1 != name {
            close_device()
            printf "%s\n    {\n      \"name\": \"%s\",\n      \"containerEdits\": {\n        \"deviceNodes\": [", (name == "" ? "" : ","), $1
            name = $1
            between = ""
        }
        { printf "%s\n          { \"path\": \"%s\" }", between, $2; between = "," }
        END { close_device(); printf "\n  ]\n}\n" }'
}

# cdi_write VENDOR: the same to its file; only where it differs, so that nothing is woken. One
# without a device would be refused.
cdi_write() (
    file=$R/etc/cdi/deploy-$1.json
    if [ -z "$(cdi_nodes "$1")" ]; then
        rm -f "$file"
        exit
    fi
    text=$(cdi_spec "$1") || exit 1
    if [ -f "$file" ] && [ "$(cat "$file")" = "$text" ]; then exit 0; fi
    mkdir -p "$R/etc/cdi" || exit 1
    temp=$R/etc/cdi/.deploy-$1.json.new
    # Read by every user whose containers are rootless.
    (umask 022 && printf '%s\n' "$text" >"$temp") && mv -f "$temp" "$file"
)
