# shellcheck shell=sh
# What this host remembers beyond a run: what was last applied, which handlers are owed,
# and the runs before.

# records: the files of $STATE that a run writes once it is kept. `applied-KEY` is what a
# playbook was last applied with; there is one for each selection of its tasks, and a run
# has its own.
records() {
    echo current.json
    echo remembered
    for record in "$RUN"/applied-*; do
        if [ -f "$record" ]; then printf '%s\n' "${record##*/}"; fi
    done
}

keep_record() {
    mkdir -p "$RUN/snapshot/state" || return 1
    for name in $(records); do
        if [ -f "$STATE/$name" ]; then cp -p "$STATE/$name" "$RUN/snapshot/state/$name" || return 1; fi
    done
}

put_record() {
    for name in $(records); do
        cp "$RUN/$name" "$STATE/$name.new" && flush "$STATE/$name.new" &&
            mv -f "$STATE/$name.new" "$STATE/$name" || return 1
    done
    flush "$STATE"
}

# Only what this run had recorded: a later run's record stays.
restore_record() {
    for name in $(records); do
        rm -f "$STATE/$name.new"
        cmp -s "$RUN/$name" "$STATE/$name" || continue
        if [ -f "$RUN/snapshot/state/$name" ]; then
            cp -p "$RUN/snapshot/state/$name" "$STATE/$name.new" && flush "$STATE/$name.new" &&
                mv -f "$STATE/$name.new" "$STATE/$name"
        else
            rm -f "$STATE/$name"
        fi
    done
    flush "$STATE"
}

# What could not be undone may still wait for its handler: the next run is told of it.
owe() {
    for handler in "$RUN"/handlers/*; do
        [ -d "$handler" ] || continue
        # shellcheck disable=SC2154 # by undo_steps
        for step in $left $kept; do
            if grep -qxF "$step" "$handler/by"; then
                grep -qxFf "$handler/name" "$STATE/owed" 2>/dev/null ||
                    cat "$handler/name" >>"$STATE/owed"
            fi
        done
    done
    if [ -f "$STATE/owed" ]; then flush "$STATE/owed"; fi
}

# All handlers of this run have run: nobody owes them any more.
settle_handlers() {
    [ -f "$STATE/owed" ] || return 0
    for handler in "$RUN"/handlers/*; do
        [ -d "$handler" ] || continue
        grep -vxFf "$handler/name" "$STATE/owed" >"$STATE/owed.new"
        mv -f "$STATE/owed.new" "$STATE/owed" || return 1
    done
    [ -s "$STATE/owed" ] || rm -f "$STATE/owed"
}

# Of the runs that are over the last ten are kept; those that need a person, always, and
# one whose guard does not go: its boot unit calls what stands in its directory.
prune() {
    count=1
    # shellcheck disable=SC2045 # run ids are letters, digits and dashes
    for old in $(ls -r "$STATE/runs"); do
        old=$STATE/runs/$old
        if [ "$old" = "$RUN" ]; then continue; fi
        case $(status_of "$old") in
            done | undone | rolled-back | stale | failed | uploaded | preparing) ;;
            *) continue ;;
        esac
        count=$((count + 1))
        [ "$count" -gt 10 ] || continue
        limited 60 "$old/guard.sh" disarm "$RUN/"
        case $? in
            0) rm -rf "$old" ;;
            # Nor would the next one; the time that this run may take goes on.
            124 | 125) return ;;
        esac
    done
}
