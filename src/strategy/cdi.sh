# The container device specification, which does not notice MIG changes by itself.

# tell TEXT: what a person should know though the step went well. In a run the controller shows
# it; at boot it goes to the journal.
tell() {
    printf '%s\n' "$1" >&2
    [ -z "${RUN-}" ] || printf '%s\n' "$1" >>"$RUN/told"
}

# cdi_refresh [--no-block]: has the toolkit write it anew, where it is installed. A unit that is
# ordered before it must not wait for it. A failure is said and no more: the slices are
# there all the same.
cdi_refresh() {
    if command -v systemctl >/dev/null 2>&1 &&
        systemctl cat nvidia-cdi-refresh.service >/dev/null 2>&1; then
        # Several changes in a row would hit the unit's start limit.
        systemctl reset-failed nvidia-cdi-refresh.service >/dev/null 2>&1 || :
        systemctl restart "$@" nvidia-cdi-refresh.service </dev/null ||
            tell 'nvidia-cdi-refresh.service could not be restarted; the CDI specification is stale'
    fi
    # AMD's toolkit has no unit for it.
    if [ -e "$R/etc/cdi/amd.json" ] && command -v amd-ctk >/dev/null 2>&1; then
        amd-ctk cdi generate --output="$R/etc/cdi/amd.json" </dev/null >/dev/null ||
            tell 'amd-ctk could not write /etc/cdi/amd.json; the CDI specification is stale'
    fi
    for vendor in amd intel; do
        if [ -e "$R/etc/cdi/deploy-$vendor.json" ]; then
            cdi_write "$vendor" ||
                tell "/etc/cdi/deploy-$vendor.json could not be written; the CDI specification is stale"
        fi
    done
    return 0
}
